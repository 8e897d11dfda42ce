"""Metrics of tasks with candidates: accuracy, and the two of CMRC2019, where a candidate fills one blank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pangu_alpha.evaluation.metrics.figure import Figure


def accuracy(predictions: Sequence[object], references: Sequence[object]) -> tuple[Figure, ...]:
    """Share of items whose predicted candidate is the right one."""
    right = [prediction == gold for prediction, gold in zip(predictions, references, strict=True)]
    return (Figure.mean("acc", np.array(right, np.float64)),)


def cmrc2019(
    predictions: Sequence[Sequence[int | None]], references: Sequence[Sequence[int]]
) -> tuple[Figure, ...]:
    """The official figures of CMRC2019, with one passage as an item.

    Args:
        predictions: For each passage, the candidate in each of its blanks; None, or a list that ends early,
            is a missing answer.
        references: For each passage, the right candidate of each blank.

    Returns:
        `qac`, the share of blanks that are right, and `pac`, the share of passages without a wrong blank. The
        official script subtracts the number of missing answers from the right ones, but not below 0.
    """
    passages = [_passage(*pair) for pair in zip(predictions, references, strict=True)]
    blanks = np.array(passages, np.float64)
    return (Figure("qac", "none", blanks), Figure.mean("pac", blanks[:, 0] == blanks[:, 1]))


def _passage(prediction: Sequence[int | None], gold: Sequence[int]) -> tuple[int, int]:
    """(right minus missing blanks, blanks) of one passage."""
    if len(prediction) > len(gold):
        raise ValueError(f"cmrc2019: {len(prediction)} answers for a passage of {len(gold)} blanks")
    right = sum(given == wanted for given, wanted in zip(prediction, gold, strict=False))
    missing = len(gold) - sum(given is not None for given in prediction)
    return max(right - missing, 0), len(gold)


def one_to_one(costs: np.ndarray | Sequence[Sequence[float]]) -> list[int]:
    """Assigns a candidate of its own to every blank, so that the sum of costs is smallest.

    Args:
        costs: Cost of each candidate in each blank, such as its mean nats, [blanks, candidates]; there are at
            least as many candidates as blanks.

    Returns:
        The candidate of each blank.

    Raises:
        ValueError: There are fewer candidates than blanks, or a cost is not finite.
    """
    from scipy.optimize import linear_sum_assignment  # here, because the import takes half a second

    matrix = np.asarray(costs, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] > matrix.shape[1] or not np.isfinite(matrix).all():
        raise ValueError(
            f"costs of shape {matrix.shape}: each blank needs a candidate of its own and finite costs"
        )
    return [int(candidate) for candidate in linear_sum_assignment(matrix)[1]]
