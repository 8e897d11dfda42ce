"""The keys and values of all positions so far, kept on the device between calls.

Letters: B batch, S new positions, C slots, N heads, d head size.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops


class KeyValueCache(nn.Cell):
    """Keys or values of all positions so far, one row a slot.

    Args:
        batch_size: Rows B.
        num_heads: Heads N.
        length: Slots C.
        head_size: Columns d.
        dtype: Type of the entries.

    Inputs:
        - **new** (Tensor) - [B, N, S, d].
        - **slots** (Tensor) - int32 [B, S], where the new entries go.

    Outputs:
        Tensor [B, N, C, d]: the whole cache after the update.
    """

    def __init__(self, batch_size: int, num_heads: int, length: int, head_size: int, dtype: ms.Type) -> None:
        super().__init__()
        shape = (batch_size, num_heads, length, head_size)
        self.table = Parameter(ops.zeros(shape, dtype).reshape((-1, head_size)), requires_grad=False)
        self.shape = shape
        self.first_rows = ops.arange(0, batch_size * num_heads * length, length).reshape(
            (batch_size, num_heads, 1)
        )
        self.first_rows = self.first_rows.astype(ms.int32)
        self.add = ops.Add()
        self.update = ops.ScatterUpdate()
        self.reshape = ops.Reshape()

    def construct(self, new: Tensor, slots: Tensor) -> Tensor:
        rows = self.add(self.first_rows, ops.expand_dims(slots, 1))  # [B, N, S]
        return self.reshape(self.update(self.table, rows, new), self.shape)
