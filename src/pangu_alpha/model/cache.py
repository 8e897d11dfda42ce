"""A cache of the keys and values of all positions so far, kept on the device between calls.

Letters: R rows of the cache, B rows of a call, S new positions, C slots, N heads, d head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import initializer


class KeyValueCache(nn.Cell):
    """Keys or values of all positions so far, for each row in as many slots.

    Args:
        rows: Number of rows R.
        num_heads: Number of heads N.
        length: Number of slots C.
        head_size: Number of columns d.

    Inputs:
        - **new** (Tensor) - [B, N, S, d].
        - **places** (Tensor) - int32 [B, N, S, 3], row, head and slot of each new entry. The entries of one
          row of `new` go to one row of the cache; with B = R these are the rows 0 to R-1 in order.

    Outputs:
        Tensor [B, N, C, d]: the rows of the cache that `places` names, after the update.
    """

    def __init__(self, rows: int, num_heads: int, length: int, head_size: int, dtype: ms.Type) -> None:
        super().__init__()
        self.rows = rows
        self.table = empty_table((rows, num_heads, length, head_size), dtype)
        self.update = ops.ScatterNdUpdate()
        self.gather = ops.Gather()
        self.replace = ops.ScatterUpdate()

    def construct(self, new: Tensor, places: Tensor) -> Tensor:
        table = self.update(self.table, places, new)
        if places.shape[0] == self.rows:
            return table
        return self.gather(table, places[:, 0, 0, 0], 0)

    def copy(self, numbers: Tensor) -> None:
        """Copies the beginning of one row over that of another.

        Args:
            numbers: int32 [3]: source, destination, and how many slots; all slots are copied here, because
                shapes are fixed in a graph, and nobody attends to those behind the row's length.
        """
        self.replace(self.table, numbers[1:2], self.gather(self.table, numbers[0:1], 0))

    def clear(self, row: Tensor) -> None:
        """Fills a row, int32 [1], with zeros: also a slot that nobody attends to must not hold NaN."""
        self.replace(self.table, row, ops.zeros((1, *self.table.shape[1:]), self.table.dtype))


def empty_table(shape: Sequence[int], dtype: ms.Type) -> Parameter:
    """A cache's parameter, of zeros that take no memory of the device until a graph is compiled."""
    return Parameter(initializer("zeros", shape, dtype), requires_grad=False)


def places_of(slots: np.ndarray, num_heads: int, row: int = 0) -> np.ndarray:
    """Returns the places in which the caches of all layers store new entries.

    Args:
        slots: int [B, S], slot of each new position.
        num_heads: Number of heads N.
        row: Row of the cache to which the first row of `slots` belongs; the others follow it.

    Returns:
        int32 [B, N, S, 3]: row, head, slot.
    """
    batch, length = slots.shape
    places = np.empty((batch, num_heads, length, 3), np.int32)
    places[..., 0] = np.arange(row, row + batch)[:, None, None]
    places[..., 1] = np.arange(num_heads)[:, None]
    places[..., 2] = slots[:, None]
    return places
