"""A whole block as one kernel, for few rows with a cache; see model.pangu.Block for what it computes.

Letters: B rows, C slots, N heads, H hidden.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.model.operators.native.training import kernel, writes_in_place

MOST_ROWS = 16  # more rows are faster as matrix products


class CachedBlock(nn.Cell):
    """A block for one new position of each row, which attends to the visible slots of its cache only.

    Inputs:
        - **weights** (tuple) - as Block.weights gives them.
        - **key_cache**, **value_cache** (Parameter) - tables of KeyValueCache [R, C, H], R >= B; the new
          entries are written in place.
        - **x** (Tensor) - [B, H], float32.
        - **query** (Tensor) - [B, H], of which the queries are made; None for the block's own input.
        - **places** (Tensor) - int32 [B, 3]: the row of the cache and the slot that get the new position, and
          the first slot that it attends to. No two may have the same row and slot.

    Outputs:
        Tensor [B, H]. What a row gets does not depend on the other rows, nor on how many there are.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = Tensor(np.zeros(config.num_heads, np.int32))
        self.epsilon = Tensor([config.layer_norm_epsilon], ms.float32)
        self.layer = _layer(inputs=22)
        self.query_layer = _layer(inputs=23)

    def construct(self, weights, key_cache, value_cache, x, query, places):
        if query is None:
            return self.layer(key_cache, value_cache, x, places, self.heads, self.epsilon, *weights)
        return self.query_layer(key_cache, value_cache, x, places, self.heads, self.epsilon, *weights, query)


def _layer(inputs: int):
    operator = kernel("CachedLayer", lambda key_cache, value_cache, x, *others: x)
    return writes_in_place(operator, written=2, read=inputs - 2)
