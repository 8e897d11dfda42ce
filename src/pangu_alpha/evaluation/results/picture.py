"""Draws results: each figure with its interval, beside chance, the majority share and the paper's models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pangu_alpha.cluster.drawing import save_figure
from pangu_alpha.evaluation.results.result import Measured, TaskResult
from pangu_alpha.evaluation.results.table import paper_value
from pangu_alpha.files.shown import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS, _BAND = "#3b6ea5", "#eef2f7"
_MARKS = (  # (label, marker, colour, size in points^2)
    ("chance", "|", "black", 220),
    ("always the most frequent answer", "x", "#b5483a", 45),
    ("paper, 2.6B", "d", "#d98032", 55),
    ("paper, 13B", "s", "#5a9e5a", 40),
)
_ROW = 0.4  # inches
_CHINESE = ("Noto Sans CJK SC", "WenQuanYi Zen Hei", "PingFang SC", "Microsoft YaHei", "SimHei")


@dataclass(frozen=True)
class _Row:
    """One figure of a result."""

    result: TaskResult
    figure: Measured

    @property
    def label(self) -> str:
        shots = f"{self.result.shots}-shot, seed {self.result.seed}"
        return f"{self.result.alias}\n{self.figure.name}, {shots}"

    @property
    def marks(self) -> tuple[float | None, ...]:
        """Values of the marks, in the order of _MARKS."""
        paper = [paper_value(self.result, self.figure, model) for model in ("2.6B", "13B")]
        guessed = self.figure is self.result.main
        return (self.result.chance, self.result.majority, *paper) if guessed else (None, None, *paper)


def draw_results(results: Sequence[TaskResult], path: str | Path, title: str) -> None:
    """Writes a picture with one row for each main figure, and each that the paper prints, in per cent.

    Nothing is written if no figure is a share.

    Args:
        title: Name of the model.

    Raises:
        OSError: The file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import font_manager, pyplot

    rows = [*_rows(results)]
    if not rows:
        return
    # matplotlib's own font has no Chinese; these come with Linux, macOS and Windows
    chinese = [name for name in _CHINESE if name in font_manager.get_font_names()]
    with pyplot.rc_context({"font.family": [*pyplot.rcParams["font.family"], *chinese]}):
        _draw(rows, path, title)


def _draw(rows: Sequence[_Row], path: str | Path, title: str) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9.5, 1.5 + _ROW * len(rows)), layout="constrained")
    _paint(axes, rows)
    axes.set_yticks(range(len(rows)), [each.label for each in rows], fontsize=9)
    axes.set(xlim=(-1, 101), ylim=(len(rows) - 0.5, -0.5), xlabel="per cent, with 95 % interval")
    axes.set_title(shown(title), fontsize=12, parse_math=False)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save_figure(figure, path, dpi=120)


def _rows(results: Sequence[TaskResult]) -> Iterator[_Row]:
    for result in results:
        for figure in result.measured:
            printed = paper_value(result, figure, "13B") is not None
            if figure.is_share and (printed or figure is result.main):
                yield _Row(result, figure)


def _paint(axes: Axes, rows: Sequence[_Row]) -> None:
    for place in range(1, len(rows), 2):
        axes.axhspan(place - 0.5, place + 0.5, color=_BAND, zorder=0)
    values = np.array([100 * each.figure.value for each in rows])
    low = np.array([100 * each.figure.interval.low for each in rows])
    high = np.array([100 * each.figure.interval.high for each in rows])
    errors = np.maximum([values - low, high - values], 0)
    axes.errorbar(
        values, range(len(rows)), xerr=errors, fmt="o", color=_OURS, capsize=3, label="this model", zorder=4
    )
    columns = zip(*(each.marks for each in rows), strict=True)
    for (label, marker, colour, size), column in zip(_MARKS, columns, strict=True):
        points = [(100 * value, place) for place, value in enumerate(column) if value is not None]
        if points:
            x, y = zip(*points, strict=True)
            axes.scatter(x, y, marker=marker, color=colour, s=size, label=label, zorder=3)
