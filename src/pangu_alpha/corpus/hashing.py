"""Texts as vectors of code points, hashes of their n-grams, and numbers drawn by hashing.

All is integer arithmetic with fixed constants: the same on every machine and in every release of numpy.
Letters of shapes: T texts, S n-grams.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, without a pattern; of polynomials
# Multipliers of the finalizer of splitmix64 (Steele, Lea and Flood, 2014)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def code_points(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Code points of texts one after another, uint32 [characters], and their borders, int64 [T + 1]."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")
    return codes, np.append(0, np.cumsum([len(text) for text in texts])).astype(np.int64)


def mixed(values: np.ndarray) -> np.ndarray:
    """Spreads every bit of a value over all bits of the result, uint64 of the same shape; one to one."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))


def drawn(ids: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) for each id, float64 [ids]: as if drawn at random, but always the same."""
    words = mixed(mixed(ids.astype(np.uint64)) * FACTOR + mixed(np.array([seed], np.uint64)))
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def ngram_hashes(codes: np.ndarray, starts: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the n-grams of texts; a text shorter than n is one n-gram, filled up with zeros.

    Args:
        codes: Code points of all texts, uint32.
        starts: Where each text begins and the last one ends, int64 [T + 1].
        n: Characters of an n-gram.

    Returns:
        Hashes, uint64 [S], with repetitions, and the place of the first one of each text, int64 [T].
    """
    lengths = np.diff(starts)
    if (lengths < n).any():
        codes, starts = _filled_up(codes, starts, n)
        lengths = np.diff(starts)
    wide = codes.astype(np.uint64)
    hashes = np.zeros(len(wide) - n + 1, np.uint64)
    for offset in range(n):
        hashes *= FACTOR
        hashes += wide[offset : offset + len(hashes)]
        hashes += np.uint64(1)
    counts = lengths - n + 1
    firsts = np.append(0, np.cumsum(counts))
    # the n - 1 windows that reach into the next text are left out
    places = np.arange(firsts[-1]) + np.repeat(np.arange(len(counts)) * (n - 1), counts)
    return mixed(hashes[places]), firsts[:-1]


def _filled_up(codes: np.ndarray, starts: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.diff(starts)
    longer = np.maximum(lengths, n)
    ends = np.append(0, np.cumsum(longer))
    filled = np.zeros(ends[-1], np.uint32)
    filled[np.arange(len(codes)) + np.repeat(ends[:-1] - starts[:-1], lengths)] = codes
    return filled, ends
