"""The shape of a PanGu-alpha network, and the sizes that follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pangu_alpha.config.schema import validate


@dataclass(frozen=True)
class ModelConfig:
    """Dimensions and numerics of one PanGu-alpha network; nothing about devices or plans.

    Args:
        vocab_size: Rows V of the tied embedding table.
        hidden_size: Width H of the residual stream.
        num_layers: Layers L *including* the query layer on top.
        num_heads: Attention heads N; the head size is H / N.
        seq_length: Longest context S; rows of the position and the query table.
        norm_order: Where the final norm stands. "norm_then_query" is the graph of the released 2.6B and
            13B, "query_then_norm" that of the 200B.
        dropout: Rate in training on the embedding sum, attention weights, attention and feed-forward
            outputs. Unit: probability.
        activation: "gelu" is the tanh form (2021 releases); "fast_gelu" is x * sigmoid(1.702 x) (2023).
        layer_norm_epsilon: Added to the biased variance inside the square root.
        compute_dtype: Type of matrix products and the residual stream. "auto" is float32 on CPU and
            float16 on Ascend. Parameters, norms, softmax and loss are float32 always.

    Raises:
        ConfigError: All fields that have the wrong type or break a rule.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    seq_length: int = 1024
    norm_order: Literal["norm_then_query", "query_then_norm"] = "norm_then_query"
    dropout: float = 0.1
    activation: Literal["gelu", "fast_gelu"] = "gelu"
    layer_norm_epsilon: float = 1e-5
    compute_dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"

    # Fields that change the network's shapes, or what its weights mean; and why no other value will do.
    meaning: ClassVar[Mapping[str, str]] = {
        "vocab_size": "its table of tokens has a row for each of its ids",
        "hidden_size": "its tensors have that many columns",
        "num_layers": "it has the tensors of that many layers",
        "num_heads": "the weights of another number of heads mean nothing",
        "seq_length": "its tables of positions and queries have that many rows, and are neither cut nor "
        "extended",
        "norm_order": "its weights were trained in that order",
        "activation": "its weights were trained with that function",
    }

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "seq_length"):
            if getattr(self, name) < 1:
                yield f"{name}: {getattr(self, name)} must be at least 1"
        if self.num_heads >= 1 and self.hidden_size % self.num_heads:
            yield (
                f"num_heads: hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}; "
                "change one so that every head has the same size"
            )
        if not 0.0 <= self.dropout < 1.0:
            yield f"dropout: {self.dropout} must lie in [0, 1)"
        if self.layer_norm_epsilon <= 0.0:
            yield f"layer_norm_epsilon: {self.layer_norm_epsilon} must be positive"

    @property
    def head_size(self) -> int:
        """Columns d = H / N of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def ffn_size(self) -> int:
        """Width 4 H between the two feed-forward mappings."""
        return 4 * self.hidden_size

    @property
    def parameter_count(self) -> int:
        """Trained scalars: V H + 2 S H for the tables, 12 H^2 + 13 H a layer, 2 H for the final norm."""
        tables = (self.vocab_size + 2 * self.seq_length) * self.hidden_size
        layer = 12 * self.hidden_size**2 + 13 * self.hidden_size
        return tables + self.num_layers * layer + 2 * self.hidden_size

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations a trained token costs, forward and backward, without recompute.

        6 for every weight that is multiplied (layers and logits; the query layer included), and
        12 L H S for scores and weighted values of full attention (Megatron-LM's count, causality not
        discounted). MFU is this times tokens/s over the peak.
        """
        weights = 12 * self.num_layers * self.hidden_size**2 + self.vocab_size * self.hidden_size
        return 6 * weights + 12 * self.num_layers * self.hidden_size * self.seq_length
