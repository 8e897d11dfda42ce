"""Runs the partitioned graphs of a plan in CPU processes and compares them with one device's training.

The graphs are those of the Ascend partitioner (proof.dry_run), checked and merged as on the device
(proof.replay.graphs), with their collectives rewritten (proof.graph.rewrite); step, optimizer and clipping
are those of training. Child processes do all work that needs MindSpore.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.tensors import Box, Source
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.files.writing import write_text
from pangu_alpha.network.parameters import parameter_table
from pangu_alpha.parallel.layout import layouts, stage_of
from pangu_alpha.proof.checks import order
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import Job, RankReport
from pangu_alpha.proof.graph import mindir
from pangu_alpha.proof.graph.rewrite import RewriteOptions, rewrite
from pangu_alpha.proof.replay.compare import (
    MOMENT1,
    MOMENT2,
    SUM,
    Bounds,
    Comparison,
    Recipe,
    Run,
    compare,
    differences,
)
from pangu_alpha.proof.replay.graphs import graphs_of
from pangu_alpha.proof.replay.processes import ReplayError, run_child, run_ranks
from pangu_alpha.proof.replay.reference_optimizer import learning_rate
from pangu_alpha.proof.replay.report import ReplayReport
from pangu_alpha.proof.replay.rows import Overflow, Place, controls, keys_of_step, places, rows_of_step
from pangu_alpha.proof.replay.slices import Region, region
from pangu_alpha.proof.replay.worker import CPU_GRAPH, GROUPS, INITIAL, INPUTS, JOB, STATES

_TYPES = ("float32", "float16")
_COMPILING = 2  # number of compilers at a time: each takes a core and about 1 GB


@dataclass(frozen=True)
class Start:
    """Earlier training that a replay continues.

    Args:
        source: The checkpoint that the ranks read: weights, moments, and the place where training stands.
        job: The job that one device trained before, for comparison.
        steps: Number of steps of that earlier training.
    """

    source: Source
    job: Job
    steps: int

    @property
    def place(self) -> Place:
        """Where training stands according to the checkpoint."""
        return Place(self.source.manifest.step, self.source.manifest.samples)

    @property
    def expected_place(self) -> Place:
        """Where training stands on one device."""
        return places(self.job, self.steps)[-1]


@dataclass(frozen=True)
class Setting:
    """What a replay does, in addition to the job.

    Args:
        start: Training to continue; None starts from the initial values.
        overflow: Step, from 0, at which the gradients of one data-parallel rank overflow; None for never.
        overflow_scale: Loss scale that makes them overflow on all ranks; None gives one token too large a
            weight instead.
        options: How the simulated device computes; by default as the job's chip.
        timeout: Seconds after which the CPU processes are ended.
        edit_graphs: Called with the graphs by rank, each in one function; may change them. For negative
            controls.
        edit_inputs: Called with the values from which each rank starts, by rank and name; may change them.
            For negative controls.
    """

    steps: int = 3
    start: Start | None = None
    overflow: int | None = None
    overflow_scale: float | None = None
    options: RewriteOptions | None = None
    timeout: float = 600.0
    edit_graphs: Callable[[dict[int, mindir.Model]], None] | None = None
    edit_inputs: Callable[[dict[int, dict[str, np.ndarray]]], None] | None = None

    @property
    def fault(self) -> Overflow:
        """Where gradients overflow, and how."""
        return Overflow(self.overflow, self.overflow_scale)


def replay(
    name: str,
    job: Job,
    folder: Path,
    setting: Setting | None = None,
    bounds: Bounds | None = None,
    compiled: Sequence[RankReport] = (),
) -> ReplayReport:
    """Replays a plan and compares it with one device.

    Args:
        name: Name of the plan in the report.
        job: The job, in float32 or float16, with a seed.
        folder: Folder that gets rank_NNNNN/ (graphs, inputs, states, logs) and reference/.
        bounds: Differences that pass; by default those for the job's type.
        compiled: Result of an earlier `compile_ranks` for the same job; by default it is called. If given, a
            reference that an earlier replay left in the folder is used again.

    Raises:
        ValueError: If the job cannot run on CPU.
        DryRunError: If MindSpore refused the plan.
        ReplayError: If the collectives would hang, ranks of a stage differ, or a process died.
    """
    setting, folder = setting or Setting(), folder.resolve()
    _check(job)
    bounds = bounds or Bounds.of(job.model.compute_dtype)
    clock = _Clock(name, job.plan.devices)
    with ThreadPoolExecutor(1) as pool:
        reference = pool.submit(_reference, job, setting, folder, bool(compiled))
        compiled = compiled or compile_ranks(job, folder, clock.bar.update)
        reference.result()
    graphs = graphs_of(name, compiled, job.plan)
    if setting.edit_graphs:
        setting.edit_graphs(graphs)
    collectives = check_order(name, graphs)
    initial = dict(np.load(folder / "reference" / INITIAL))
    placed = _placed(compiled, graphs, job)
    _write_inputs(job, setting, folder, placed, initial)
    write_graphs(folder, graphs, setting.options or RewriteOptions.of(job.chip))
    clock.lap("compile", "run")
    run_ranks(folder, job.plan.devices, setting.timeout)
    clock.lap("run", "compare")
    found, losses = _compare(job, setting, folder, placed, bounds)
    clock.lap("compare")
    return ReplayReport(
        name=name,
        ranks=job.plan.devices,
        recipe=_recipe(job, setting),
        differences=tuple(differences(found)),
        first=found.first,
        placement=tuple(misplaced(compiled, job)),
        losses=losses,
        collectives=collectives,
        seconds=clock.seconds,
    )


def check_order(name: str, graphs: Mapping[int, mindir.Model]) -> int:
    """Returns the largest number of collectives on a rank.

    Raises:
        ReplayError: If the ranks would wait for each other for ever.
    """
    meetings = {rank: order.meetings(graph, rank) for rank, graph in graphs.items()}
    if stuck := order.deadlock(meetings):
        raise ReplayError(f"{name}: the ranks would wait for each other for ever: {stuck}")
    return max(map(len, meetings.values()))


def compile_ranks(job: Job, folder: Path, compiled: Callable[[], object] | None = None) -> list[RankReport]:
    """Compiles all ranks, a few at a time, into rank_NNNNN/ of a folder.

    Args:
        compiled: Called after each rank.
    """

    def compile_one(rank: int) -> RankReport:
        report = compile_rank(job, rank, folder)
        if compiled:
            compiled()
        return report

    with ThreadPoolExecutor(_COMPILING) as pool:
        return list(pool.map(compile_one, range(job.plan.devices)))


class _Clock:
    """Measures the seconds of the phases, and shows progress on a terminal."""

    def __init__(self, name: str, ranks: int) -> None:
        shown = sys.stderr.isatty()
        self.bar = tqdm(total=ranks + 2, desc=f"{name}: compile", leave=False, disable=not shown)
        self.name = name
        self.seconds: dict[str, float] = {}
        self.began = time.perf_counter()

    def lap(self, phase: str, following: str = "") -> None:
        """Ends a phase; an empty `following` ends the last one."""
        now = time.perf_counter()
        self.seconds[phase], self.began = now - self.began, now
        self.bar.set_description(f"{self.name}: {following}")
        if phase != "compile":
            self.bar.update()
        if not following:
            self.bar.close()


def _check(job: Job) -> None:
    if job.model.compute_dtype not in _TYPES or job.seed is None:
        raise ValueError(
            f"replay: compute_dtype {job.model.compute_dtype!r}, seed {job.seed}: CPU can run a network in "
            f"{' and '.join(_TYPES)}, and needs initial values (a seed)"
        )
    if job.model.dropout and job.attention_dropout == "device":
        raise ValueError(
            "replay: attention_dropout 'device': masks that the device draws are no other device's; replay "
            "the plan with masks by position"
        )


def _reference(job: Job, setting: Setting, folder: Path, again: bool) -> None:
    """Trains on one device; with `again`, only if the folder has no result of the same request."""
    target = folder / "reference"
    target.mkdir(parents=True, exist_ok=True)
    legs = [(start.job, start.steps)] if (start := setting.start) else []
    legs.append((job, setting.steps))
    described = [{"job": to_mapping(replace(each, patch=None)), "steps": steps} for each, steps in legs]
    text, asked = json.dumps({"legs": described, "overflow": setting.fault}), target / JOB
    if again and asked.exists() and asked.read_text("utf-8") == text and (target / STATES).exists():
        return
    (target / STATES).unlink(missing_ok=True)
    write_text(asked, text)
    run_child(["reference", str(target)], target / "log.txt", setting.timeout)


@dataclass(frozen=True)
class _Placed:
    """The part of each tensor that a rank holds.

    Args:
        regions: Parts by rank and name.
        trained: The same without the last stage's copy of the tied table, which is sent anew at each step.
        shapes: Shapes of the whole tensors, by name.
    """

    regions: dict[int, dict[str, Region]]
    trained: dict[int, dict[str, Region]]
    shapes: dict[str, tuple[int, ...]]


def _placed(reports: Sequence[RankReport], graphs: Mapping[int, mindir.Model], job: Job) -> _Placed:
    stage_size = job.plan.devices // job.plan.pp
    placed = _Placed({}, {}, {})
    for report in reports:
        model, stage = graphs[report.rank], report.rank // stage_size
        first = stage * stage_size
        regions = placed.regions[report.rank] = {}
        for name, tensor in model.parameters.items():
            if name not in report.layouts:
                continue
            layout = report.layouts[name]
            group = [rank - first for rank in model.groups.get(layout.optimizer_group, ())]
            regions[name] = region(layout, report.rank - first, tensor.shape, group)
            placed.shapes[name] = layout.shape
        placed.trained[report.rank] = {
            name: part for name, part in regions.items() if stage == _trained_on(name, job)
        }
    return placed


def _trained_on(name: str, job: Job) -> int:
    """The stage that trains the parameter to which a tensor belongs; the last stage for all else."""
    for prefix in (MOMENT1, MOMENT2, SUM):
        name = name.removeprefix(prefix)
    spec = parameter_table(job.model).get(name)
    return stage_of(spec, job.model, job.plan) if spec else job.plan.pp - 1


def misplaced(compiled: Sequence[RankReport], job: Job) -> Iterator[str]:
    """Yields parameters whose slice in a rank's graph is not the one in the sharding table.

    MindSpore preserves a network's meaning whatever its strategies are, so a wrong row of the table may
    change no number; it only changes what a device holds and sends.
    """
    expected = layouts(job.model, job.plan)
    for report in compiled:
        held = mindir.read(report.graph).parameters
        for name, layout in expected.items():
            if name in held and held[name].shape != layout.slice_shape:
                found = f"{list(held[name].shape)}, by the table {list(layout.slice_shape)}"
                yield f"rank {report.rank}: {name} is {found}"


def _write_inputs(
    job: Job, setting: Setting, folder: Path, placed: _Placed, initial: Mapping[str, np.ndarray]
) -> None:
    """Writes the values from which every rank starts, and the rows that it reads."""

    def value(name: str, part: Region) -> np.ndarray:
        if setting.start:
            return _stored(setting.start.source, name, part)
        return _values(initial, name, placed.shapes[name], part)

    values = {
        rank: {name: value(name, part) for name, part in regions.items()}
        for rank, regions in placed.regions.items()
    }
    if setting.edit_inputs:
        setting.edit_inputs(values)
    *begins, _ = places(job, setting.steps, setting.start.place if setting.start else None)
    rows = [
        (
            *rows_of_step(job, place.samples, setting.fault.by_weight(place.step)),
            *keys_of_step(job, place.step),
        )
        for place in begins
    ]
    scales = [setting.fault.loss_scale(place.step) for place in begins]
    for rank, own_values in values.items():
        inputs = {f"parameter/{name}": value for name, value in own_values.items()}
        data_rank = rank // job.plan.tp % job.plan.dp
        for step, batch in enumerate(rows):
            own = [array[data_rank] for array in batch]
            inputs |= {f"{step}/batch/{i}": array for i, array in enumerate(own)}
            skipped = setting.overflow is not None and begins[step].step > setting.overflow
            inputs[f"{step}/controls"] = controls(job, begins[step].step, own[2], int(skipped), scales[step])
        target = folder / f"rank_{rank:05d}"
        target.mkdir(exist_ok=True)
        np.savez(target / INPUTS, **inputs)


def write_graphs(folder: Path, graphs: Mapping[int, mindir.Model], options: RewriteOptions) -> None:
    """Writes every rank's graph for CPU, and the groups of all ranks."""
    groups: dict[str, tuple[int, ...]] = {}
    for rank, graph in graphs.items():
        content, named = rewrite(graph, rank, options)
        (folder / f"rank_{rank:05d}" / CPU_GRAPH).write_bytes(content)
        groups |= named
    for rank in graphs:
        write_text(folder / f"rank_{rank:05d}" / GROUPS, json.dumps(groups))


def _values(initial: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], part: Region) -> np.ndarray:
    """A rank's slice of an initial value; moments, sums and padding rows start at 0."""
    whole = np.zeros(shape, np.float32)
    if name in initial:
        whole[: len(initial[name])] = initial[name]
    return np.ascontiguousarray(whole[part])


def _stored(source: Source, name: str, part: Region) -> np.ndarray:
    """A rank's slice of a checkpoint's tensor; sums start at 0."""
    box = Box(tuple(each.start for each in part), tuple(each.stop - each.start for each in part))
    if name.startswith(SUM):
        return np.zeros(box.shape, np.float32)
    stem = "optimizer" if name.startswith((MOMENT1, MOMENT2)) else "model"
    return read_box(source.tensors[stem][name], box, name=name)


def _recipe(job: Job, setting: Setting) -> Recipe:
    done = setting.start.steps if setting.start else 0
    rates = tuple(learning_rate(step, job.optim) for step in range(done + setting.steps))
    return Recipe(setting.steps, rates, job.optim.beta1)


def _compare(
    job: Job, setting: Setting, folder: Path, placed: _Placed, bounds: Bounds
) -> tuple[Comparison, tuple[float, ...]]:
    states = {rank: dict(np.load(folder / f"rank_{rank:05d}" / STATES)) for rank in placed.regions}
    size = job.plan.devices // job.plan.pp
    last_stage = tuple(range(job.plan.devices - size, job.plan.devices))
    run = Run(states, placed.trained, placed.shapes, last_stage)
    reference = dict(np.load(folder / "reference" / STATES))
    initial = dict(np.load(folder / "reference" / INITIAL))
    found = compare(run, reference, initial, _recipe(job, setting), bounds)
    losses = []
    *begins, _ = places(job, setting.steps, setting.start.expected_place if setting.start else None)
    for step, place in enumerate(begins):
        rows = rows_of_step(job, place.samples, setting.fault.by_weight(place.step))
        tokens = float(rows[2].sum())
        losses.append(float(reference[f"{step}/loss"]) / (tokens + 1e-5))
    return found, tuple(losses)
