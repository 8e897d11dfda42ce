"""The metrics by the names that a task's YAML uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pangu_alpha.evaluation.metrics.answers import answers, cmrc, drcd
from pangu_alpha.evaluation.metrics.choices import accuracy, cmrc2019
from pangu_alpha.evaluation.metrics.cloze import cloze
from pangu_alpha.evaluation.metrics.dureader import dureader
from pangu_alpha.evaluation.metrics.figure import Figure, Metric
from pangu_alpha.files.shown import quoted


def perplexity(predictions: Sequence[float], references: Sequence[int]) -> tuple[Figure, ...]:
    """exp of the mean nats of a token over all items; comparable only between equal vocabularies."""
    sums = np.stack([np.asarray(predictions, np.float64), np.asarray(references, np.float64)], -1)
    return (Figure("ppl", "token", sums, "perplexity"),)


_TEXT, _TEXTS = "the generated answer", "the list of right answers"
METRICS = {
    each.name: each
    for each in (
        Metric("accuracy", accuracy, "index of the chosen candidate", "index of the right candidate"),
        Metric("cmrc", cmrc, _TEXT, _TEXTS),
        Metric("drcd", drcd, _TEXT, _TEXTS),
        Metric("answers", answers, _TEXT, _TEXTS),
        Metric("dureader", dureader, _TEXT, _TEXTS),
        Metric("cloze", cloze, _TEXT, "the right word"),
        Metric("cmrc2019", cmrc2019, "the candidate of each blank of a passage", "the right ones"),
        Metric("perplexity", perplexity, "sum of nats of an item's tokens", "number of these tokens"),
    )
}


def metric(name: str) -> Metric:
    """Returns a metric by its name.

    Raises:
        ValueError: There is none of this name.
    """
    if name not in METRICS:
        raise ValueError(f"metrics: {quoted(name)} is not known; known are {', '.join(METRICS)}")
    return METRICS[name]
