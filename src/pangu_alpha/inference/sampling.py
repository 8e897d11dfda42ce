"""Chooses one token from a row of logits, reproducibly.

Knows no model and no text. A sampler belongs to one prompt: its random stream is a function of the seed and
the prompt's ids, so a prompt gets the same tokens alone and among others. Letter: V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from pangu_alpha.config.generate import SamplingConfig

_MOST = 1e300  # bound of a total penalty; float64 sums of larger values would become infinite


class Sampler:
    """Chooses the tokens of one continuation, and remembers them for the penalties.

    Args:
        prompt: The prompt's ids, on which the random stream depends.
        banned: bool [V], True for ids that are never chosen.
        repetition: Number that distinguishes several continuations of one prompt.
    """

    def __init__(
        self, config: SamplingConfig, prompt: Sequence[int], banned: np.ndarray, repetition: int = 0
    ) -> None:
        self._config = config
        self._banned = banned
        self._counts = np.zeros(banned.size, np.float32)
        digest = hashlib.sha256(np.asarray(prompt, "<i8").tobytes()).digest()
        words = np.frombuffer(digest, "<u4").tolist()
        self._random = np.random.default_rng([config.seed, repetition, *words])

    def __call__(self, logits: np.ndarray) -> int:
        """Chooses the next token.

        Args:
            logits: float32 [V].

        Returns:
            The id, which counts in the penalties from now on.

        Raises:
            ValueError: The logits are not finite.
        """
        if not np.isfinite(logits).all():
            raise ValueError(
                "the model's logits are not finite: its weights hold NaN or are too large; use an earlier "
                "checkpoint of the run"
            )
        config = self._config
        # The most likely id needs no normalisation, which would take half a millisecond for 40,000 ids.
        scores = penalize(logits if config.greedy else log_softmax(logits), self._counts, config)
        scores[self._banned] = -np.inf
        token = int(scores.argmax()) if config.greedy else self._draw(scores)
        self._counts[token] += 1
        return token

    def _draw(self, scores: np.ndarray) -> int:
        ids, probabilities = candidates(scores, self._config)
        # Always one random number a token, so that the stream does not depend on the number of candidates.
        place = int(np.searchsorted(np.cumsum(probabilities), self._random.random(), side="right"))
        return int(ids[min(place, len(ids) - 1)])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural logarithm of the softmax over the last axis."""
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def penalize(scores: np.ndarray, counts: np.ndarray, config: SamplingConfig) -> np.ndarray:
    """Computes score - count * frequency - (count > 0) * presence, as the 2023 release does.

    Args:
        scores: Log-probabilities [V].
        counts: How often each id was *generated* [V]; the prompt does not count.

    Returns:
        The new scores [V], which are finite for any penalties, because the penalties are clipped in float64.
    """
    if config.frequency_penalty == config.presence_penalty == 0.0:
        return scores.copy()
    with np.errstate(over="ignore"):
        frequency = np.clip(counts.astype(np.float64) * config.frequency_penalty, -_MOST, _MOST)
        presence = np.clip((counts > 0) * config.presence_penalty, -_MOST, _MOST)
    return scores - frequency - presence


def candidates(scores: np.ndarray, config: SamplingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids to draw from, most likely first, and their probabilities.

    Unlike in the 2023 release, the penalised scores are normalised again before top-p looks at their sum.

    Args:
        scores: Log-probabilities [V] after penalties; -inf for banned ids.
        config: Gives temperature, top-k and top-p.

    Returns:
        (int [K], float64 [K] whose sum is 1).
    """
    ids = np.flatnonzero(scores > -np.inf)
    scores = scores.astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):  # the highest score is 0 and stays 0 at any temperature
        scores = (scores - scores.max()) / config.temperature
    if 0 < config.top_k < len(ids):
        ids = ids[np.argpartition(-scores[ids], config.top_k - 1)[: config.top_k]]
    ids = ids[np.argsort(-scores[ids], kind="stable")]
    probabilities = np.exp(scores[ids])
    cumulative = np.cumsum(probabilities)
    if config.top_p < 1.0:
        kept = int(np.searchsorted(cumulative, config.top_p * cumulative[-1])) + 1
        ids, probabilities = ids[:kept], probabilities[:kept]
    return ids, probabilities / probabilities.sum()
