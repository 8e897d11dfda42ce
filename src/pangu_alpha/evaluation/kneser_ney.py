"""An interpolated Kneser-Ney bigram: the baseline that a model must beat to have learned more than pairs.

Knows token ids in numpy; knows nothing of networks or files.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

DISCOUNT = 0.75  # the usual value; Chen & Goodman (1999), section 2.7


class KneserNeyBigram:
    """P(w | v) = max(c(v w) - D, 0) / c(v) + D n(v) / c(v) P1(w).

    n(v) is the number of different followers of v. P1 is the same formula one order lower: it uses the number
    of different predecessors of w, and is interpolated with the uniform distribution, so that words never
    seen have a probability too. The formula is from Chen & Goodman (1999).

    Args:
        vocab_size: Number of ids V.
        pairs: Arrays of (previous, next) ids, int [n] each, which are counted together.
        discount: D, which is subtracted from every count.
    """

    def __init__(
        self, vocab_size: int, pairs: Iterable[tuple[np.ndarray, np.ndarray]], discount: float = DISCOUNT
    ) -> None:
        codes = [previous.astype(np.int64) * vocab_size + following for previous, following in pairs]
        self._codes, counts = np.unique(np.concatenate(codes), return_counts=True)
        self._counts = counts.astype(np.float64)
        self._vocab_size = vocab_size
        self._discount = discount
        previous, following = np.divmod(self._codes, vocab_size)
        self._context = np.bincount(previous, self._counts, vocab_size)
        self._followers = np.bincount(previous, minlength=vocab_size).astype(np.float64)
        predecessors = np.bincount(following, minlength=vocab_size).astype(np.float64)
        seen = np.count_nonzero(predecessors)
        lower = np.maximum(predecessors - discount, 0.0) + discount * seen / vocab_size
        self._lower = lower / predecessors.sum()

    def log_probability(self, previous: np.ndarray, following: np.ndarray) -> np.ndarray:
        """Natural logarithm of P(following | previous), float64 [n], for int arrays [n]."""
        codes = previous.astype(np.int64) * self._vocab_size + following
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        counts = np.where(self._codes[places] == codes, self._counts[places], 0.0)
        context, lower = self._context[previous], self._lower[following]
        known = np.maximum(counts - self._discount, 0.0) + self._discount * self._followers[previous] * lower
        return np.log(np.where(context > 0, known / np.maximum(context, 1.0), lower))
