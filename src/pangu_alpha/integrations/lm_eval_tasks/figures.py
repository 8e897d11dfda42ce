"""The figures of our metrics for lm-evaluation-harness: what an item gives, and how items are put together.

Where a figure is the mean of the items' values, an item gives its value, so that the harness computes a
standard error; else it gives the sums of which the figure is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from lm_eval.api.metrics import mean

from pangu_alpha.evaluation.metrics import Figure, metric
from pangu_alpha.evaluation.metrics.choices import one_to_one
from pangu_alpha.evaluation.metrics.figure import COMBINATIONS

Aggregation = Callable[[Sequence[Any]], float]


def name_of(figure: Figure) -> str:
    """Name in the harness's results, whose own filter follows a comma: "acc", "f1_official"."""
    return figure.name if figure.rule == "none" else f"{figure.name}_{figure.rule}"


def of_item(metrics: Iterable[str], prediction: Any, reference: Any) -> dict[str, Any]:
    """What one item gives to each figure of some metrics."""
    return {
        name_of(figure): figure.value if _is_mean(figure) else figure.sums[0].tolist()
        for figure in _figures(metrics, [prediction], [reference])
    }


def aggregations(metrics: Iterable[str], reference: Any) -> dict[str, Aggregation]:
    """How what the items give becomes each figure.

    Args:
        reference: That of any item; it stands for its own prediction here.
    """
    prediction = reference[0] if isinstance(reference, tuple | list) else reference
    return {
        name_of(figure): mean if _is_mean(figure) else partial(_combined, figure.combination)
        for figure in _figures(metrics, [prediction], [reference])
    }


def of_passages() -> dict[str, Aggregation]:
    """CMRC2019: every blank gives its passage's name, its scores and the right candidate."""
    return {name: partial(_of_passages, name) for name in ("qac", "pac")}


def _figures(metrics: Iterable[str], predictions: list[Any], references: list[Any]) -> Iterable[Figure]:
    for name in metrics:
        yield from metric(name).figures(predictions=predictions, references=references)


def _is_mean(figure: Figure) -> bool:
    """Whether every item has the weight 1, so that the figure is the mean of what items have alone."""
    return figure.combination == "ratio" and bool((figure.sums[:, -1] == 1).all())


def _combined(combination: str, rows: Sequence[Sequence[float]]) -> float:
    return float(COMBINATIONS[combination](np.sum(rows, axis=0)))


def _of_passages(name: str, blanks: Sequence[tuple[str, Sequence[float], int]]) -> float:
    passages: dict[str, list[tuple[Sequence[float], int]]] = {passage: [] for passage, _, _ in blanks}
    for passage, scores, gold in blanks:
        passages[passage].append((scores, gold))
    found = metric("cmrc2019").compute(
        predictions=[one_to_one([scores for scores, _ in each]) for each in passages.values()],
        references=[[gold for _, gold in each] for each in passages.values()],
    )
    return found[f"{name},none"]
