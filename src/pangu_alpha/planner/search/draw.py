"""Draws the plans that a search found: the timeline of a step, the memory-time front, seconds by part."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pangu_alpha.cluster.drawing import save_figure
from pangu_alpha.planner.cost.cost import CostModel, Estimate
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.cost.schedule import Event, simulate
from pangu_alpha.planner.search.explain import parts, reason
from pangu_alpha.planner.search.search import Candidate, Question

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GIB = 1 << 30
_WIDTH, _DPI = 10.0, 110  # width in inches, dots per inch
_PLOT = 0.92 * _WIDTH * 72  # approximate width of the timeline in points
_COLOURS = {
    "matrix products": "#3b6ea5",
    "memory-bound": "#9fbfe0",
    "tensor parallel": "#d98032",
    "host": "#555555",
    "stage to stage": "#5a9e5a",
    "weight gathers": "#a5cfa5",
    "pipeline bubble": "#dddddd",
    "data parallel": "#e8b98a",
    "optimizer": "#8a6bab",
}
_FORWARD, _BACKWARD, _IDLE = "#9fbfe0", "#3b6ea5", "#eeeeee"
_PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # behind text that crosses a line
_STEADY = 2  # micro-batches of the steady state that are shown on either side of a break
_LEAST_CUT = 0.15  # smallest share of a step that is left out at a break
_SMALLEST = 4.5  # smallest font size of a number in points
_BREAK = 0.035  # width of a break, as a share of the time shown


def draw_timeline(candidate: Candidate, question: Question, path: str | Path) -> None:
    """Writes a PNG of a step: one row per stage with its passes, then what happens once a step.

    The steady state of many micro-batches is left out at a break.
    """
    from matplotlib.patches import Patch

    job = candidate.job
    estimate = CostModel(question.cluster, question.software).estimate(job)
    timeline = _Timeline(job, estimate)
    height = min(8.0, 1.6 + job.pp * (0.26 if job.pp <= 16 else 0.11))
    figure, axes = _figure(max(height, 2.4))
    row = (height - 1.5) / job.pp * 72
    timeline.paint(axes, row)
    again = any(set(counts) - {"none"} for counts in job.recomputed())
    names = ("forward", "recompute and backward" if again else "backward", "idle")
    colours = (_FORWARD, _BACKWARD, _IDLE)
    handles = [Patch(color=colour, label=name) for name, colour in zip(names, colours, strict=True)]
    for name, seconds in timeline.once:
        handles.append(Patch(color=_COLOURS[name], label=f"{name}, {seconds:.2g} s"))
    _legend_below(figure, handles)
    share = estimate.bubble / estimate.step
    axes.set_title(
        f"{question.cluster.name}, {_grid(job)}, {_count(job.micro_batches, 'micro-batch', 'es')} of "
        f"{job.micro_batch}: {candidate.seconds:#.4g} s a step" + f", {share:.1%} bubble" * (job.pp > 1),
        fontsize=12,
    )
    save_figure(figure, path, dpi=_DPI)


@dataclass(frozen=True)
class _Timeline:
    """A step's events, and where time is left out."""

    job: Job
    estimate: Estimate

    @cached_property
    def events(self) -> list[Event]:
        """Passes of the schedule, for as many micro-batches as show its beginning and its end.

        As in `schedule.duration`, 1F1B with four micro-batches per stage reaches its steady state.
        """
        enough = max(4 * self.job.pp, 16) if self.job.schedule == "1f1b" else self.job.micro_batches
        micro = min(self.job.micro_batches, enough)
        return simulate(self.estimate.forward, self.estimate.backward, micro, self.job.schedule)

    @cached_property
    def once(self) -> list[tuple[str, float]]:
        """(name, seconds) of what follows the pipeline once a step."""
        estimate = self.estimate
        both = [("data parallel", estimate.data_parallel), ("optimizer", estimate.optimizer)]
        return [(name, seconds) for name, seconds in both if seconds > 0]

    @property
    def slowest(self) -> float:
        """Seconds of the slowest stage for one micro-batch: the period of the steady state."""
        return max(map(sum, zip(self.estimate.forward, self.estimate.backward, strict=True)))

    @cached_property
    def later(self) -> float:
        """Seconds by which the real end is later than the simulated one."""
        return self.estimate.pipeline - max(event.end for event in self.events)

    @cached_property
    def cut(self) -> tuple[float, float]:
        """Beginning and end of the time that is left out, in seconds of the step; equal if nothing is."""
        first = [event for event in self.events if event.stage == 0]
        around = _STEADY * self.slowest
        begin = min(event.end for event in first if event.backward) + around
        end = max(event.start for event in first if not event.backward) + self.later - around
        whole = end - begin < _LEAST_CUT * self.estimate.step
        return (begin, begin) if whole and self.later < self.slowest / 2 else (begin, max(begin, end))

    @property
    def gap(self) -> float:
        """Width of the break, in seconds of the picture."""
        begin, end = self.cut
        return _BREAK * (self.estimate.step - (end - begin)) if end > begin else 0.0

    def place(self, seconds: float) -> float:
        """Position in the picture of a time behind the break."""
        begin, end = self.cut
        return seconds - (end - begin) + self.gap

    def shown(self, event: Event) -> list[tuple[float, float, int]]:
        """The visible parts of an event, each as (start, end, number of the micro-batch)."""
        begin, end = self.cut
        parts = [(event.start, min(event.end, begin), event.micro)] if event.start < begin else []
        if end == begin:
            return [(event.start, event.end, event.micro)]
        if event.end + self.later > end:
            start = max(event.start + self.later, end)
            number = event.micro + self.job.micro_batches - 1 - self.events[-1].micro
            parts.append((self.place(start), self.place(event.end + self.later), number))
        return parts

    def paint(self, axes: Axes, row: float) -> None:
        """Draws all rows; `row` is the height of one in points."""
        right = self.place(self.estimate.step)
        axes.barh(range(self.job.pp), right, 0.86, color=_IDLE)
        self._passes(axes, False, _PLOT / right, row)
        self._passes(axes, True, _PLOT / right, row)
        left = self.place(self.estimate.pipeline)
        for name, seconds in self.once:
            axes.barh(range(self.job.pp), seconds, 0.86, left, color=_COLOURS[name])
            left += seconds
        self._frame(axes, right)

    def _passes(self, axes: Axes, backward: bool, scale: float, row: float) -> None:
        """Draws all forward or all backward passes; numbers their micro-batches if every number has room.

        Args:
            backward: Whether to draw the backward passes.
            scale: Points per second.
            row: Height of a row in points.
        """
        colour, ink = (_BACKWARD, "white") if backward else (_FORWARD, "#222222")
        width = scale * min(self.estimate.backward if backward else self.estimate.forward)
        # The width of a digit of DejaVu Sans is 0.64 of the font's size.
        size = min(0.62 * row, 8.0, (width - 2) / (0.64 * len(str(self.job.micro_batches - 1))))
        for stage, events in itertools.groupby(self.events, key=lambda event: event.stage):
            spans = [span for each in events if each.backward == backward for span in self.shown(each)]
            bars = [(start, end - start) for start, end, _ in spans]
            axes.broken_barh(bars, (stage - 0.43, 0.86), color=colour, edgecolor="white",
                             linewidth=min(0.6, width / 9), snap=False)  # fmt: skip
            for start, end, number in spans if size >= _SMALLEST else []:
                if (end - start) * scale > width - 1:  # a shorter one is cut by the break
                    axes.text((start + end) / 2, stage, str(number), ha="center", va="center_baseline",
                              fontsize=size, color=ink)  # fmt: skip

    def _frame(self, axes: Axes, right: float) -> None:
        """Draws ticks, labels and the break."""
        from matplotlib.ticker import MaxNLocator

        job, (begin, end) = self.job, self.cut
        times = MaxNLocator(10).tick_values(0, begin + self.estimate.step - end)
        period = times[1] - times[0]
        ticks = [period * i for i in range(int(self.estimate.step / period) + 1)]
        places = [tick if tick <= begin else self.place(tick) for tick in ticks if not begin < tick < end]
        labels = [f"{tick:g}" for tick in ticks if not begin < tick < end]
        axes.set_xticks(places, labels)
        every = -(-job.pp // 16)
        uneven = len(set(job.layers)) > 1
        names = [f"{stage} ({layers})" if uneven else str(stage) for stage, layers in enumerate(job.layers)]
        axes.set_yticks(range(0, job.pp, every), names[::every])
        axes.set(xlim=(0, right), ylim=(job.pp - 0.4, -0.6), xlabel="seconds")
        axes.set_ylabel("stage (layers)" if uneven else "stage")
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        if end > begin:
            self._break(axes)

    def _break(self, axes: Axes) -> None:
        (begin, end), rows = self.cut, self.job.pp
        axes.axvspan(begin, begin + self.gap, facecolor="white", zorder=3)
        for edge in (begin, begin + self.gap):
            axes.axvline(edge, color="#888888", linestyle=(0, (3, 3)), linewidth=0.8, zorder=4)
        text = f"{end - begin:.3g} s left out" if rows > 3 else "…"
        if rows > 8:
            text += f": a micro-batch every {self.slowest:.2g} s"
        axes.text(begin + self.gap / 2, (rows - 1) / 2, text, rotation=90, ha="center", va="center",
                  fontsize=9, zorder=4)  # fmt: skip


def draw_front(front: Sequence[Candidate], question: Question, path: str | Path) -> None:
    """Writes a PNG of the fastest plans by the memory they may use.

    Args:
        front: Plans none of which beats another in both time and memory.
        question: The question that the plans answer; its device's memory is the limit.
    """
    ordered = sorted(front, key=lambda each: each.memory)
    limit = question.limit / _GIB
    memory = [each.memory / _GIB for each in ordered]
    seconds = [each.seconds for each in ordered]
    figure, axes = _figure(4.6)
    axes.plot([*memory, limit], [*seconds, seconds[-1]], color="#3b6ea5", linewidth=1.8,
              drawstyle="steps-post")  # fmt: skip
    axes.plot([memory[0]] * 2, [seconds[0], 2 * seconds[0]], color="#3b6ea5", linewidth=1.8, linestyle=":")
    axes.plot(memory, seconds, "o", color="#3b6ea5", markersize=6)
    axes.axvline(limit, color="#b03030", linestyle="--", linewidth=1.2)
    tall = max(seconds) - min(seconds) or max(seconds)
    axes.set_xlim(0, limit * 1.16)
    axes.set_ylim(min(seconds) - 0.12 * tall, max(seconds) + 0.4 * tall)
    axes.text(limit, max(seconds) + 0.38 * tall, f"{limit:.3g} GiB of a {question.cluster.device.name} ",
              color="#b03030", ha="right", va="top", fontsize=10)  # fmt: skip
    for each, x, y in zip(ordered, memory, seconds, strict=True):
        axes.annotate(_short(each.job), (x, y), xytext=(6, 6), textcoords="offset points", fontsize=9,
                      rotation=32, rotation_mode="anchor", bbox=_PAPER)  # fmt: skip
    axes.set_xlabel("memory of the fullest device, GiB")
    axes.set_ylabel("step, s")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        f"{question.cluster.name}, batch {question.batch}: fastest plans by memory "
        "(dp × tp × pp, micro-batches × size)",
        fontsize=12,
    )
    save_figure(figure, path, dpi=_DPI)


def draw_breakdown(candidates: Sequence[Candidate], question: Question, path: str | Path) -> None:
    """Writes a PNG with a bar per plan: seconds of a step by part, and what each loses to the first.

    Args:
        candidates: Plans that answer the question, the fastest first.
    """
    model = CostModel(question.cluster, question.software)
    costs = [parts(each.job, model) for each in candidates]
    figure, axes = _figure(1.5 + 0.62 * len(candidates))
    lefts = [0.0] * len(costs)
    for name, colour in _COLOURS.items():
        widths = [cost.get(name, 0.0) for cost in costs]
        if max(widths) > 1e-3 * max(map(sum, map(dict.values, costs))):
            axes.barh(range(len(costs)), widths, 0.5, lefts, color=colour, label=name, edgecolor="white",
                      linewidth=0.5)  # fmt: skip
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    for number, (each, end) in enumerate(zip(candidates, lefts, strict=True)):
        axes.text(end, number, f" {each.seconds:#.4g} s", va="center", fontsize=10, weight="bold")
        if number:
            why = reason(candidates[0], each, model)
            axes.text(0, number + 0.28, why, va="top", fontsize=8.5, color="#555555")
    axes.set_yticks(range(len(costs)), [_two_lines(each) for each in candidates], fontsize=9)
    axes.set(xlim=(0, max(lefts) * 1.1), ylim=(len(costs) - 0.3, -0.45), xlabel="seconds of a step")
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(f"{question.cluster.name}, batch {question.batch}: where a step's time goes",
                    fontsize=12)  # fmt: skip
    _legend_below(figure, axes.get_legend_handles_labels()[0])
    save_figure(figure, path, dpi=_DPI)


def _figure(height: float) -> tuple[Figure, Axes]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(_WIDTH, height), layout="constrained")


def _legend_below(figure: Figure, handles: list) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False,
                  fontsize=9.5, handlelength=1.2, columnspacing=1.4)  # fmt: skip


def _count(number: int, word: str, plural: str = "s") -> str:
    return f"{number} {word}{plural if number != 1 else ''}"


def _grid(job: Job) -> str:
    return f"dp {job.dp} × tp {job.tp} × pp {job.pp}"


def _short(job: Job) -> str:
    return f"{job.dp} × {job.tp} × {job.pp}, {job.micro_batches} × {job.micro_batch}"


def _two_lines(candidate: Candidate) -> str:
    """Two lines that label a plan: grid and micro-batches; sharding and recompute."""
    job, words = candidate.job, candidate.plan.recompute
    some = words if isinstance(words, str) else f"in {_count(sum(word != 'none' for word in words), 'layer')}"
    return f"{_grid(job)}, {job.micro_batches} × {job.micro_batch}\n{job.sharding}, recompute {some}"
