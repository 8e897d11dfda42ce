"""A cache of the keys and values of all positions so far, kept on the device between calls.

Letters: B batch, S new positions, C slots, N heads, d head size.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops


class KeyValueCache(nn.Cell):
    """Keys or values of all positions so far, with one row for each slot.

    Args:
        batch_size: Number of rows B.
        num_heads: Number of heads N.
        length: Number of slots C.
        head_size: Number of columns d.

    Inputs:
        - **new** (Tensor) - [B, N, S, d].
        - **places** (Tensor) - int32 [B, N, S, 3], row, head and slot of each new entry.

    Outputs:
        Tensor [B, N, C, d]: the whole cache after the update.
    """

    def __init__(self, batch_size: int, num_heads: int, length: int, head_size: int, dtype: ms.Type) -> None:
        super().__init__()
        self.table = Parameter(
            ops.zeros((batch_size, num_heads, length, head_size), dtype), requires_grad=False
        )
        self.update = ops.ScatterNdUpdate()

    def construct(self, new: Tensor, places: Tensor) -> Tensor:
        return self.update(self.table, places, new)


def places_of(slots: np.ndarray, num_heads: int) -> np.ndarray:
    """Returns the places in which the caches of all layers store new entries.

    Args:
        slots: int [B, S], slot of each new position.
        num_heads: Number of heads N.

    Returns:
        int32 [B, N, S, 3]: row, head, slot.
    """
    batch, length = slots.shape
    row, head, _ = np.ogrid[:batch, :num_heads, :length]
    return np.stack(np.broadcast_arrays(row, head, slots[:, None]), axis=-1).astype(np.int32)
