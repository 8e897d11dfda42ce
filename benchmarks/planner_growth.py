"""How long the planner searches: by devices, 8 to 65,536, and by layers, 12 to 1,000.

By devices the model grows with the cluster, as the 200B for 2048: 64 * cbrt(devices / 2048) layers, a
multiple of 8; hidden size 256 a layer. By layers: hidden size 4096, 2048 devices. Both: heads of 128, one
sequence per device, the 910B family, MindSpore's habits, nothing fixed.
Prints a JSON line a point: curve (what grows), value, hidden, layers, parameters (1e9), grids, searched, cpu
(process time, s), wall (s), step (s, of the best plan; null if none fits). Then a line a curve with the slope
that fits: the power of the value with which process time grows.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.planner.cost.hardware import load_cluster, load_stack
from pangu_alpha.planner.search.search import Question, search

_FAMILY, _STACK, _VOCABULARY, _CONTEXT = "910b", "mindspore", 40_000, 1024
_DEVICES = tuple(2**power for power in range(3, 17))
_LAYERS = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1000)
_QUICK = {"devices": (8, 16), "layers": (12, 16)}
_COUNT, _QUICK_COUNT, _HIDDEN = 2048, 64, 4096  # devices and hidden size of the curve by layers


def questions(curve: str, quick: bool) -> Iterator[tuple[int, Question]]:
    """Values of what grows, with what is asked."""
    if curve == "devices":
        for devices in _QUICK[curve] if quick else _DEVICES:
            layers = 8 * max(1, round(8 * (devices / 2048) ** (1 / 3)))
            yield devices, _question(256 * layers, layers, devices)
    else:
        for layers in _QUICK[curve] if quick else _LAYERS:
            yield layers, _question(_HIDDEN, layers, _QUICK_COUNT if quick else _COUNT)


def _question(hidden: int, layers: int, devices: int) -> Question:
    model = ModelConfig(_VOCABULARY, hidden, layers, hidden // 128, _CONTEXT)
    return Question(model, load_cluster(f"{_FAMILY}-{devices}"), load_stack(_STACK), devices)


def measure(curve: str, value: int, question: Question) -> dict[str, Any]:
    """One point: a search, timed."""
    cpu, wall = time.process_time(), time.perf_counter()
    answer = search(question)
    model = question.model
    return {
        "curve": curve,
        "value": value,
        "hidden": model.hidden_size,
        "layers": model.num_layers,
        "parameters": round(model.parameter_count / 1e9, 3),
        "grids": answer.grids,
        "searched": answer.searched,
        "cpu": round(time.process_time() - cpu, 3),
        "wall": round(time.perf_counter() - wall, 3),
        "step": round(answer.best[0].seconds, 4) if answer.best else None,
    }


def slope(points: Sequence[dict[str, Any]]) -> float:
    """Least-squares slope of log process time over log value."""
    x = [math.log(point["value"]) for point in points]
    y = [math.log(max(point["cpu"], 1e-3)) for point in points]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)


def draw(curves: dict[str, list[dict[str, Any]]], path: str | Path) -> None:
    """Writes a PNG: process time over devices and over layers, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, graphs = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    for graph, (name, points) in zip(graphs, curves.items(), strict=True):
        x, y = [point["value"] for point in points], [point["cpu"] for point in points]
        power = slope(points)
        middle = [math.exp(sum(map(math.log, values)) / len(values)) for values in (x, y)]
        fit = [middle[1] * (value / middle[0]) ** power for value in x]
        graph.loglog(x, y, "o-", color="#3b6ea5", markersize=5, linewidth=1.5, label="measured")
        graph.loglog(x, fit, "--", color="#d98032", linewidth=1.5, label=f"{name}$^{{{power:.2f}}}$")
        graph.set_title(_title(name, points), fontsize=11)
        ticks = [*x[:-1:2], x[-1]] if len(x) % 2 else [x[0], *x[1::2]]
        graph.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=45, fontsize=8.5)
        graph.set_xticks([], minor=True)
        graph.set_xlabel(name)
        graph.spines[["top", "right"]].set_visible(False)
        graph.grid(alpha=0.25)
        graph.legend(frameon=False, loc="upper left")
    graphs[0].yaxis.set_major_formatter("{x:g}")
    graphs[0].yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    graphs[0].set_ylabel("search, s of process time")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _title(name: str, points: Sequence[dict[str, Any]]) -> str:
    sizes = f"{points[0]['parameters']:.2g}B to {points[-1]['parameters']:,.0f}B parameters"
    if name == "devices":
        return f"the model grows with the cluster: {sizes}"
    return f"hidden size {points[0]['hidden']}: {sizes}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few small points")
    parser.add_argument("--curve", choices=("devices", "layers"), help="one of the two only")
    parser.add_argument("--picture", metavar="PNG", help="draws the curves")
    arguments = parser.parse_args()
    names = [arguments.curve] if arguments.curve else ["devices", "layers"]
    curves: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        points = curves.setdefault(name, [])
        for value, question in questions(name, arguments.quick):
            points.append(measure(name, value, question))
            print(json.dumps(points[-1]), flush=True)
        print(json.dumps({"curve": name, "points": len(points), "slope": round(slope(points), 3)}))
    if arguments.picture:
        draw(curves, arguments.picture)


if __name__ == "__main__":
    main()
