"""A whole training run: opens the data, resumes, steps, runs hooks, and stops at a signal.

The run's place is two integers, steps and samples; everything else is a function of them or a hook's own
state. Knows neither the network that is trained nor what the hooks do.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.frozen import STATE as FROZEN
from pangu_alpha.checkpoint.native.format import Manifest
from pangu_alpha.checkpoint.tensors import Source
from pangu_alpha.config.model_families import family_of
from pangu_alpha.config.run import TrainConfig, unrunnable, unused
from pangu_alpha.config.schema import ConfigError, to_mapping
from pangu_alpha.data.batches import Batch
from pangu_alpha.data.position import changes, plan_table
from pangu_alpha.files.lock import hold_folder
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.table_fit import unfit
from pangu_alpha.parallel.world import World
from pangu_alpha.processes.belonging import launcher_of_this_process
from pangu_alpha.processes.signals import Signals, stop_at_once
from pangu_alpha.training.checkpoints import (
    RunCheckpoints,
    Start,
    check_fits,
    check_same_place,
    check_trained,
    data_position,
    restore_guard,
    restore_hooks,
)
from pangu_alpha.training.checks.rows import check_rows
from pangu_alpha.training.engine import Engine
from pangu_alpha.training.guard import TrainingHaltedError, make_guard
from pangu_alpha.training.hooks.hook import Done, Hook, Place, Run, states
from pangu_alpha.training.hooks.standard import standard_hooks
from pangu_alpha.training.objective import Objective
from pangu_alpha.training.objectives import objective_of
from pangu_alpha.training.partitioned.engine import PartitionedEngine
from pangu_alpha.training.reporting.output_folder import prepare_folder
from pangu_alpha.training.reporting.peak import peak_flops
from pangu_alpha.training.reporting.report import Report, SilentReport
from pangu_alpha.training.schedule import learning_rate, schedule_note

logger = logging.getLogger(__name__)

MakeEngine = Callable[[TrainConfig, World], Engine]
MakeHooks = Callable[[Run], Sequence[Hook]]

_ORDER_KEYS = ("run.seed", "data.shuffle")
_OTHER_ORDER = (
    "the epoch that each source is in goes on in another order, so some of its windows are read twice in it, "
    "others not at all"
)


def train(
    config: TrainConfig,
    device: str,
    world: World | None = None,
    restarted: bool = False,
    engine: MakeEngine | None = None,
    hooks: MakeHooks = lambda run: (),
) -> int:
    """Runs one process of a training run; rank 0 locks the output folder for all ranks before it is read.

    Args:
        device: Device in use, "CPU" or "Ascend".
        world: The ranks that read the other rows; None for a single process.
        restarted: See `RunCheckpoints`.
        engine, hooks: See `Trainer`.

    Returns:
        The exit code; see `Trainer.run`.

    Raises:
        FolderInUseError: Another run works in the folder.
    """
    first = world is None or world.rank == 0
    output = Path(config.run.output)
    new = [folder for folder in (output, *output.parents) if first and not folder.exists()]
    try:
        with hold_folder(output, "training") if first else nullcontext():
            return Trainer(config, device, world, restarted, engine, hooks).run()
    except (ValueError, OSError):
        with suppress(OSError):  # a refused run leaves no folders; those of a begun run are not empty
            for folder in new:
                folder.rmdir()
        raise


class Trainer:
    """One process of a training run; rank 0 reports and saves, and all ranks resume.

    Args:
        device: Device in use, "CPU" or "Ascend".
        world: The ranks that read the other rows; None for a single process.
        restarted: See `RunCheckpoints`.
        engine: Makes the engine from the run and its world; None lets the device decide.
        hooks: Makes hooks of later layers, such as the scoring of tasks.

    Raises:
        ValueError: Records, vocabulary or the checkpoint to resume from are damaged or do not fit.
    """

    def __init__(
        self,
        config: TrainConfig,
        device: str,
        world: World | None = None,
        restarted: bool = False,
        engine: MakeEngine | None = None,
        hooks: MakeHooks = lambda run: (),
    ) -> None:
        run = config.run
        self.world = world or World()
        plan = config.parallel
        self.objective = objective_of(config)
        self.partitioned = device == "Ascend" and plan.devices > 1 and self.objective.splits
        problems = [*unrunnable(config, self.partitioned), *_unsplit(self.objective)]
        problems += (f"parallel.{each}" for each in unfit(plan, config.model, run.batch_size))
        if problems:
            raise ConfigError(problems)
        for key in unused(config, self.partitioned):
            logger.warning("%s: without effect: only several Ascend devices are partitioned by a plan", key)
        if (note := schedule_note(config.optim)) is not None:
            logger.warning("%s", note)
        self.config = config
        self.folder = Path(run.output)
        self.checkpoints = RunCheckpoints(
            config, self.world, self.partitioned, restarted, self.objective.initial_model
        )
        self._start = self.checkpoints.find()  # fails most often, so it comes before the slow parts
        rank = Mesh.of(plan).coordinates(self.world.rank).data
        self.streams = self.objective.open_data(rank, plan.dp)
        self.batches = self.streams.training
        self.engine = (engine or (PartitionedEngine if self.partitioned else Engine))(config, self.world)
        compute_dtype = str(self.engine.compute_dtype).lower()
        self.guard = make_guard(run.guard, config.optim.loss_scale, compute_dtype)
        self.place = Place()
        self.hooks: Sequence[Hook] = ()
        self._more_hooks = hooks
        self._rows_checked = False
        self._peak = peak_flops(run.peak_tflops, device, self.world.size, run.float32_matmul_precision)
        # Under a launcher, a second SIGTERM may be the first one again, sent to the whole job, so it must not
        # end the process at once; the launcher itself insists if necessary.
        self._signals = Signals(stop_at_once if launcher_of_this_process() is None else None)
        self._stop = 0  # number of a signal that any rank received, as all ranks have agreed
        self.engine.compile()
        if self._start is None:
            self.engine.initialize()
        else:
            self._restore(self._start)
        data = self.batches.position.fingerprint
        check_same_place(self.world, self.folder, self.place.step, self.place.samples, data, self._start)

    def run(self) -> int:
        """Trains to the last step.

        Returns:
            0, or 128 + the signal's number after a SIGTERM, SIGINT or SIGHUP, which saves and stops.

        Raises:
            TrainingHaltedError: Too many updates in a row were skipped, or a hook ended the run, for example
                because copies of a tensor differ. The last checkpoint remains.
        """
        run, units, now = self.config.run, self.objective.units, self.place.samples
        if self.world.rank == 0:
            prepare_folder(self.folder, self.config, self.streams.files)
        left = max(run.steps - self.place.step, 0) * self.config.samples_per_step
        position = self.batches.position
        logger.info("\n%s", plan_table(position, now + left, units.per_sample, now, units.counted))
        with self._signals:
            return self._run(self._report())

    def _run(self, report: Report | SilentReport) -> int:
        run, place = self.config.run, self.place
        try:
            if place.step >= run.steps:
                report.say(
                    f"{self.folder}: done, step {place.step} of {run.steps}; to go on, raise run.steps"
                )
            elif not self.partitioned:  # a partitioned graph was compiled before its values were set
                report.say(
                    f"compiling the training graph of {self.config.model.parameter_count:,} parameters"
                )
            self.hooks = self._make_hooks(report)
            with ExitStack() as entered:
                for hook in self.hooks:
                    entered.enter_context(hook)
                self._train()
            if self._stop and place.step < run.steps:
                report.say(f"signal {self._stop}: saved at step {place.step} and stopped")
                return 128 + self._stop
            return 0
        finally:
            report.close()

    def _make_hooks(self, report: Report | SilentReport) -> list[Hook]:
        """Makes the run's hooks, with their states from the checkpoint it resumes from."""
        run = Run(
            self.config,
            self.world,
            self.partitioned,
            self.objective,
            self.streams,
            self.engine,
            self.guard,
            self.checkpoints,
            report,
            self._peak,
            self._manifest,
        )
        hooks = standard_hooks(run, self._more_hooks(run))
        if self._start is not None and self._start.resumed:
            restore_hooks(hooks, self._start.source)
        return hooks

    def _train(self) -> None:
        """Steps to the end of the run or to a signal; when it returns, the last checkpoint is on the disk."""
        place, steps = self.place, self.config.run.steps
        if place.step < steps:
            for hook in self.hooks:
                hook.begin(place)
        stream = self.batches.batches(place.samples)
        while place.step < steps and not self._stop_requested():
            self._one_step(stream)
        for hook in self.hooks:
            hook.end(place, self._stop != 0)

    def _report(self) -> Report | SilentReport:
        run = self.config.run
        if self.world.rank:
            return SilentReport()
        step, units = self.place.step, self.objective.units
        return Report(self.folder, step, run.steps, run.log_every, run.tensorboard, units)

    def _stop_requested(self) -> bool:
        """Whether any rank received a signal to stop, so that all ranks stop after the same step.

        The numbers of the hooks travel in the same exchange.
        """
        told = [(hook, number) for hook in self.hooks if (number := hook.tell()) is not None]
        numbers = [self._signals.number, *(number for _, number in told)]
        signals, *heard = self.world.gather(np.array(numbers, np.int64)).T
        for (hook, _), values in zip(told, heard, strict=True):
            hook.hear(values)
        self._stop = int(signals.max())
        return self._stop != 0

    def _one_step(self, stream: Iterator[Batch]) -> None:
        place = self.place
        began = time.perf_counter()
        micro_batches = list(itertools.islice(stream, self.config.parallel.micro_batches))
        if not self._rows_checked:
            check_rows(self.world, self.config.parallel, self.batches, place.samples, micro_batches)
            self._rows_checked = True
        scale, rate = self.guard.scale.value, learning_rate(place.step, self.config.optim)
        result = self.engine.step(place.step, micro_batches, self.guard, self._before_update)
        done = Done(result, scale, rate, time.perf_counter() - began)
        place.step += 1
        place.samples += self.config.samples_per_step
        try:
            self.guard.observe(result.norm, result.applied)
        except TrainingHaltedError:
            self._run_hooks(done, halted=True)
            raise
        self._run_hooks(done, halted=False)

    def _before_update(self) -> None:
        for hook in self.hooks:
            hook.before_update()

    def _run_hooks(self, done: Done, halted: bool) -> None:
        step, last = self.place.step, self.place.step == self.config.run.steps
        for hook in self.hooks:
            if hook.is_due(step, last) and (hook.when_halted or not halted):
                hook.run(self.place, done)

    def _manifest(self) -> Manifest:
        """Makes the manifest of a checkpoint at the present place."""
        state = {"guard": self.guard.state()} | dict(self.streams.state)
        state["records"] = {source.name: source.records.digest for source in self.batches.sources}
        state["mixture"] = to_mapping(self.batches.position)
        if frozen := sorted(self.objective.frozen):
            state[FROZEN] = frozen
        if kept := states(self.hooks):
            state["hooks"] = kept
        return Manifest(
            step=self.place.step,
            samples=self.place.samples,
            config=to_mapping(self.config),
            tokenizer=self.streams.identity,
            state=state,
            slices=self.engine.slices(),
        )

    def _restore(self, start: Start) -> None:
        source, manifest = start.source, start.source.manifest
        model = self.config.model if start.resumed else self.objective.initial_model
        check_fits(source, model, self.streams.identity)
        if not start.resumed:
            self.engine.begin_from(source)
            logger.info("new run from the weights of %s", source.path)
            return
        check_trained(source, self.objective.frozen)
        self.engine.load(source, ["model", "optimizer"], verify=not start.verified)
        restore_guard(self.guard, source)
        self._resume_data(source)
        self.place = Place(manifest.step, manifest.samples)
        logger.info("resumed from %s: step %d, sample %d", source.path, manifest.step, manifest.samples)
        for key, old, new in _differences(manifest.config, to_mapping(self.config)):
            if key in _ORDER_KEYS and old is not None:
                logger.warning("  %s was %r, is %r now: %s", key, old, new, _OTHER_ORDER)
            elif key != "run.initial":
                logger.info("  %s was %r, is %r now", key, old, new)
            elif new is not None:
                logger.warning("  %s: not used: the run goes on from its own step %d", new, manifest.step)

    def _resume_data(self, source: Source) -> None:
        """Continues every source where the checkpoint left it, even if the mixture has changed."""
        before, samples = data_position(source), source.manifest.samples
        if before is None:
            if samples:
                logger.warning(
                    "%s: does not say how its data were mixed; the present weights are taken to have held "
                    "from the first sample on",
                    source.path,
                )
            return
        self.batches.resume(samples, before)
        for note in changes(before, self.batches.position):
            logger.warning("  %s", note)


def _unsplit(objective: Objective) -> Iterator[str]:
    """Yields why a plan is impossible for a network that every device holds whole."""
    plan = objective.config.parallel
    if not objective.splits and Mesh.of(plan).row_holders > 1:
        yield (
            f"parallel: tp {plan.tp} and pp {plan.pp} would split networks of the family "
            f"{family_of(objective.config.model)!r}, which every device holds whole; use dp alone"
        )


def _differences(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Returns the leaves that differ between two nested mappings: (dotted key, old, new)."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        inner = (_differences(old.get(k), new.get(k), f"{key}.{k}" if key else k) for k in keys)
        return list(itertools.chain.from_iterable(inner))
    return [] if old == new else [(key, old, new)]
