"""Which documents a quality score keeps."""

from __future__ import annotations

import numpy as np

from pangu_alpha.corpus.hashing import drawn

ALPHA = 9  # GPT-3's, Brown et al. (2020), appendix A


def kept_by_quality(ids: np.ndarray, scores: np.ndarray, seed: int, alpha: int = ALPHA) -> np.ndarray:
    """Keeps a document if a number from Pareto's distribution is above 1 - score.

    So a document of score 1 is always kept, and one of score 0 once in 2^alpha times: some of what the model
    dislikes stays in. The number is drawn by a hash of the id, and is the same in every run.

    Args:
        ids: int64 [documents].
        scores: Of quality, in [0, 1].
        seed: Of the hash.
        alpha: Shape of the distribution; at least 1.

    Returns:
        bool [documents].
    """
    # P(pareto > x) = (1 + x)^-alpha; products instead of a power, which numpy rounds by the processor
    likelihood = np.ones(len(ids))
    for _ in range(alpha):
        likelihood = likelihood * (2 - np.asarray(scores, np.float64))
    return drawn(ids, seed) * likelihood < 1
