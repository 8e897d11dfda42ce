"""Whole training runs of a plan on CPU processes, compared step by step with the run of one process.

The ranks run training's own trainer and engine: data, guard, schedule, checkpoints, signals. Only the graph
of the step differs: it is the rewritten one (proof.replay.training.engine). A run may be interrupted and
resume under another plan from the checkpoint that it left.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pangu_alpha.checkpoint.naming import MOMENTS
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.config.schema import ConfigError, to_mapping
from pangu_alpha.files.writing import write_text
from pangu_alpha.parallel.layout import layouts, slices_of_rank
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.graph.rewrite import RewriteOptions
from pangu_alpha.proof.replay.compare import Comparison, Recipe, Run, compare, differences
from pangu_alpha.proof.replay.graphs import graphs_of
from pangu_alpha.proof.replay.processes import ReplayError
from pangu_alpha.proof.replay.reference_optimizer import learning_rate
from pangu_alpha.proof.replay.replay import check_order, compile_ranks, misplaced, write_graphs
from pangu_alpha.proof.replay.slices import Region
from pangu_alpha.proof.replay.training.files import REQUEST
from pangu_alpha.proof.replay.training.legs import (
    Ended,
    Interruption,
    Trace,
    made_by,
    remove_earlier,
    run_leg,
    run_one,
)
from pangu_alpha.proof.replay.training.report import LegReport, TrainingBounds, TrainingReport

_PREPARED = "prepared.json"
_TYPES = ("float32", "float16")


@dataclass(frozen=True)
class Leg:
    """A part of a run under one plan.

    Args:
        batch_size: Rows of a micro-batch on each data-parallel rank.
        steps: Number of steps of the run after which the leg ends, those of earlier legs included.
        interruption: A signal that ends the leg earlier.
    """

    plan: ParallelPlan
    batch_size: int
    steps: int
    interruption: Interruption | None = None

    @property
    def samples_per_step(self) -> int:
        """Rows of an optimizer step on all devices."""
        return self.plan.dp * self.plan.micro_batches * self.batch_size


@dataclass(frozen=True)
class Faults:
    """Faults inserted on purpose, for negative controls; each is a "module:function" that is called first.

    Args:
        compiling: Called by the processes that compile the graphs.
        running: Called by ranks, in all legs.
    """

    compiling: str | None = None
    running: Mapping[int, str] = field(default_factory=dict)


def replay_training(
    config: TrainConfig,
    legs: Sequence[Leg],
    folder: Path,
    bounds: TrainingBounds | None = None,
    faults: Faults | None = None,
    timeout: float = 1800.0,
) -> TrainingReport:
    """Replays a run and compares it with one process.

    Args:
        config: The run; its plan, batch size, steps and output folder are replaced by those of the legs and
            of `folder`.
        legs: Legs, one after the other; an interrupted leg leaves the checkpoint from which the next one
            resumes.
        folder: Folder that gets graphs_N/, one for each plan, which later calls use again; and one/, leg_N/
            and the runs' own folders, which are made anew.
        bounds: Differences that pass; by default those for the network's type.
        timeout: Seconds after which the processes of a leg, or the one process, are ended.

    Raises:
        ValueError: If the legs' steps read different numbers of rows, or a plan does not fit.
        DryRunError: If MindSpore refused a plan.
        ReplayError: If the collectives would hang, or a process died.
    """
    _check(config, legs)
    faults, folder = faults or Faults(), folder.resolve()
    bar = tqdm(desc="training replayed", disable=not sys.stderr.isatty(), leave=False)
    seconds: dict[str, float] = {}
    clock = _Clock(seconds, bar)
    graphs = []
    for leg in legs:
        clock.begin("compile", leg.plan.devices)
        graphs.append(prepare(_config_of(config, leg, folder / "run"), folder, bar.update, faults.compiling))
    clock.begin("one process", legs[-1].steps)
    one = _one(config, legs, folder, timeout)
    clock.begin("ranks", legs[-1].steps)
    remove_earlier(folder / "run", folder / "leg_1" / "rank_00000" / REQUEST)
    found, reports = Comparison(bounds or TrainingBounds.of(config.model.compute_dtype)), []
    begins = 0
    for number, (leg, prepared) in enumerate(zip(legs, graphs, strict=True), start=1):
        target = folder / f"leg_{number}"
        ended = run_leg(
            _config_of(config, leg, folder / "run"),
            prepared,
            target,
            leg.interruption,
            faults.running,
            timeout,
            lambda done: bar.update(done - bar.n),
        )
        reports.append(_compare_leg(config, leg, target, ended, one, found))
        _check_steps(leg, reports[-1], begins)
        told = leg.interruption
        begins = told.saved(config.run.checkpoint.every) if told and told.kills else reports[-1].last
    clock.end()
    return TrainingReport(tuple(reports), tuple(differences(found)), found.first, seconds)


def prepare(
    config: TrainConfig,
    folder: Path,
    compiled: Callable[[], object] = lambda: None,
    patch: str | None = None,
) -> Path:
    """Compiles and rewrites the graphs of all ranks, unless an earlier call has done so.

    Args:
        folder: Folder in which the folder of the graphs is made.
        compiled: Called after each rank.
        patch: See Job.

    Returns:
        The folder of the graphs; see ReplayedEngine.

    Raises:
        ReplayError: If the collectives would hang, or a parameter is not where the sharding table puts it.
    """
    run = config.run
    chip = Job.chip if run.chip == "auto" else run.chip  # no chip can be detected on CPU
    job = Job(
        config.model, config.parallel, config.optim, run.batch_size, "plain", run.seed, chip=chip, patch=patch
    )
    wanted = json.dumps({"job": to_mapping(job)} | made_by())
    for number in count(1):
        target = folder / f"graphs_{number}"
        done = target / _PREPARED
        if done.exists() and done.read_text("utf-8") == wanted:
            return target
        if not target.exists():
            break
    target.mkdir(parents=True)
    reports = compile_ranks(job, target, compiled)
    if wrong := list(misplaced(reports, job)):
        raise ReplayError(f"{words_of(config.parallel)}: placed otherwise than the table says: {wrong[0]}")
    graphs = graphs_of(words_of(config.parallel), reports, config.parallel)
    check_order(words_of(config.parallel), graphs)
    write_graphs(target, graphs, RewriteOptions.of(chip))
    write_text(done, wanted)
    return target


def words_of(plan: ParallelPlan) -> str:
    """Describes a plan in words: the fields that differ from the default."""
    default = ParallelPlan()
    values = {field.name: getattr(plan, field.name) for field in fields(plan)}
    changed = [f"{name} {value}" for name, value in values.items() if value != getattr(default, name)]
    return " ".join(changed) or "dp 1"


class _Clock:
    """Measures the seconds of the phases, and shows the progress of the present one."""

    def __init__(self, seconds: dict[str, float], bar: tqdm) -> None:
        self._seconds, self._bar = seconds, bar
        self._phase, self._began = "", 0.0

    def begin(self, phase: str, total: int) -> None:
        """Ends the present phase and begins another."""
        self._lap()
        self._phase, self._began = phase, time.monotonic()
        self._bar.reset(total)
        self._bar.set_description(f"training replayed: {phase}")

    def end(self) -> None:
        """Ends the last phase."""
        self._lap()
        self._bar.close()

    def _lap(self) -> None:
        if self._phase:
            spent = time.monotonic() - self._began
            self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + spent


def _check(config: TrainConfig, legs: Sequence[Leg]) -> None:
    problems = []
    for leg in legs:
        if leg.plan.devices == 1:
            problems.append("a plan of one device is what others are compared with; give dp, tp, pp")
        if leg.samples_per_step != legs[0].samples_per_step:
            problems.append(
                f"{words_of(leg.plan)}: {leg.samples_per_step} rows a step, {legs[0].samples_per_step} under "
                "the first plan; dp * micro_batches * batch size must stay"
            )
    if config.model.compute_dtype not in _TYPES:
        problems.append(
            f"model.compute_dtype: {config.model.compute_dtype!r} cannot be replayed on CPU; give "
            f"{' or '.join(_TYPES)}"
        )
    if config.run.attention_dropout == "device":
        problems.append(
            "run.attention_dropout: 'device' draws masks that no other process knows; say positional"
        )
    if problems:
        raise ConfigError(problems)


def _config_of(config: TrainConfig, leg: Leg, output: Path) -> TrainConfig:
    run = replace(config.run, output=str(output), steps=leg.steps, batch_size=leg.batch_size, resume="auto")
    return replace(config, run=run, parallel=leg.plan)


def _one(config: TrainConfig, legs: Sequence[Leg], folder: Path, timeout: float) -> Trace:
    """Runs one process, whose micro-batches hold the rows of all data-parallel ranks; returns its trace."""
    first, target = legs[0], folder / "one"
    plan = ParallelPlan(micro_batches=first.plan.micro_batches)
    whole = Leg(plan, first.batch_size * first.plan.dp, legs[-1].steps)
    run_one(_config_of(config, whole, folder / "run_of_one"), target, timeout)
    return Trace.read(target)


def _compare_leg(
    config: TrainConfig, leg: Leg, folder: Path, ended: Ended, one: Trace, found: Comparison
) -> LegReport:
    """Compares the steps that all ranks of a leg have recorded."""
    traces = [Trace.read(folder / f"rank_{rank:05d}") for rank in range(leg.plan.devices)]
    _check_codes(leg, ended)
    steps = min(len(trace.steps) for trace in traces)
    if not steps or len({trace.first for trace in traces}) > 1:
        raise ReplayError(f"{words_of(leg.plan)}: the ranks did not begin with the same step; see {folder}")
    killed = leg.interruption is not None and leg.interruption.kills
    if not killed and any(len(trace.steps) != steps for trace in traces):
        raise ReplayError(f"{words_of(leg.plan)}: the ranks did not end with the same step; see {folder}")
    first = traces[0].first
    expected = Trace(one.folder, one.steps[first : first + steps])
    placed = _layouts(replace(config, parallel=leg.plan))
    applied = (number for number, line in enumerate(expected.steps) if line["applied"])
    updated = next(applied, None)
    run = Run(
        {rank: _states(trace, steps, updated) for rank, trace in enumerate(traces)},
        {rank: regions(placed, leg.plan, rank) for rank in range(leg.plan.devices)},
        {prefix + name: layout.shape for name, layout in placed.items() for prefix in ("", *MOMENTS)},
        tuple(range(leg.plan.devices)),
    )
    initial = {name: array for name, array in one.state(0).items() if name in placed}
    rates = tuple(learning_rate(step, config.optim) for step in range(first + steps))
    recipe = Recipe(steps, rates, config.optim.beta1)
    bounds = found.bounds
    if first:
        assert isinstance(bounds, TrainingBounds)
        bounds = replace(bounds, gradient=bounds.later_gradient)
    _merge(found, compare(run, _states(expected, steps, updated), initial, recipe, bounds), bool(first))
    # Last, because scales differ only after a step that one skipped and the other did not, which is reported.
    _compare_scales(traces, expected, steps, found)
    lines = traces[0].steps[:steps]
    return LegReport(
        plan=words_of(leg.plan),
        first=first + 1,
        last=first + steps,
        codes=ended.codes,
        losses=tuple(line["loss"] for line in lines),
        skipped=tuple(line["step"] + 1 for line in lines if not line["applied"]),
        scales=tuple(line["scale"] for line in lines),
        seconds=ended.seconds,
    )


def _check_codes(leg: Leg, ended: Ended) -> None:
    """Refuses a leg whose ranks ended with other codes than expected."""
    told = leg.interruption
    if told is not None and told.kills:
        if ended.codes[told.rank] != -told.number:
            code, plan = ended.codes[told.rank], words_of(leg.plan)
            raise ReplayError(f"{plan}: rank {told.rank} ended with {code} before it was killed")
        return
    expected = 128 + told.number if told else 0
    for rank, code in enumerate(ended.codes):
        if code != expected:
            raise ReplayError(f"{words_of(leg.plan)}: rank {rank} ended with {code}, {expected} was expected")


def _check_steps(leg: Leg, report: LegReport, begins: int) -> None:
    """Refuses a leg that did not begin where it should resume, or that ended before its last step.

    Comparing numbers would not show this: a leg that found no checkpoint and started anew also computes what
    one process computes.
    """
    if report.first != begins + 1:
        raise ReplayError(
            f"{report.plan}: began with step {report.first}, {begins + 1} was expected: the ranks did not go "
            "on from the checkpoint that was left for them"
        )
    if leg.interruption is None and report.last != leg.steps:
        raise ReplayError(f"{report.plan}: ended after step {report.last}, {leg.steps} was expected")


def _layouts(config: TrainConfig) -> Mapping[str, Any]:
    return layouts(config.model, config.parallel)


def regions(placed: Mapping[str, Any], plan: ParallelPlan, rank: int) -> dict[str, Region]:
    """The part of each parameter and moment that a rank holds."""
    return {
        prefix + name: tuple(slice(begin, begin + size) for begin, size in zip(start, shape, strict=True))
        for name, (start, shape) in slices_of_rank(placed, plan, rank).items()
        for prefix in ("", *MOMENTS)
    }


def _states(trace: Trace, steps: int, updated: int | None) -> dict[str, np.ndarray]:
    """A process's records, as compare.Run takes them; the gradients of step `updated` are compared."""
    first = trace.first
    states: dict[str, np.ndarray] = {}
    for number, line in enumerate(trace.steps[:steps]):
        states |= {f"{number}/{name}": np.asarray(line[name]) for name in ("loss", "norm", "applied")}
    compared = {steps - 1} if updated is None else {updated - 1, updated, steps - 1}
    for number in compared:  # of all other steps only the losses and norms are compared
        state = trace.state(first + number + 1)
        states |= {f"{number}/state/{name}": array for name, array in state.items()}
    return states


def _compare_scales(traces: Sequence[Trace], one: Trace, steps: int, found: Comparison) -> None:
    for number in range(steps):
        expected = one.steps[number]["scale"]
        for rank, trace in enumerate(traces):
            value, where = trace.steps[number]["scale"], f"step {one.first + number + 1}, rank {rank}"
            found.note("scale", abs(value - expected) / expected, where)


def _merge(found: Comparison, more: Comparison, later: bool) -> None:
    """Adds the comparison of another leg; `later` marks a leg that resumed."""
    first = found.first or more.first
    for each in more.largest.values():
        kind = "later_gradient" if later and each.kind == "gradient" else each.kind
        found.note(kind, each.value, each.where)
    found.first = first
