"""The pictures of a report, as PNG files in memory."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pangu_alpha.corpus.report.measured import Distribution
from pangu_alpha.corpus.rules import RULES

_BLUE, _ORANGE, _GREY, _RED = "#3a6ea5", "#e08e45", "#b8bec6", "#c0392b"
_WIDTH = 9.0  # inches
_COLUMNS = 3  # of histograms side by side


def figure(rows: float, columns: int = 1, panels: int = 1) -> tuple[Any, Any]:
    """A figure of the report's width, and its axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(
        panels, columns, figsize=(_WIDTH, rows), layout="constrained", squeeze=False
    )
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=8)
    return drawn, axes


def as_source(drawn: Any) -> str:
    """A figure as the source of an <img>; closes it."""
    from matplotlib import pyplot

    out = io.BytesIO()
    # without the software's version, so that equal runs have equal reports
    drawn.savefig(out, format="png", dpi=110, metadata={"Software": None})
    pyplot.close(drawn)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def funnel(stages: Sequence[tuple[str, int, int]]) -> str:
    """Documents and bytes that are left after each stage, as bars.

    Args:
        stages: Name, documents and bytes, in order; the first is what came in.
    """
    drawn, axes = figure(0.7 + 0.38 * len(stages), 2)
    names = [name for name, _, _ in stages]
    columns = {"documents": [each for _, each, _ in stages], "UTF-8 bytes": [each for _, _, each in stages]}
    for place, (title, values) in enumerate(columns.items()):
        axis = axes[0, place]
        axis.barh(range(len(stages)), values, color=_BLUE)
        for row, value in enumerate(values):
            share = value / values[0] if values[0] else 0
            words = f"{number_text(value)}  ({share:.1%})" if row else number_text(value)
            axis.annotate(words, (value, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
        axis.set_yticks(range(len(stages)), names if place == 0 else [""] * len(stages))
        axis.set(ylim=(len(stages) - 0.5, -0.5), xlim=(0, max([*values, 1]) * 1.45), xticks=[])
        axis.spines["bottom"].set_visible(False)
        axis.set_title(title, fontsize=10, loc="left")
    return as_source(drawn)


def number_text(value: float) -> str:
    """A number with a unit of thousands, such as 1.23 M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def reasons(by_source: Mapping[str, Mapping[str, int]], documents: Mapping[str, int]) -> str:
    """Share of each source's documents that were dropped, by reason."""
    sources = [name for name in by_source if documents[name]]
    names = sorted({reason for name in sources for reason in by_source[name]})
    drawn, axes = figure(1.3 + 0.5 * len(sources) + 0.09 * len(names))
    axis, left = axes[0, 0], np.zeros(len(sources))
    from matplotlib import colormaps

    colours = colormaps["tab20"](np.linspace(0, 1, 20))
    for number, reason in enumerate(names):
        shares = np.array([100 * by_source[name].get(reason, 0) / documents[name] for name in sources])
        axis.barh(
            range(len(sources)), shares, left=left, color=colours[number % 20], label=reason, height=0.6
        )
        left += shares
    for row, total in enumerate(left.tolist()):
        axis.annotate(
            f"{total:.1f} %", (total, row), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axis.set_yticks(range(len(sources)), sources)
    axis.set(xlabel="dropped, % of the source's documents", xlim=(0, 112), ylim=(len(sources) - 0.5, -0.5))
    if names:
        drawn.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return as_source(drawn)


def histograms(by_rule: Mapping[str, Distribution]) -> str:
    """The distribution of each measure, with the bound; what lies on its wrong side is red."""
    found = [by_rule[rule.name] for rule in RULES if rule.name in by_rule]
    panels = max(-(-len(found) // _COLUMNS), 1)
    drawn, axes = figure(1.9 * panels, _COLUMNS, panels)
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    for axis, each in zip(axes.flat, found, strict=False):
        _histogram(axis, each)
    return as_source(drawn)


def _histogram(axis: Any, found: Distribution) -> None:
    borders, counts, wrong = found.borders, found.counts, found.wrong
    if not found.is_share:
        used = np.flatnonzero(counts)
        last = max([2, int(np.searchsorted(borders, found.bound)) + 1, *(used[-1:] + 1).tolist()])
        borders, counts, wrong = borders[: last + 1], counts[:last], wrong[:last]
        axis.set_xscale("symlog", linthresh=1)
    colours = np.where(wrong, _RED, _BLUE)
    axis.bar(borders[:-1], counts, np.diff(borders), align="edge", color=colours)
    axis.axvline(found.bound, color="black", linewidth=1)
    axis.set_yscale("symlog", linthresh=1)
    axis.set_ylim(0, max(int(counts.max(initial=1)), 1) * 2)
    axis.set_xlim(float(borders[0]), float(borders[-1]))
    axis.yaxis.set_minor_locator(_nothing())
    axis.xaxis.set_minor_locator(_nothing())
    sign = "≥" if found.rule.direction == "at_least" else "≤"
    axis.set_title(f"{found.rule.name} {sign} {found.bound:g}", fontsize=9, loc="left")


def _nothing() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _ticks() -> Any:
    from matplotlib.ticker import LogLocator

    return LogLocator(subs=(1, 2, 5), numticks=12)


def overlap(matrix: np.ndarray) -> str | None:
    """Documents that break two rules, as per cent of those that break the row's; None if none breaks any.

    Args:
        matrix: int64 [rules, rules].
    """
    used = np.flatnonzero(matrix.diagonal())
    if not len(used):
        return None
    names, counts = [RULES[place].name for place in used], matrix[np.ix_(used, used)]
    shares = 100 * counts / counts.diagonal()[:, None]
    drawn, axes = figure(1.8 + 0.34 * len(used))
    axis = axes[0, 0]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=130, aspect="auto")
    for row, column in np.ndindex(*shares.shape):
        colour = "white" if shares[row, column] > 70 else "black"
        axis.text(
            column, row, f"{shares[row, column]:.0f}", ha="center", va="center", fontsize=8, color=colour
        )
    labels = [
        f"{name}  ({number_text(int(count))})" for name, count in zip(names, counts.diagonal(), strict=True)
    ]
    axis.set_yticks(range(len(used)), labels)
    axis.set_xticks(range(len(used)), names, rotation=35, ha="right")
    axis.set_title(
        "% of the documents that break the row's rule which break the column's", fontsize=9, loc="left"
    )
    return as_source(drawn)


def clusters(found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str | None:
    """Number of clusters of each size, both on logarithmic axes; None if there are no clusters.

    Args:
        found: Sizes and numbers by the kind of duplicates.
    """
    if not any(len(sizes) for sizes, _ in found.values()):
        return None
    drawn, axes = figure(3.2)
    axis = axes[0, 0]
    for (name, (sizes, numbers)), colour, mark in zip(found.items(), (_BLUE, _ORANGE), "os", strict=False):
        axis.loglog(sizes, numbers, mark, color=colour, markersize=5, alpha=0.8, label=name)
    axis.set(xlabel="documents in a cluster", ylabel="clusters")
    axis.set_xlim(left=1.7)
    axis.set_ylim(bottom=0.7)
    for line in (axis.xaxis, axis.yaxis):
        line.set_major_locator(_ticks())
        line.set_major_formatter(lambda value, _: f"{value:,.0f}")
        line.set_minor_locator(_nothing())
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=9)
    return as_source(drawn)


def against_paper(ours: Mapping[str, float], theirs: Mapping[str, Mapping[str, float]]) -> str:
    """Shares of the kinds of sources beside those of the paper, per cent.

    Args:
        ours: By kind of source.
        theirs: By column and kind.
    """
    kinds = [*dict.fromkeys([*next(iter(theirs.values())), *ours])]
    columns = {"this corpus, bytes": ours, **theirs}
    drawn, axes = figure(3.4)
    axis, width = axes[0, 0], 0.8 / len(columns)
    for number, ((label, shares), colour) in enumerate(
        zip(columns.items(), (_BLUE, _ORANGE, _GREY, "#7f8c8d"), strict=False)
    ):
        places = np.arange(len(kinds)) + (number - (len(columns) - 1) / 2) * width
        values = [shares.get(kind, 0.0) for kind in kinds]
        axis.bar(places, values, width, color=colour, label=label)
        for place, value in zip(places, values, strict=True):
            axis.annotate(
                f"{value:.0f}", (place, value), (0, 2), textcoords="offset points", ha="center", fontsize=7
            )
    axis.set_xticks(range(len(kinds)), kinds)
    axis.set_ylabel("%")
    axis.legend(frameon=False, fontsize=8)
    return as_source(drawn)
