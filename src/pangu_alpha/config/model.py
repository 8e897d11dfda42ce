"""The shape of a PanGu-alpha network, and the sizes that follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pangu_alpha.config.option import REQUIRED, option
from pangu_alpha.config.schema import validate

NormOrder = Literal["norm_then_query", "query_then_norm"]
ComputeType = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class ModelConfig:
    """Dimensions and numerics of one PanGu-alpha network; nothing about devices or plans.

    Letters used elsewhere: V is vocab_size, H hidden_size, L num_layers, N num_heads, S seq_length.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    vocab_size: int = option(
        REQUIRED,
        "rows of the embedding table, which also makes the logits; at least the pieces of the vocabulary",
        at_least=1,
    )
    hidden_size: int = option(
        REQUIRED, "width of the residual stream; the feed-forward layers are 4 times as wide", at_least=1
    )
    num_layers: int = option(REQUIRED, "number of layers, including the query layer on top", at_least=1)
    num_heads: int = option(
        REQUIRED, "attention heads of a layer; their number must divide `hidden_size`", at_least=1
    )
    seq_length: int = option(
        1024,
        "longest context, in tokens; training records must be made with the same `--seq-length`",
        at_least=1,
    )
    norm_order: NormOrder = option(
        "norm_then_query",
        "where the final norm stands: `norm_then_query` is the order of the released 2.6B and 13B, "
        "`query_then_norm` that of the 200B",
    )
    dropout: float = option(
        0.1,
        "dropout rate of the embeddings, the attention weights, and the outputs of attention and "
        "feed-forward layers; the flash attention of Ascend needs 0",
        at_least=0,
        below=1,
        metavar="RATE",
    )
    activation: Literal["gelu", "fast_gelu"] = option(
        "gelu", "`gelu` is the tanh form (releases of 2021), `fast_gelu` is `x * sigmoid(1.702 x)` (2023)"
    )
    layer_norm_epsilon: float = option(1e-5, "added to the variance inside the square root", above=0)
    compute_dtype: ComputeType = option(
        "auto",
        "type of the matrix products and the residual stream; `auto` is float32 on CPU and float16 on "
        "Ascend; parameters, norms, softmax and loss are always float32",
    )

    # Fields that change the network's shapes, or the meaning of its weights, and why no other value is
    # possible.
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
        if self.num_heads >= 1 and self.hidden_size % self.num_heads:
            yield (
                f"num_heads: hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}; "
                "change one so that every head has the same size"
            )

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
        """Trained scalars: V H + 2 S H for tables, 12 H^2 + 13 H for each layer, 2 H for the final norm."""
        tables = (self.vocab_size + 2 * self.seq_length) * self.hidden_size
        layer = 12 * self.hidden_size**2 + 13 * self.hidden_size
        return tables + self.num_layers * layer + 2 * self.hidden_size

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations for training one token, forward and backward, without recompute.

        6 for every weight that is multiplied (layers, including the query layer, and logits), plus 12 L H S
        for the scores and weighted values of full attention. This is Megatron-LM's count, which does not
        discount causality. MFU is this number times tokens/s, divided by the peak.
        """
        weights = 12 * self.num_layers * self.hidden_size**2 + self.vocab_size * self.hidden_size
        return 6 * weights + 12 * self.num_layers * self.hidden_size * self.seq_length
