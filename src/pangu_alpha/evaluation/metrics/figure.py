"""A figure of a metric together with what every item contributes to it, and the metric that computes figures.

Legend: n items, k sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BLEU_ORDER = 4  # longest n-gram of BLEU


def _ratio(sums: np.ndarray) -> np.ndarray:
    """First sum over second: a mean, or a share of all blanks. 0 where nothing was counted."""
    return np.divide(sums[..., 0], sums[..., 1], out=np.zeros(sums.shape[:-1]), where=sums[..., 1] != 0)


def _perplexity(sums: np.ndarray) -> np.ndarray:
    return np.exp(_ratio(sums))


def _bleu(order: int) -> Callable[[np.ndarray], np.ndarray]:
    """BLEU of Papineni et al. (2002) from the sums that `dureader.bleu_sums` describes."""

    def combine(sums: np.ndarray) -> np.ndarray:
        right, tried = sums[..., :order], sums[..., BLEU_ORDER : BLEU_ORDER + order]
        length, reference = sums[..., -2], sums[..., -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(tried > 0, right / np.maximum(tried, 1), 0.0)
            brevity = np.where(length > 0, np.exp(np.minimum(1 - reference / length, 0)), 0.0)
            return brevity * np.exp(np.log(precision).mean(-1))

    return combine


# How a figure follows from the sums over items, [..., k] -> [...]; a samples file names it.
COMBINATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ratio": _ratio,
    "perplexity": _perplexity,
    **{f"bleu_{order}": _bleu(order) for order in range(1, BLEU_ORDER + 1)},
}


@dataclass(frozen=True, eq=False)
class Figure:
    """One number of a metric.

    Args:
        name: Its name in results files, such as "acc" or "f1".
        rule: How answers were made comparable, such as "official" or "nfkc"; "none" if there is one way only.
            lm-evaluation-harness calls this the filter.
        sums: What each item contributes, float64 [n, k]; the figure depends on the sum over items only.
        combination: Name of the formula in COMBINATIONS.
    """

    name: str
    rule: str
    sums: np.ndarray
    combination: str = "ratio"

    @classmethod
    def mean(cls, name: str, values: Sequence[float] | np.ndarray, rule: str = "none") -> Figure:
        """The mean of one value an item, [n]."""
        values = np.asarray(values, np.float64)
        return cls(name, rule, np.stack([values, np.ones_like(values)], -1))

    @classmethod
    def of_key(cls, key: str, sums: Sequence[Sequence[float]] | np.ndarray, combination: str) -> Figure:
        """The figure that a results file calls by `key`, with the sums of its items, [n, k]."""
        name, _, rule = key.partition(",")
        return cls(name, rule, np.asarray(sums, np.float64), combination)

    @property
    def key(self) -> str:
        """The key of results files, "acc,none"."""
        return f"{self.name},{self.rule}"

    @property
    def value(self) -> float:
        """The figure itself; shares are in [0, 1]. NaN without items."""
        return self.of(self.sums.sum(0)).item() if len(self.sums) else float("nan")

    @property
    def per_item(self) -> np.ndarray:
        """The figure of each item alone, float64 [n]."""
        return self.of(self.sums)

    @property
    def higher_is_better(self) -> bool:
        """False for perplexity."""
        return self.combination != "perplexity"

    @property
    def is_binary(self) -> bool:
        """Whether the figure is the share of items that are right: each item gives 0 or 1."""
        counts, weights = self.sums[:, 0], self.sums[:, -1]
        return self.combination == "ratio" and bool(
            np.all(weights == 1) and np.all(counts * (1 - counts) == 0)
        )

    def of(self, sums: np.ndarray) -> np.ndarray:
        """The figure of other sums, [..., k] -> [...]."""
        return COMBINATIONS[self.combination](sums)

    def subset(self, keep: np.ndarray | Sequence[int]) -> Figure:
        """The same figure over some of the items; `keep` is a mask or indices."""
        return Figure(self.name, self.rule, self.sums[keep], self.combination)


@dataclass(frozen=True)
class Metric:
    """A rule by which predictions are counted, with the signature of Hugging Face's `evaluate`.

    Args:
        name: Name in a task's YAML.
        figures_of: (predictions, references) -> figures; the first is the one the paper prints.
        predictions: What a prediction is, for people.
        references: What a reference is, for people.
    """

    name: str
    figures_of: Callable[[Sequence[Any], Sequence[Any]], tuple[Figure, ...]]
    predictions: str
    references: str

    def figures(self, *, predictions: Sequence[Any], references: Sequence[Any]) -> tuple[Figure, ...]:
        """Returns every figure with what each item contributes.

        Raises:
            ValueError: There is not one reference for each prediction, or there is none at all.
        """
        if len(predictions) != len(references):
            raise ValueError(
                f"{self.name}: {len(predictions):,} predictions, but {len(references):,} references; give "
                "one reference (or list of references) for each prediction"
            )
        if not len(predictions):
            raise ValueError(f"{self.name}: nothing to count: there is no prediction")
        return self.figures_of(predictions, references)

    def compute(self, *, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, float]:
        """Returns each figure by its key, "f1,official"; shares are in [0, 1]."""
        return {each.key: each.value for each in self.figures(predictions=predictions, references=references)}

    def per_item(self, *, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, np.ndarray]:
        """Returns each figure of every item alone, float64 [n] by key."""
        return {
            each.key: each.per_item for each in self.figures(predictions=predictions, references=references)
        }
