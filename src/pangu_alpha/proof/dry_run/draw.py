"""Draws what the stages of a plan send: bytes of a step by axis of the grid and kind of link."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pangu_alpha.cluster.drawing import save_figure
from pangu_alpha.proof.dry_run.report import RankSummary

_COLOURS = {
    "tp": "#3b6ea5",
    "dp": "#d98032",
    "dp+tp": "#e8b98a",
    "world": "#999999",
    "pp": "#5a9e5a",
    "pp hop": "#5a9e5a",
    "pp pair": "#a5cfa5",
}
_HATCHES = {"in server": "", "in rack": "//", "across": "xx"}


def draw_traffic(summaries: Sequence[RankSummary], path: str | Path) -> None:
    """Writes a PNG with one bar per rank, divided by axis (colour) and link (hatch).

    Args:
        summaries: Summaries of one rank of each stage.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    totals = {key: sum(each.wire().get(key, 0.0) for each in summaries) for key in _keys(summaries)}
    figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    bottoms = [0.0] * len(summaries)
    places = range(len(summaries))
    for axis, link in sorted(totals, key=lambda key: -totals[key]):
        heights = [each.wire().get((axis, link), 0.0) / 1e9 for each in summaries]
        colour = _COLOURS.get(axis, "#555555")
        label, hatch = f"{axis}, {link}", _HATCHES[link]
        axes.bar(places, heights, 0.75, bottoms, color=colour, hatch=hatch, edgecolor="white", label=label)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.set_xticks(places, [str(each.stage) for each in summaries])
    axes.set_xlabel("stage")
    axes.set_ylabel("sent by a device in a step, GB")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path, dpi=110)


def _keys(summaries: Sequence[RankSummary]) -> set:
    return {key for each in summaries for key in each.wire()}
