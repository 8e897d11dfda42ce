"""Measures of repetition by characters: Chinese has no spaces, so that rules by words would see one word."""

from __future__ import annotations

import numpy as np

# Odd 64-bit multipliers: the golden ratio's spreads code points over all bits, the other is the base of the
# polynomial. Two different n-grams share a hash with a probability of about 2^-64.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_BASE = 0xD1342543DE82EF95
_MASK = (1 << 64) - 1


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(_BASE, exponent, 1 << 64))


_POWERS = {exponent: _power(exponent) for exponent in (1, 2, 4, 5)}


def ngram_hashes(points: np.ndarray) -> dict[int, np.ndarray]:
    """Hashes of all runs of 4, 10 and 13 characters, sorted.

    Args:
        points: Code points of the characters that count, uint32 [characters].

    Returns:
        By length n, uint64 [characters - n + 1], or an empty array for a shorter text.
    """
    one = points.astype(np.uint64)
    one *= _SPREAD
    one ^= one >> np.uint64(29)
    two = _joined(one, one, 1, 1)
    four = _joined(two, two, 2, 2)
    eight = _joined(four, four, 4, 4)
    ten = _joined(eight, two, 8, 2)
    thirteen = _joined(_joined(eight, four, 8, 4), one, 12, 1)
    return {4: np.sort(four), 10: np.sort(ten), 13: np.sort(thirteen)}


def _joined(left: np.ndarray, right: np.ndarray, size: int, more: int) -> np.ndarray:
    """Hashes of runs of `size + more` characters from those of `size` and of `more` characters."""
    count = max(min(len(left), len(right) - size), 0)
    return left[:count] * _POWERS[more] + right[size : size + count]


def repeated_share(values: np.ndarray) -> float:
    """Share of the sorted values that occur more than once."""
    if len(values) < 2:
        return 0.0
    equal = values[1:] == values[:-1]
    singles = np.count_nonzero(~equal[1:] & ~equal[:-1]) + (not equal[0]) + (not equal[-1])
    return 1 - float(singles) / len(values)


def top_share(values: np.ndarray) -> float:
    """Share of the most frequent one among the sorted values; 0 if none occurs twice."""
    if len(values) < 2:
        return 0.0
    changes = np.flatnonzero(values[1:] != values[:-1])
    longest = int(np.diff(changes, prepend=-1, append=len(values) - 1).max())
    return longest / len(values) if longest > 1 else 0.0
