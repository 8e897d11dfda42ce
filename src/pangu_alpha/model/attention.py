"""Multi-head attention whose queries may come from another tensor than its keys and values.

Letters: B batch, S new positions, C key positions (= S without a cache), T = B*S, H hidden, N heads,
d head size.
"""

from __future__ import annotations

from typing import Any

from mindspore import nn

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.model.layers import Linear
from pangu_alpha.model.operators import Operators


class Attention(nn.Cell):
    """Scaled dot-product attention over N heads, with queries from one tensor, keys and values from another.

    Args:
        salt: Number of the dropout cell on the attention weights.

    Inputs:
        - **query** (Tensor) - [T, H], from which the queries are made; None: from x.
        - **x** (Tensor) - [T, H], from which the keys and values are made.
        - **mask** (Tensor) - result of `operators.mask` for a mask [B, S, C].
        - **dropout_rows** (Tensor) - int32 [B, S], the dropout's key of each row, or None for no dropout.
        - **places** (Tensor) - int32 [B, N, S, 3], places in the cache, or None without a cache.

    Outputs:
        Tensor [T, H].
    """

    def __init__(self, config: ModelConfig, operators: Operators, salt: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.query = Linear(hidden, hidden, operators)
        self.key = Linear(hidden, hidden, operators)
        self.value = Linear(hidden, hidden, operators)
        self.projections = operators.projections and operators.projections()
        self.split = operators.split_heads(config.num_heads)
        dropout = operators.attention_dropout(config.dropout, salt, config.num_heads)
        self.core = operators.attention(config.num_heads, config.head_size, dropout)
        self.join = operators.join_heads(config.num_heads)
        self.output = Linear(hidden, hidden, operators)
        self.cached = False  # inference.decoder sets it, together with key_cache and value_cache
        self.key_cache: Any = None
        self.value_cache: Any = None

    def construct(self, query, x, mask, dropout_rows=None, places=None):
        batch = mask.shape[0]
        query, key, value = self.project(query, x)
        query = self.split(query, batch)
        key = self.split(key, batch)
        value = self.split(value, batch)
        if self.cached:
            key = self.key_cache(key, places)
            value = self.value_cache(value, places)
        return self.output(self.join(self.core(query, key, value, mask, dropout_rows)))

    def project(self, query, x):
        """Queries, keys and values, [T, H] each."""
        if self.projections is None:
            return self.query(x if query is None else query), self.key(x), self.value(x)
        if query is None:
            weights = self.query.weight, self.key.weight, self.value.weight
            return self.projections(x, weights, (self.query.bias, self.key.bias, self.value.bias))
        weights, biases = (self.key.weight, self.value.weight), (self.key.bias, self.value.bias)
        key, value = self.projections(x, weights, biases)
        return self.query(query), key, value
