"""Pictures of what was measured: loss curves, matrix products by size, collectives by size and level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pangu_alpha.cluster.drawing import save_figure
from pangu_alpha.cluster_check.check import Record
from pangu_alpha.cluster_check.judge.speed import memory_rates, product_rates

Records = Mapping[str, Sequence[Record]]  # by measurement


def draw(out: Path, records: Mapping[str, Records]) -> list[str]:
    """Draws a picture for every check that has one and was measured; returns the files' names."""
    drawn = []
    for name, paint in _PAINTED.items():
        if records.get(name) and all(records[name].values()):
            figure, axes = _figure()
            paint(axes, records[name])
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False)
            save_figure(figure, out / f"{name}.png", dpi=110)
            drawn.append(f"{name}.png")
    return drawn


def _figure() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(8, 4), layout="constrained")


def _losses(axes: Any, records: Records) -> None:
    """One curve for each measurement; dashed, so that equal ones are seen below each other."""
    styles = ("-", "--", ":")
    for (name, found), style in zip(records.items(), styles, strict=False):
        axes.plot(found[0]["steps"], found[0]["losses"], style, label=name, linewidth=1.5)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats a token")


def _speed(axes: Any, records: Records) -> None:
    record = records["device"][0]
    rates = product_rates(record)
    axes.plot(list(rates), [rate / 1e9 for rate in rates.values()], "o-",
              label=f"matrix product, {record['dtype']}, GFLOP/s")  # fmt: skip
    moved = memory_rates(record)
    sizes = [(size / 4) ** 0.5 for size in moved]  # of a square tensor of float32
    axes.plot(sizes, [rate / 1e9 for rate in moved.values()], "s--", label="sum of two tensors, GB/s")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("rows and columns of a square tensor")


def _links(axes: Any, records: Records) -> None:
    """The slowest rank's rate by size, a line for each level and collective."""
    for level, collectives in records["joined"][0]["levels"].items():
        for name, seconds in collectives.items():
            sizes = sorted(map(int, seconds))
            times = [_slowest(records["joined"], level, name, size) for size in sizes]
            rates = [size / time / 1e9 for size, time in zip(sizes, times, strict=True)]
            axes.plot(sizes, rates, "o-", label=f"{level}: {name}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("bytes on each rank")
    axes.set_ylabel("GB/s, slowest rank")


def _slowest(records: Sequence[Record], level: str, collective: str, size: int) -> float:
    return max(each["levels"][level][collective][str(size)] for each in records)


_PAINTED: Mapping[str, Callable[[Any, Records], None]] = {
    "training": _losses,
    "speed": _speed,
    "links": _links,
}
