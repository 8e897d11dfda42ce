"""Exact log-probabilities of given and of the likeliest ids. Letters: S lines, V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pangu_alpha.inference.engine.requests import Score


def scores_of(lines: np.ndarray, tokens: Sequence[int], top: int) -> list[Score]:
    """Scores one id a line.

    Args:
        lines: float32 [S, V], logits.
        tokens: S ids, or fewer for the first lines only.
        top: Number of likeliest ids.
    """
    return [_score(line, token, top) for line, token in zip(lines, tokens, strict=False)]


def _score(logits: np.ndarray, token: int, top: int) -> Score:
    highest = float(logits.max())
    total = highest + float(np.log(np.exp(np.subtract(logits, highest, dtype=np.float64)).sum()))
    likeliest = [(number, float(logits[number]) - total) for number in _likeliest(logits, top)]
    return Score(token, float(logits[token]) - total, tuple(likeliest))


def _likeliest(logits: np.ndarray, count: int) -> list[int]:
    """The likeliest ids; of equals, those with the smaller number come first."""
    count = min(count, len(logits))
    if count == 0:
        return []
    border = np.partition(logits, len(logits) - count)[len(logits) - count]
    ids = np.flatnonzero(logits >= border)
    return ids[np.argsort(-logits[ids], kind="stable")][:count].tolist()
