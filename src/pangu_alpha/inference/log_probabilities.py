"""Exact log-probabilities of ids from logits, in numpy.

The training loss adds 1e-24 to a probability, so that all ids below e^-55 cost the same; here none do.
Letters: S positions, V vocabulary.
"""

from __future__ import annotations

import numpy as np

_GROUP = 64  # logits of a group of which only the largest is looked at


def log_normalizer(logits: np.ndarray) -> np.ndarray:
    """The logarithm of the sum of the exponentials of each line: a logit minus it is log p.

    Args:
        logits: float32 [S, V].

    Returns:
        float64 [S].
    """
    largest = logits.max(axis=-1)
    # Powers of at most 1 in float32, whose rounding is far below that of the logits; their sum in float64.
    powers = np.exp(logits - largest[:, None])
    return largest.astype(np.float64) + np.log(powers.sum(axis=-1, dtype=np.float64))


def nats(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log p of one id of each line.

    Args:
        logits: float32 [S, V].
        labels: int [S].

    Returns:
        float64 [S].
    """
    return log_normalizer(logits) - logits[np.arange(len(logits)), labels]


def top(logits: np.ndarray, count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest ids of each line, the likeliest first; of equal ones the smaller id first.

    Args:
        logits: float32 [S, V].
        count: How many, K; fewer if the vocabulary is smaller.

    Returns:
        int32 [S, K], ids; float32 [S, K], their log p.
    """
    count = min(count, logits.shape[1])
    ids = np.empty((len(logits), count), np.int32)
    if count:
        for line, row, least in zip(ids, logits, _lower_bounds(logits, count), strict=True):
            places = np.flatnonzero(~(row < least))  # with NaN among them, which is less than nothing
            line[:] = places[np.argsort(-row[places], kind="stable")][:count]
    found = np.take_along_axis(logits, ids, axis=1) - log_normalizer(logits)[:, None]
    return ids, found.astype(np.float32)


def _lower_bounds(logits: np.ndarray, count: int) -> np.ndarray:
    """A number for each line that at least `count` of its logits reach, and few more.

    The largest logits of so many groups do; this takes a fifteenth of the time of partitioning whole lines.
    """
    lines, width = logits.shape
    size = max(1, min(_GROUP, width // count))
    groups = width // size
    largest = logits[:, : groups * size].reshape(lines, size, groups).max(axis=1)
    return np.partition(largest, groups - count, axis=1)[:, groups - count]
