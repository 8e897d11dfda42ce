"""The official metrics of the paper's tasks. Knows predictions and references; no network, no files."""

from pangu_alpha.evaluation.metrics.figure import Figure, Metric
from pangu_alpha.evaluation.metrics.table import METRICS, metric

__all__ = [
    "METRICS",
    "Figure",
    "Metric",
    "answers",
    "choices",
    "cloze",
    "dureader",
    "figure",
    "metric",
    "table",
]
