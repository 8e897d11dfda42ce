"""Numbers that look random but depend only on their index. Knows no files and no MindSpore."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_U64 = np.uint64
_HEADS, _CELLS = 2**32, 2**33  # first indices of heads and cells; those of columns begin at 0


def mix64(values: np.ndarray) -> np.ndarray:
    """The 64-bit finaliser of SplitMix64 (Steele et al., 2014): each input bit affects all output bits."""
    with np.errstate(over="ignore"):
        values = values + _U64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> _U64(27))) * _U64(0x94D049BB133111EB)
        return values ^ (values >> _U64(31))


def odd32(words: np.ndarray) -> np.ndarray:
    """Odd int32 numbers, taken from the upper halves of mixed 64-bit words."""
    return ((words >> _U64(32)).astype(np.uint32) | np.uint32(1)).view(np.int32)


def column_numbers(count: int) -> np.ndarray:
    """Odd int32 [count] without a pattern: factors of dropout's columns; those of fewer are a prefix."""
    return odd32(mix64(np.arange(count, dtype=_U64)))


def head_numbers(count: int, first: int = 0) -> np.ndarray:
    """Odd int32 [count] without a pattern: factors of the attention heads from number `first` on."""
    return odd32(mix64(np.arange(_HEADS + first, _HEADS + first + count, dtype=_U64)))


def cell_number(salt: int) -> int:
    """The odd int32 factor that distinguishes one dropout cell of a network from the others."""
    return int(odd32(mix64(np.array([_CELLS + salt], _U64)))[0])


def salted(numbers: np.ndarray, salt: int) -> np.ndarray:
    """The int32 numbers of columns or heads times the factor of a cell, which keeps them odd."""
    with np.errstate(over="ignore"):
        return numbers * np.int32(cell_number(salt))


def device_seeds(stream: Sequence[int], salt: int) -> tuple[int, int]:
    """Returns two seeds for the device's own dropout, each in [1, 2^31).

    They are never 0, because MindSpore would then choose a seed itself.

    Args:
        stream: Whole numbers that differ between devices that hold different slices of the tensor.
        salt: Number of the dropout cell.
    """
    words = np.random.SeedSequence([*stream, salt]).generate_state(2)
    return int(words[0]) % (2**31 - 1) + 1, int(words[1]) % (2**31 - 1) + 1
