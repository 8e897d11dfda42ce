"""A whole network as one call of a kernel, for one new token of each of few rows with a cache.

Letters: B rows, R rows of the cache, V vocabulary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from mindspore import Parameter

from pangu_alpha.model.operators.native.library import library
from pangu_alpha.model.operators.native.memory import pack, touch

MOST_ROWS = 16  # more rows are faster as matrix products


class TokenKernel:
    """The logits after one token of each row.

    No graph has a part in a call, because the start of one with a few hundred parameters takes MindSpore 2.9
    up to 2 ms, a tenth of a token's time. The kernel reads and writes the parameters where they lie. It keeps
    their memory, so that a parameter that gets other values while the kernel exists has no effect on it.

    Args:
        weights: All of the network's, in the order in which the kernel takes them.
        caches: Tables of the caches that get new entries, in the order of layers, keys before values.
        epsilon: Of layer normalisation.
        norm_first: Whether the final norm comes before the query layer.

    Inputs:
        - **ids** (ndarray) - int32 [B].
        - **places** (ndarray) - int32 [B, 3]: the row of the cache and the slot that get the new position,
          and the first slot that it attends to. No two may have the same row and slot.

    Outputs:
        float32 [B, V]. What a row gets does not depend on the other rows, nor on how many there are.
    """

    def __init__(
        self, weights: Sequence[Parameter], caches: Sequence[Parameter], epsilon: float, norm_first: bool
    ) -> None:
        self._kernel = ctypes.CDLL(str(library())).CachedNetwork
        # The first five weights belong to no layer.
        layers = _chunks(weights[5:], len(weights[5:]) // (len(caches) // 2))
        pairs = _chunks(caches, 2)
        self._parameters = [*weights[:5]]
        for pair, layer in zip(pairs, layers, strict=True):
            self._parameters += [*pair, *layer]
        self._memory = pack(weights), pack(caches, zeros=True)
        self._vocabulary = weights[0].shape[0]
        self._options = np.array([epsilon], np.float32), np.array([norm_first], np.int32)
        self._arguments = _Arguments(5 + len(self._parameters))
        self.look_up()

    def look_up(self) -> None:
        """Finds out where the parameters lie, which a graph that is compiled might change."""
        for number, option in enumerate(self._options, 2):
            self._arguments.set(number, option.shape, option.ctypes.data)
        for number, parameter in enumerate(self._parameters, 4):
            self._arguments.set(number, parameter.shape, parameter.data_ptr())

    def take_memory(self) -> None:
        """Has the system give all memory of the caches now; a long prompt in a new row would wait for it."""
        touch(self._memory[1])

    def __call__(self, ids: np.ndarray, places: np.ndarray) -> np.ndarray:
        logits = np.empty((len(ids), self._vocabulary), np.float32)
        given = (0, np.ascontiguousarray(ids, np.int32)), (1, np.ascontiguousarray(places, np.int32))
        for number, array in (*given, (4 + len(self._parameters), logits)):
            self._arguments.set(number, array.shape, array.ctypes.data)
        code = self._kernel(*self._arguments.all)
        assert code == 0, f"no such id or place: {ids}, {places}"
        return logits


class _Arguments:
    """Arguments of a kernel as MindSpore passes them.

    Args:
        count: Number of tensors, outputs included.
    """

    def __init__(self, count: int) -> None:
        self._addresses = (ctypes.c_void_p * count)()
        self._ranks = (ctypes.c_int * count)()
        self._shapes = (ctypes.c_void_p * count)()
        self._sizes = np.zeros((count, 4), np.int64)
        for number, sizes in enumerate(self._sizes):
            self._shapes[number] = sizes.ctypes.data
        self.all = (count, self._addresses, self._ranks, self._shapes, None, None, None)

    def set(self, number: int, shape: Sequence[int], address: int) -> None:
        """Says where a tensor lies."""
        self._addresses[number], self._ranks[number] = address, len(shape)
        self._sizes[number, : len(shape)] = shape


def _chunks(items: Sequence[Parameter], size: int) -> list[Sequence[Parameter]]:
    return [items[first : first + size] for first in range(0, len(items), size)]
