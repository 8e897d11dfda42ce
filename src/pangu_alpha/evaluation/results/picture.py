"""Draws results: each figure with its interval, beside chance, the majority share and the paper's models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pangu_alpha.cluster.drawing import save_figure
from pangu_alpha.evaluation.results.result import TaskResult
from pangu_alpha.evaluation.results.table import paper_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS, _BAND = "#3b6ea5", "#eef2f7"
_MARKS = (  # (label, marker, colour)
    ("chance", "|", "#888888"),
    ("always the most frequent answer", "x", "#b5483a"),
    ("paper, 2.6B", "d", "#d98032"),
    ("paper, 13B", "s", "#5a9e5a"),
)
_ROW = 0.34  # inches


def draw_results(results: Sequence[TaskResult], path: str | Path, title: str) -> None:
    """Writes a picture with one row for each result whose main figure is a share.

    Nothing is written if there is none.

    Args:
        title: Name of the model.

    Raises:
        OSError: The file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    results = [each for each in results if each.main.is_share]
    if not results:
        return
    figure, axes = pyplot.subplots(figsize=(9.5, 1.5 + _ROW * len(results)), layout="constrained")
    _paint(axes, results)
    axes.set_yticks(range(len(results)), [_label(each) for each in results], fontsize=9)
    axes.set(xlim=(0, 100), ylim=(len(results) - 0.5, -0.5), xlabel="per cent, with 95 % interval")
    axes.set_title(title, fontsize=12)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save_figure(figure, path, dpi=120)


def _paint(axes: Axes, results: Sequence[TaskResult]) -> None:
    for row in range(1, len(results), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=_BAND, zorder=0)
    values = [100 * each.main.value for each in results]
    errors = [
        [max(value - 100 * each.main.interval.low, 0) for value, each in zip(values, results, strict=True)],
        [max(100 * each.main.interval.high - value, 0) for value, each in zip(values, results, strict=True)],
    ]
    axes.errorbar(
        values, range(len(values)), xerr=errors, fmt="o", color=_OURS, capsize=3, label="this model"
    )
    marks = zip(*map(_marks, results), strict=True)
    for (label, marker, colour), column in zip(_MARKS, marks, strict=True):
        _scatter(axes, column, label, marker, colour)


def _marks(result: TaskResult) -> tuple[float | None, ...]:
    """Values of the marks of a row, in the order of _MARKS."""
    paper = (paper_value(result.published, result.main, model) for model in ("2.6B", "13B"))
    return (result.chance, result.majority, *paper)


def _scatter(axes: Axes, column: Iterable[float | None], label: str, marker: str, colour: str) -> None:
    points = [(100 * value, row) for row, value in enumerate(column) if value is not None]
    if points:
        axes.scatter(*zip(*points, strict=True), marker=marker, color=colour, s=42, label=label, zorder=3)


def _label(result: TaskResult) -> str:
    return f"{result.alias}\n{result.main.name}, {result.shots}-shot, seed {result.seed}"
