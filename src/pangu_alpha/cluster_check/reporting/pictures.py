"""Pictures of what was measured: loss curves, rates by size, overlap, start-up, and predicted steps."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pangu_alpha.cluster.drawing import save_figure
from pangu_alpha.cluster_check.check import UNUSABLE, Record
from pangu_alpha.cluster_check.judge.plans import NUMBERS
from pangu_alpha.cluster_check.judge.speed import memory_rates, product_rates

Records = Mapping[str, Sequence[Record]]  # by measurement


_COLUMNS = 3  # of a legend, which stands above the picture: bars and curves leave no place in it


def draw(out: Path, records: Mapping[str, Records]) -> list[str]:
    """Draws a picture for every check that has one and was measured; returns the files' names.

    Records that cannot be drawn, as those of a broken device may, have no picture: the report goes on.
    """
    drawn = []
    for name, paint in _PAINTED.items():
        if records.get(name) and all(records[name].values()):
            figure, axes = _figure()
            try:
                paint(axes, records[name])
            except UNUSABLE:
                _close(figure)
                (out / f"{name}.png").unlink(missing_ok=True)
                continue
            axes.spines[["top", "right"]].set_visible(False)
            figure.legend(frameon=False, loc="outside upper left", ncols=_COLUMNS, fontsize="small")
            save_figure(figure, out / f"{name}.png", dpi=110)
            drawn.append(f"{name}.png")
    return drawn


def _close(figure: Any) -> None:
    from matplotlib import pyplot

    pyplot.close(figure)


def _figure() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(8, 4), layout="constrained")


def _decimals(axis: Any) -> None:
    """Labels a logarithmic axis by 1, 2 and 5 of each power of ten, as 0.2 and not as a power."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


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
    _decimals(axes.yaxis)
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
    _decimals(axes.yaxis)
    axes.set_xlabel("bytes on each rank")
    axes.set_ylabel("GB/s, slowest rank")


def _slowest(records: Sequence[Record], level: str, collective: str, size: int) -> float:
    return max(each["levels"][level][collective][str(size)] for each in records)


def _overlap(axes: Any, records: Records) -> None:
    """One bar for the two one after the other, and one for both at the same time."""
    found, names = records["joined"], ("product", "reduce", "both")
    product, reduce, both = (1e3 * statistics.median(each[name] for each in found) for name in names)
    axes.barh("one after the other", product, label="products alone")
    axes.barh("one after the other", reduce, left=product, label="AllReduce alone")
    axes.barh("at the same time", both, color="gray", label="both at once")
    axes.invert_yaxis()
    axes.set_xlabel("ms")


def _startup(axes: Any, records: Records) -> None:
    """For each start, a bar of the time until the device is in use, and of the first step."""
    names = list(records)
    started, first = ([records[name][0][key] for name in names] for key in ("started", "first"))
    axes.barh(names, started, label="until the device is in use")
    axes.barh(names, first, left=started, label="first step, mostly compiling")
    axes.invert_yaxis()
    axes.set_xlabel("s since the process began")


def _plans(axes: Any, records: Records) -> None:
    """Predicted against measured seconds, a mark for each plan and kind of numbers."""
    (record,) = records["predicted"]
    measured = record["measured"]
    for (kind, (words, _)), mark in zip(NUMBERS.items(), "d^os", strict=True):
        if kind in record["predicted"]:
            axes.plot(measured, record["predicted"][kind], mark, fillstyle="none", label=words)
    ends = [0.8 * min(measured), 1.25 * max(measured)]
    axes.plot(ends, ends, "k:", linewidth=1, label="as measured")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        _decimals(axis)
    axes.set_xlabel("measured s a step")
    axes.set_ylabel("predicted s a step")


_PAINTED: Mapping[str, Callable[[Any, Records], None]] = {
    "training": _losses,
    "speed": _speed,
    "links": _links,
    "overlap": _overlap,
    "startup": _startup,
    "plans": _plans,
}
