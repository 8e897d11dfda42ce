"""Draws what a block sends by number of tokens: the found way to split it and the known ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pangu_alpha.cluster.drawing import save_figure
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.planner.operators.block import MINDSPORE, block
from pangu_alpha.planner.operators.patterns import compared

_STYLES: dict[str, dict[str, Any]] = {
    "found": {"color": "#222222", "linewidth": 2.5},
    "Megatron": {"color": "#3b6ea5", "linestyle": "--"},
    "data parallel": {"color": "#d98032", "linestyle": "--"},
}
_MIXED: dict[str, Any] = {"color": "#999999", "linestyle": ":"}
_BATCHES = (1, 2, 4, 6, 8, 12, 16, 20, 24, 32)


def draw_operators(model: ModelConfig, devices: Sequence[int], path: str | Path) -> None:
    """Writes a PNG with one graph per number of devices, for MindSpore's rules and one micro-batch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, graphs = pyplot.subplots(1, len(devices), figsize=(4 * len(devices), 3.6), layout="constrained")
    for graph, number in zip(graphs, devices, strict=True):
        for name, points in _lines(model, number).items():
            tokens, sent = zip(*points, strict=True)
            graph.plot(tokens, sent, label=name, **_STYLES.get(name, _MIXED))
        graph.set_title(f"{number} devices")
        graph.set_xlabel("tokens of all devices / hidden size")
        graph.set_ylim(bottom=0)
        graph.spines[["top", "right"]].set_visible(False)
        graph.legend(frameon=False, fontsize="small")
    graphs[0].set_ylabel("sent by a device for a block, MB")
    save_figure(figure, path, dpi=110)


def _lines(model: ModelConfig, devices: int) -> dict[str, list[tuple[float, float]]]:
    """Points (tokens / H, MB sent) of every way, by its name."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for batch in _BATCHES:
        tokens = batch * model.seq_length / model.hidden_size
        for name, way in compared(block(model, devices, batch, MINDSPORE)).items():
            if "sequence" not in name:  # sequence parallelism sends the same number of bytes
                lines.setdefault(name, []).append((tokens, way.sent / 1e6))
    return lines
