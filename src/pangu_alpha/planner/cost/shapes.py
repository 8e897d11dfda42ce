"""Transformer shapes and what follows from them: parameters, matrix products, floating-point operations.

Covers GPT, PanGu-alpha (with a query layer on top) and Llama (gated feed-forward, grouped heads). Knows no
device. Letters: L layers, H hidden size, N heads, K heads of keys and values, d head size, F feed-forward
size, V vocabulary, S sequence, T tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import validate


class Product(NamedTuple):
    """A matrix product [T, inner] x [inner, outer] with weights, or a batch of products over sequences.

    Args:
        name: Name of the operator.
        inner: Length of the sums.
        outer: Columns of the result.
        heads: 0 for a product with weights; for attention's two products, the number of heads, each of which
            computes S x S x d for a sequence. Then `inner` is d and `outer` is S.
    """

    name: str
    inner: int
    outer: int
    heads: int = 0

    def flops(self, tokens: int, sequence: int) -> int:
        """Floating-point operations of the forward pass; causality is not discounted."""
        return 2 * tokens * (self.heads * sequence * self.inner if self.heads else self.inner * self.outer)


@dataclass(frozen=True)
class Shape:
    """A transformer, as far as its cost depends on it.

    Args:
        layers: L, including PanGu-alpha's query layer.
        hidden: H.
        heads: N.
        ffn: F.
        vocab: V.
        seq: S.
        kv_heads: K; 0 means N.
        head_size: d; 0 means H / N.
        gated: Whether the feed-forward multiplies two mappings, as in Llama.
        biased: Whether linear layers have biases and norms have an offset, as in GPT.
        tied: Whether the logits use the embedding's table.
        positions: Rows of the learned position tables (GPT: S; PanGu-alpha: 2 S with the query table).
        dropout: Rate of dropout, as in ModelConfig.
        activation: Activation of the feed-forward, as in ModelConfig.

    Raises:
        ConfigError: If rules are broken; it lists all fields that break one.
    """

    layers: int
    hidden: int
    heads: int
    ffn: int
    vocab: int
    seq: int
    kv_heads: int = 0
    head_size: int = 0
    gated: bool = False
    biased: bool = True
    tied: bool = True
    positions: int = 0
    dropout: float = 0.0
    activation: Literal["gelu", "fast_gelu"] = "gelu"

    def __post_init__(self) -> None:
        if not self.kv_heads:
            object.__setattr__(self, "kv_heads", self.heads)
        if not self.head_size and self.heads:
            object.__setattr__(self, "head_size", self.hidden // self.heads)
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        for name in ("layers", "hidden", "heads", "ffn", "vocab", "seq", "kv_heads", "head_size"):
            if getattr(self, name) < 1:
                yield f"{name}: {getattr(self, name)} must be at least 1"
        if self.kv_heads >= 1 and self.heads % self.kv_heads:
            yield f"kv_heads: {self.kv_heads} does not divide the {self.heads} heads"

    @classmethod
    def of(cls, model: ModelConfig) -> Shape:
        """The shape of a PanGu-alpha network."""
        return cls(
            layers=model.num_layers,
            hidden=model.hidden_size,
            heads=model.num_heads,
            ffn=model.ffn_size,
            vocab=model.vocab_size,
            seq=model.seq_length,
            positions=2 * model.seq_length,
            dropout=model.dropout,
            activation=model.activation,
        )

    @classmethod
    def gpt(cls, layers: int, hidden: int, heads: int, vocab: int, seq: int, ffn: int = 0) -> Shape:
        """The shape of a GPT: biases, learned positions, a tied table; 0 for `ffn` means 4 H."""
        return cls(layers, hidden, heads, ffn or 4 * hidden, vocab, seq, positions=seq)

    @classmethod
    def llama(
        cls, layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, vocab: int, seq: int
    ) -> Shape:
        """The shape of a Llama: gated, grouped keys and values, no biases, rotary positions, two tables."""
        return cls(
            layers, hidden, heads, ffn, vocab, seq, kv_heads=kv_heads, gated=True, biased=False, tied=False
        )

    def with_layers(self, layers: int) -> Shape:
        """The same shape with another number of layers."""
        return dataclasses.replace(self, layers=layers)

    @property
    def qkv_size(self) -> int:
        """Columns of queries, keys and values together: (N + 2 K) d."""
        return (self.heads + 2 * self.kv_heads) * self.head_size

    @property
    def attention_size(self) -> int:
        """Columns of the heads' joined results: N d."""
        return self.heads * self.head_size

    def products(self) -> tuple[Product, ...]:
        """The matrix products of a layer's forward pass."""
        return (
            Product("qkv", self.hidden, self.qkv_size),
            Product("scores", self.head_size, self.seq, self.heads),
            Product("context", self.head_size, self.seq, self.heads),
            Product("output", self.attention_size, self.hidden),
            Product("up", self.hidden, self.ffn * (2 if self.gated else 1)),
            Product("down", self.ffn, self.hidden),
        )

    @cached_property
    def layer_matrices(self) -> int:
        """Number of a layer's parameters that are factors of matrix products."""
        return sum(product.inner * product.outer for product in self.products() if not product.heads)

    @cached_property
    def layer_parameters(self) -> int:
        """Number of all parameters of a layer."""
        biases = self.qkv_size + self.hidden + self.ffn * (2 if self.gated else 1) + self.hidden
        return self.layer_matrices + (biases + 4 * self.hidden if self.biased else 2 * self.hidden)

    @property
    def first_parameters(self) -> int:
        """Number of parameters before the layers: the word and position tables."""
        return (self.vocab + self.positions) * self.hidden

    @property
    def last_parameters(self) -> int:
        """Number of parameters after the layers: the final norm, and the logits' table unless it is tied."""
        norm = (2 if self.biased else 1) * self.hidden
        return norm + (0 if self.tied else self.vocab * self.hidden)

    @property
    def parameters(self) -> int:
        """Number of all trained scalars."""
        return self.first_parameters + self.layers * self.layer_parameters + self.last_parameters

    def layer_flops(self, tokens: int) -> int:
        """Floating-point operations of a layer's forward pass."""
        return sum(product.flops(tokens, self.seq) for product in self.products())

    def flops(self, tokens: int) -> int:
        """Floating-point operations of both passes without recompute (the "model FLOPs")."""
        return 3 * (self.layers * self.layer_flops(tokens) + 2 * tokens * self.vocab * self.hidden)
