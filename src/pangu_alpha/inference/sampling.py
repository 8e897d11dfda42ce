"""Chooses one token from a row of logits, reproducibly.

Knows no model and no text. A sampler belongs to one sample of one prompt: its random stream is a function of
the seed, the prompt's ids and the number of the sample, so a prompt gets the same tokens alone and among
others. Letter: V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from pangu_alpha.config.generate import SamplingConfig

BAN = -100.0  # a logit bias of so little, or less, bans the id
_MOST = 1e300  # bound of a total penalty; float64 sums of larger values would become infinite
_BINS = 4096  # of scores, in the search for the place of a draw
_BINS_A_NAT = 128  # so the bins reach down to e^-32 of the likeliest token's probability


class NotFiniteError(ValueError):
    """The logits hold NaN or infinity."""

    def __init__(self) -> None:
        super().__init__(
            "the model's logits are not finite: its weights hold NaN or are too large; use an earlier "
            "checkpoint of the run"
        )


class Sampler:
    """Chooses the tokens of one continuation, and remembers them for the penalties.

    Args:
        prompt: The prompt's ids, on which the random stream depends.
        banned: bool [V], True for ids that are never chosen.
        repetition: Number that distinguishes several continuations of one prompt.
        logit_bias: Added to the logits of single ids. -100 or less bans the id; none makes a banned id
            possible.
    """

    def __init__(
        self,
        config: SamplingConfig,
        prompt: Sequence[int],
        banned: np.ndarray,
        repetition: int = 0,
        logit_bias: Mapping[int, float] | None = None,
    ) -> None:
        bias = logit_bias or {}
        self._config = config
        self._banned = np.union1d(np.flatnonzero(banned), [n for n, value in bias.items() if value <= BAN])
        self._banned = self._banned.astype(np.intp)
        self._biased = np.array([n for n, value in bias.items() if value > BAN], np.intp)
        self._bias = np.array([value for value in bias.values() if value > BAN], np.float64)
        self._counts: Counter[int] = Counter()
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
            NotFiniteError: The logits are not finite.
        """
        if not np.isfinite(logits).all():
            raise NotFiniteError
        # The likeliest id needs no normalisation.
        scores = self._adjusted(logits.copy() if self._config.greedy else log_softmax(logits))
        if self._config.greedy:
            token = int(scores.argmax())
        else:
            # Always one random number a token, so that the stream does not depend on the number of
            # candidates.
            token = draw(scores, self._config, self._random.random())
        self._counts[token] += 1
        return token

    def _adjusted(self, scores: np.ndarray) -> np.ndarray:
        """Adds bias and penalties, which touch few of the V ids; float64 if there are any. Bans come last."""
        config = self._config
        penalized = bool(self._counts) and (config.frequency_penalty or config.presence_penalty)
        if penalized or len(self._biased):
            scores = scores.astype(np.float64)
            scores[self._biased] += self._bias
        if penalized:
            ids = np.fromiter(self._counts, np.intp)
            counts = np.fromiter(self._counts.values(), np.float32)
            scores[ids] = penalize(scores[ids], counts, config)
        scores[self._banned] = -np.inf
        return scores


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Natural logarithm of the softmax over the last axis."""
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def penalize(scores: np.ndarray, counts: np.ndarray, config: SamplingConfig) -> np.ndarray:
    """Computes score - count * frequency - (count > 0) * presence, as the 2023 release does.

    Args:
        scores: Log-probabilities [V], or of some ids only.
        counts: How often each id was *generated*, in the same order; the prompt does not count.

    Returns:
        The new scores, which are finite for any penalties, because the penalties are clipped in float64.
    """
    if config.frequency_penalty == config.presence_penalty == 0.0:
        return scores.copy()
    with np.errstate(over="ignore"):
        frequency = np.clip(counts.astype(np.float64) * config.frequency_penalty, -_MOST, _MOST)
        presence = np.clip((counts > 0) * config.presence_penalty, -_MOST, _MOST)
    return scores - frequency - presence


def candidates(scores: np.ndarray, config: SamplingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids to draw from, most likely first, and their probabilities: the definition of `draw`.

    Unlike in the 2023 release, the penalised scores are normalised again before top-p looks at their sum.
    Of equally likely ids, those with the smaller number come first.

    Args:
        scores: Log-probabilities [V] after penalties; -inf for banned ids.
        config: Gives temperature, min-p, top-k and top-p.

    Returns:
        (int [K], float64 [K] whose sum is 1).
    """
    return _candidates(_heated(scores, config), config)


def draw(scores: np.ndarray, config: SamplingConfig, uniform: float) -> int:
    """Returns the id that a number in [0, 1) draws from `candidates`, without sorting all of them.

    Args:
        scores: Log-probabilities [V] after penalties; -inf for banned ids.
        config: Gives temperature, min-p, top-k and top-p.
    """
    heated = _heated(scores, config)
    if len(heated) < _BINS:  # sorting them is faster
        return _drawn(*_candidates(heated, config), uniform)
    with np.errstate(over="ignore"):
        bins = np.minimum(heated * -_BINS_A_NAT, _BINS - 1).astype(np.intp)
    if 0 < config.top_k < len(heated):
        last = int(np.searchsorted(np.cumsum(np.bincount(bins, minlength=_BINS)), config.top_k))
        few = np.flatnonzero(bins <= last)
        ids, probabilities = _candidates(heated[few], config)
        return _drawn(few[ids], probabilities, uniform)
    token = _Masses(heated, bins).draw(config.top_p, uniform)
    return _drawn(*_candidates(heated, config), uniform) if token is None else token


class _Masses:
    """Finds ids by the sum of the probabilities of all likelier ones.

    The sums are of another order than in `candidates`, and so of other roundings. Where these might matter,
    no id is found. (V additions of numbers that are not negative err by V * epsilon of the sum at most.)

    Args:
        heated: float64 [V]; see `_heated`.
        bins: int [V], the number of each id's bin: the larger, the less likely.
    """

    def __init__(self, heated: np.ndarray, bins: np.ndarray) -> None:
        self._heated, self._bins = heated, bins
        with np.errstate(under="ignore"):
            self._weights = np.exp(heated)
        self._sums = np.cumsum(np.bincount(bins, self._weights, _BINS))
        self._margin = 4 * len(heated) * np.finfo(np.float64).eps * self._sums[-1]

    def draw(self, top_p: float, uniform: float) -> int | None:
        """The id drawn from the likeliest ones whose probabilities sum to top_p; None if it is too close."""
        mass = self._sums[-1]
        if top_p < 1.0:
            border = self._find(top_p * mass)
            if border is None:
                return None
            mass = border[1]
        found = self._find(uniform * mass)
        return found[0] if found else None

    def _find(self, target: float) -> tuple[int, float] | None:
        """The first id at which the sum exceeds the target, and the sum; None if another one is as near."""
        place = int(np.searchsorted(self._sums, target))
        before = self._sums[place - 1] if place else 0.0
        ids = np.flatnonzero(self._bins == place)
        ids = ids[np.argsort(-self._heated[ids], kind="stable")]
        sums = before + np.cumsum(self._weights[ids])
        inner = int(np.searchsorted(sums, target))
        if inner == len(ids):
            return None
        below, above = sums[inner - 1] if inner else before, sums[inner]
        if target - below <= self._margin or above - target <= self._margin:
            return None
        return int(ids[inner]), float(above)


def _heated(scores: np.ndarray, config: SamplingConfig) -> np.ndarray:
    """The scores divided by the temperature, as float64 [V]; the highest is 0, those below min-p are -inf."""
    heated = scores.astype(np.float64)
    heated -= heated.max()
    with np.errstate(over="ignore", under="ignore"):  # the highest score stays 0 at any temperature
        heated /= config.temperature
    if config.min_p > 0.0:
        heated[heated < np.log(config.min_p)] = -np.inf
    return heated


def _candidates(heated: np.ndarray, config: SamplingConfig) -> tuple[np.ndarray, np.ndarray]:
    ids = np.flatnonzero(heated > -np.inf)
    ids = ids[np.argsort(-heated[ids], kind="stable")]
    if config.top_k > 0:
        ids = ids[: config.top_k]
    with np.errstate(under="ignore"):
        probabilities = np.exp(heated[ids])
    if config.top_p < 1.0:
        cumulative = np.cumsum(probabilities)
        kept = int(np.searchsorted(cumulative, config.top_p * cumulative[-1])) + 1
        ids, probabilities = ids[:kept], probabilities[:kept]
    return ids, probabilities / probabilities.sum()


def _drawn(ids: np.ndarray, probabilities: np.ndarray, uniform: float) -> int:
    place = int(np.searchsorted(np.cumsum(probabilities), uniform, side="right"))
    return int(ids[min(place, len(ids) - 1)])
