"""How sure a figure is: intervals, tests of a difference, and what guessing alone would reach.

Legend: n items, G groups, k sums of a figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pangu_alpha.evaluation.metrics import Figure

RESAMPLES = 10_000
CONFIDENCE = 0.95
_BLOCK = 1 << 22  # numbers drawn at once


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Args:
        low: Lower end, in the figure's own unit.
        high: Upper end.
        error: Standard error.
        method: "wilson", "bootstrap", or "none" for a single group, whose spread is not known.
    """

    low: float
    high: float
    error: float
    method: str


def interval(figure: Figure, groups: Sequence[Hashable] | None = None, seed: int = 0) -> Interval:
    """The 95 % interval of a figure: Wilson's for a share of independent items, else the bootstrap's.

    Args:
        groups: The group of each item, such as its passage; None if all items are independent.
    """
    if figure.is_binary and (groups is None or len(set(groups)) == len(figure.sums)):
        return wilson(round(figure.sums[:, 0].sum()), len(figure.sums))
    return bootstrap(figure, groups, seed=seed)


def wilson(right: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """The score interval of Wilson (1927) for a share, which also holds near 0 and 1.

    Raises:
        ValueError: n is 0, or `right` is not within [0, n].
    """
    from scipy.stats import binomtest  # here, because the import takes most of a second

    found = binomtest(right, n).proportion_ci(confidence, method="wilson")
    share = right / n
    return Interval(float(found.low), float(found.high), (share * (1 - share) / n) ** 0.5, "wilson")


def bootstrap(
    figure: Figure,
    groups: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The percentile interval of Efron's bootstrap, drawn over groups: items of one passage go together."""
    sums = group_sums(figure.sums, groups)
    if len(sums) == 1:
        return Interval(figure.value, figure.value, float("nan"), "none")
    drawn = np.sort(figure.of(_resampled(sums, seed, resamples)))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), float(drawn.std(ddof=1)), "bootstrap")


def group_sums(sums: np.ndarray, groups: Sequence[Hashable] | None) -> np.ndarray:
    """Adds the rows of each group, [n, k] -> [G, k], with groups in the order of their first item."""
    if groups is None:
        return sums
    if len(groups) != len(sums):
        raise ValueError(f"{len(groups):,} groups for {len(sums):,} items; give each item its group")
    numbers: dict[Hashable, int] = {}
    places = [numbers.setdefault(group, len(numbers)) for group in groups]
    total = np.zeros((len(numbers), sums.shape[1]))
    np.add.at(total, places, sums)
    return total


def _resampled(sums: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Sums of as many rows as there are, drawn with replacement, [resamples, k]."""

    def draw(rng: np.random.Generator, rows: int) -> np.ndarray:
        drawn = rng.integers(0, len(sums), (rows, len(sums)))
        drawn += np.arange(rows)[:, None] * len(sums)
        counts = np.bincount(drawn.ravel(), minlength=rows * len(sums)).reshape(rows, -1)
        return counts @ sums

    return _in_blocks(draw, len(sums), seed, resamples)


def _in_blocks(
    draw: Callable[[np.random.Generator, int], np.ndarray], width: int, seed: int, resamples: int
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    most = max(1, _BLOCK // width)
    blocks = [draw(rng, min(most, resamples - start)) for start in range(0, resamples, most)]
    return np.concatenate(blocks)


@dataclass(frozen=True)
class Difference:
    """How two models differ on the same items.

    Args:
        value: Second figure minus first.
        interval: Of the difference, by the bootstrap over groups, both models drawn together.
        p: Probability of a difference at least this large, if the models were equally good.
        test: "mcnemar" or "randomization".
        discordant: Items that only the first, and that only the second has right; None unless items are right
            or wrong.
    """

    value: float
    interval: Interval
    p: float
    test: str
    discordant: tuple[int, int] | None


def difference(
    first: Figure, second: Figure, groups: Sequence[Hashable] | None = None, seed: int = 0
) -> Difference:
    """Compares two models on the same items, in the same order.

    The test is McNemar's exact one for independent items that are right or wrong, else approximate
    randomization: each group's results change sides with probability 1/2 (Noreen, 1989).
    """
    both = np.concatenate([first.sums, second.sums], 1)
    sums, k = group_sums(both, groups), first.sums.shape[1]
    drawn = _resampled(sums, seed, RESAMPLES)
    differences = second.of(drawn[:, k:]) - first.of(drawn[:, :k])
    low, high = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    found = Interval(float(low), float(high), float(differences.std(ddof=1)), "bootstrap")
    value, discordant = second.value - first.value, None
    if first.is_binary and second.is_binary:
        one, two = first.sums[:, 0] > 0, second.sums[:, 0] > 0
        discordant = int((one & ~two).sum()), int((two & ~one).sum())
        if len(sums) == len(both):
            return Difference(value, found, mcnemar(*discordant), "mcnemar", discordant)
    p = _randomization(sums[:, :k], sums[:, k:], first, seed)
    return Difference(value, found, p, "randomization", discordant)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p of McNemar's test: the binomial test on the items that one model alone has right."""
    from scipy.stats import binomtest  # here, because the import takes most of a second

    count = only_first + only_second
    return float(binomtest(only_first, count).pvalue) if count else 1.0


def _randomization(first: np.ndarray, second: np.ndarray, figure: Figure, seed: int) -> float:
    """p of approximate randomization for group sums [G, k] of two models."""
    change = second - first
    one, two = first.sum(0), second.sum(0)
    seen = abs(figure.of(two) - figure.of(one))

    def draw(rng: np.random.Generator, rows: int) -> np.ndarray:
        moved = rng.integers(0, 2, (rows, len(change))) @ change
        return np.abs(figure.of(two - moved) - figure.of(one + moved))

    drawn = _in_blocks(draw, len(change), seed, RESAMPLES)
    # rounding must not make an equal difference smaller; the observed arrangement is one of the possible ones
    return float((1 + np.count_nonzero(drawn >= seen - 1e-12)) / (1 + RESAMPLES))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Adjusts p values of several tests (Holm, 1979): below 0.05, even one is wrong in 5 % of cases only."""
    adjusted, largest = {}, 0.0
    for place, name in enumerate(sorted(p, key=lambda key: p[key])):
        largest = max(largest, min(1.0, p[name] * (len(p) - place)))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p}


def chance(candidates: Sequence[int]) -> float:
    """Expected share right of guessing, for the number of candidates of each item, [n]."""
    return float(np.mean(1.0 / np.asarray(candidates, np.float64)))


def majority_share(golds: Sequence[Hashable]) -> float:
    """Share right of always giving the most frequent right answer of the set."""
    return max(Counter(golds).values()) / len(golds)
