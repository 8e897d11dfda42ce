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
        - **query** (Tensor) - [T, H], from which the queries are made.
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
        query = self.split(self.query(query), batch)
        key = self.split(self.key(x), batch)
        value = self.split(self.value(x), batch)
        if self.cached:
            key = self.key_cache(key, places)
            value = self.value_cache(value, places)
        return self.output(self.join(self.core(query, key, value, mask, dropout_rows)))
