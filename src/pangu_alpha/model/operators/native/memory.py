"""Memory of large pages for parameters of a CPU.

A processor keeps the addresses of only some thousand pages at hand, and reads weights of a gigabyte faster
from pages of 2 MiB than from those of 4 KiB.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import mmap
import weakref
from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, Tensor

_ALIGNMENT = 64  # bytes, a cache line
_packs: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()  # by address


def pack(parameters: Sequence[Parameter], zeros: bool = False) -> np.ndarray:
    """Moves float32 parameters into one piece of memory, and keeps their values.

    Parameters that were moved together before stay where they are. The parameters keep the memory alive as
    long as they lie in it. While they are moved, no more than one of them is held twice.

    Args:
        zeros: Whether all of them are zeros, which take no memory until they are written.

    Returns:
        The memory, bytes.
    """
    offsets = [0, *itertools.accumulate(-(-_size(each) // _ALIGNMENT) * _ALIGNMENT for each in parameters)]
    first = parameters[0].data_ptr()
    if first in _packs and all(
        each.data_ptr() == first + offset for each, offset in zip(parameters, offsets, strict=False)
    ):
        return _packs[first]
    memory = _large_pages(offsets[-1])
    for parameter, offset in zip(parameters, offsets, strict=False):
        place = memory[offset : offset + _size(parameter)].view(np.float32).reshape(parameter.shape)
        if not zeros:
            place[...] = parameter.asnumpy()
        parameter.set_data(Tensor.from_numpy(place))
    _packs[memory.ctypes.data] = memory
    return memory


def touch(memory: np.ndarray) -> None:
    """Has the system give every page of a piece of memory, which keeps its values.

    Args:
        memory: uint8, as `pack` returns it.
    """
    memory[:: mmap.PAGESIZE] |= 0


def _size(parameter: Parameter) -> int:
    return 4 * math.prod(parameter.shape)


def _large_pages(size: int) -> np.ndarray:
    """Bytes of zeros, in pages of 2 MiB where the system has them."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)
