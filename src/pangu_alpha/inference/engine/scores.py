"""Log-probabilities of given and of the likeliest ids, as the engine gives them out.

Letters: S lines, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pangu_alpha.inference.engine.requests import Score
from pangu_alpha.inference.log_probabilities import log_normalizer, top


def scores_of(lines: np.ndarray, tokens: Sequence[int], count: int) -> list[Score]:
    """Scores one id a line.

    Args:
        lines: float32 [S, V], logits.
        tokens: S ids, or fewer for the first lines only.
        count: Number of likeliest ids.
    """
    lines = lines[: len(tokens)]
    normalizers = log_normalizer(lines)
    likeliest, _ = top(lines, count)
    # Both from the same numbers, so that the likeliest id has the same log-probability in both places.
    chosen = lines[np.arange(len(lines)), tokens] - normalizers
    values = np.take_along_axis(lines, likeliest, axis=1) - normalizers[:, None]
    return [
        Score(token, own, tuple(zip(ids, theirs, strict=True)))
        for token, own, ids, theirs in zip(
            tokens, chosen.tolist(), likeliest.tolist(), values.tolist(), strict=True
        )
    ]
