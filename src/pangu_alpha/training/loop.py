"""A whole training run: open the data, resume, step, report, evaluate, save, stop when told to.

Everything about the run's place is two integers, steps and samples; the rest is a function of them.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.native.background import BackgroundSaver, Saved
from pangu_alpha.checkpoint.native.format import Manifest
from pangu_alpha.checkpoint.tensors import Source
from pangu_alpha.config.run import TrainConfig, unrunnable, unused
from pangu_alpha.config.schema import ConfigError, to_mapping
from pangu_alpha.data.batches import TrainingBatches, ValidationBatches, open_sources
from pangu_alpha.data.position import changes
from pangu_alpha.files.lock import hold_folder
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.world import World
from pangu_alpha.processes.belonging import launcher_of_this_process
from pangu_alpha.processes.signals import Signals, stop_at_once
from pangu_alpha.text.tokenizer import PanguTokenizer
from pangu_alpha.training.checkpoints import (
    RunCheckpoints,
    Start,
    check_fits,
    check_same_place,
    data_position,
    restore_guard,
)
from pangu_alpha.training.checks.replicas import ReplicaCheck
from pangu_alpha.training.checks.rows import check_rows
from pangu_alpha.training.engine import Engine, StepResult
from pangu_alpha.training.guard import make_guard
from pangu_alpha.training.output_folder import prepare_folder
from pangu_alpha.training.partitioned.engine import PartitionedEngine
from pangu_alpha.training.reporting.peak import peak_flops
from pangu_alpha.training.reporting.report import Report, SilentReport
from pangu_alpha.training.schedule import learning_rate, schedule_note

logger = logging.getLogger(__name__)

MakeEngine = Callable[[TrainConfig, World], Engine]

_ORDER_KEYS = ("run.seed", "data.shuffle")
_OTHER_ORDER = (
    "the epoch that each source is in goes on in another order, so some of its windows are read twice in it, "
    "others not at all"
)


@dataclass
class Place:
    """Where a run stands.

    Args:
        step: Optimizer steps done.
        samples: Windows read by all devices together.
    """

    step: int = 0
    samples: int = 0


def train(
    config: TrainConfig,
    device: str,
    world: World | None = None,
    restarted: bool = False,
    engine: MakeEngine | None = None,
) -> int:
    """One process of a training run, whose folder rank 0 holds for all ranks from before it is read.

    Args:
        config: What to do.
        device: Device in use, "CPU" or "Ascend".
        world: The ranks that read the other rows.
        restarted: See `RunCheckpoints`.
        engine: See `Trainer`.

    Returns:
        Exit code, see `Trainer.run`.

    Raises:
        FolderInUseError: Another run works in the folder.
    """
    first = world is None or world.rank == 0
    output = Path(config.run.output)
    new = [folder for folder in (output, *output.parents) if first and not folder.exists()]
    try:
        with hold_folder(output, "training") if first else nullcontext():
            return Trainer(config, device, world, restarted, engine).run()
    except (ValueError, OSError):
        with suppress(OSError):  # what was refused leaves no folders; what has begun is not empty
            for folder in new:
                folder.rmdir()
        raise


class Trainer:
    """One process of a training run; rank 0 reports and saves, all resume.

    Args:
        config: What to do.
        device: Device in use, "CPU" or "Ascend".
        world: The ranks that read the other rows.
        restarted: See `RunCheckpoints`.
        engine: Makes the engine of the run and its world; by default the device decides.

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
    ) -> None:
        run = config.run
        self.world = world or World()
        plan = config.parallel
        place = {"rank": Mesh.of(plan).coordinates(self.world.rank).data, "world_size": plan.dp}
        self.partitioned = device == "Ascend" and plan.devices > 1
        if problems := list(unrunnable(config, self.partitioned)):
            raise ConfigError(problems)
        for key in unused(config, self.partitioned):
            logger.warning("%s: without effect: only several Ascend devices are partitioned by a plan", key)
        if (note := schedule_note(config.optim)) is not None:
            logger.warning("%s", note)
        self.config = config
        self.folder = Path(run.output)
        self.checkpoints = RunCheckpoints(config, self.world, self.partitioned, restarted)
        start = self.checkpoints.find()  # likely to refuse, so it comes before the slow parts
        vocabulary = config.data.vocabulary
        sources, validation = open_sources(
            config.data,
            seq_length=config.model.seq_length,
            vocab_size=config.model.vocab_size,
            tokenizer_digest=PanguTokenizer(vocabulary).digest if vocabulary else None,
        )
        self.vocabulary = sources[0].records.manifest.vocabulary
        self.batches = TrainingBatches(
            sources, run.batch_size, run.seed, config.data.shuffle, config.data.document_mask, **place
        )
        self.validation = validation and ValidationBatches(
            validation, run.batch_size, config.data.document_mask, **place
        )
        self.engine = (engine or (PartitionedEngine if self.partitioned else Engine))(config, self.world)
        compute_dtype = str(self.engine.compute_dtype).lower()
        self.guard = make_guard(run.guard, config.optim.loss_scale, compute_dtype)
        self.place = Place()
        self._replicas = ReplicaCheck(config, self.world, self.partitioned)
        self._rows_checked = False
        self.peak = peak_flops(run.peak_tflops, device, self.world.size)
        # under a launcher a second SIGTERM may be the first one, sent to the whole job: the launcher insists
        self._signals = Signals(stop_at_once if launcher_of_this_process() is None else None)
        self._stop = 0  # sent to any rank, as all have agreed
        self._saving = -1  # newest step whose saving has begun
        self._saved = -1  # newest step that this rank has on the disk
        self.engine.compile()
        if start is None:
            self.engine.initialize()
        else:
            self._restore(start)
        data = self.batches.position.fingerprint
        check_same_place(self.world, self.folder, self.place.step, self.place.samples, data, start)

    def run(self) -> int:
        """Trains to the last step.

        Returns:
            0, or 128 + the signal's number after a SIGTERM, SIGINT or SIGHUP, which saves and stops.

        Raises:
            TrainingHaltedError: Too many updates in a row were skipped, or ranks that hold copies of a tensor
                no longer agree; the last checkpoint stands.
        """
        run = self.config.run
        if self.world.rank == 0:
            prepare_folder(self.folder, self.config)
        left = max(run.steps - self.place.step, 0) * self.config.samples_per_step
        logger.info("\n%s", self.batches.plan(self.place.samples + left, self.place.samples))
        with self._signals:
            return self._run(self._report())

    def _run(self, report: Report | SilentReport) -> int:
        run, place = self.config.run, self.place
        try:
            if place.step >= run.steps:
                report.say(
                    f"{self.folder}: done, step {place.step} of {run.steps}; to go on, raise run.steps"
                )
            elif not self.partitioned:  # whose graph is compiled before its values are there
                report.say(
                    f"compiling the training graph of {self.config.model.parameter_count:,} parameters"
                )
            with BackgroundSaver(self.checkpoints.series.save, run.checkpoint.background) as saver:
                self._train(report, saver)
            if self._stop and place.step < run.steps:
                report.say(f"signal {self._stop}: saved at step {place.step} and stopped")
                return 128 + self._stop
            return 0
        finally:
            report.close()

    def _train(self, report: Report | SilentReport, saver: BackgroundSaver) -> None:
        """Steps to the end of the run or a signal; the last checkpoint is on the disk when it returns."""
        run, place = self.config.run, self.place
        if self.checkpoints.saves and place.step < run.steps:
            saver.reserve(self.engine.specs())
        stream = self.batches.batches(place.samples)
        while place.step < run.steps and not self._stop_requested():
            self._one_step(stream, report, saver.copied)
            if place.step == run.steps or place.step % run.checkpoint.every == 0:
                self._save(report, saver)
            self._note(saver.finished(), report)
        if self._stop:
            self._save(report, saver)
        self._note(saver.wait(), report)

    def _report(self) -> Report | SilentReport:
        run = self.config.run
        if self.world.rank:
            return SilentReport()
        return Report(self.folder, self.place.step, run.steps, run.log_every, run.tensorboard)

    def _stop_requested(self) -> bool:
        """Whether any rank was told to stop, which all do after the same step; also what all have saved."""
        signals, saved = self.world.gather(np.array([self._signals.number, self._saved], np.int64)).T
        self.checkpoints.settle(int(saved.min()))
        self._stop = int(signals.max())
        return self._stop != 0

    def _one_step(
        self, stream: Any, report: Report | SilentReport, before_update: Callable[[], None]
    ) -> None:
        run, place = self.config.run, self.place
        began = time.perf_counter()
        micro_batches = list(itertools.islice(stream, self.config.parallel.micro_batches))
        if not self._rows_checked:
            check_rows(self.world, self.config.parallel, self.batches, place.samples, micro_batches)
            self._rows_checked = True
        scale = self.guard.scale.value
        result = self.engine.step(place.step, micro_batches, self.guard, before_update)
        entry = self._entry(result, scale, time.perf_counter() - began)
        place.step += 1
        place.samples += self.config.samples_per_step
        try:
            self.guard.observe(result.norm, result.applied)
        finally:  # the step that stops the run is in its report, too
            report.step(entry | {"skipped": self.guard.skipped})
        self._replicas.after_step(place.step, self.engine, result.applied)  # copies that differ are not saved
        last = place.step == run.steps
        if self.validation is not None and (last or place.step % run.evaluate_every == 0):
            report.validation(self._validate())

    def _entry(self, result: StepResult, scale: float, seconds: float) -> dict[str, Any]:
        model = self.config.model
        tokens_per_s = self.config.samples_per_step * model.seq_length / seconds
        entry = {
            "step": self.place.step + 1,
            "samples": self.place.samples + self.config.samples_per_step,
            "loss": result.loss,
            "grad_norm": result.norm,
            "loss_scale": scale,
            "lr": learning_rate(self.place.step, self.config.optim),
            "tokens_per_s": tokens_per_s,
            "mfu": self.peak and tokens_per_s * model.flops_per_token / self.peak,
            "applied": result.applied,
        }
        if len(self.batches.sources) > 1:
            entry |= self._source_losses(result)
        return entry

    def _source_losses(self, result: StepResult) -> dict[str, float]:
        losses = {}
        for place, source in enumerate(self.batches.sources):
            mine = result.row_sources == place
            if tokens := float(result.row_tokens[mine].sum()):
                losses[f"loss/{source.name}"] = float(result.row_losses[mine].sum(dtype=np.float64) / tokens)
        return losses

    def _validate(self) -> dict[str, Any]:
        batches = itertools.islice(self.validation, self.config.run.evaluate_batches)
        loss, tokens = self.engine.evaluate(batches)
        return {
            "step": self.place.step,
            "validation_loss": loss,
            "validation_perplexity": math.exp(min(loss, 50.0)),
            "validation_tokens": tokens,
        }

    def _save(self, report: Report | SilentReport, saver: BackgroundSaver) -> None:
        """Begins to save the present place, unless that has been done."""
        if not self.checkpoints.saves or self._saving == self.place.step:
            return
        self._saving = self.place.step
        manifest = Manifest(
            step=self.place.step,
            samples=self.place.samples,
            config=to_mapping(self.config),
            tokenizer=self.vocabulary.digest,
            state={
                "guard": self.guard.state(),
                "end_of_document": self.vocabulary.end_of_document,
                "records": self._record_digests(),
                "mixture": to_mapping(self.batches.position),
            },
            slices=self.engine.slices(),
        )
        self._note(saver.save(self.engine.tensors(), manifest), report)

    def _note(self, saved: Saved | None, report: Report | SilentReport) -> None:
        if saved is not None:
            self._saved = saved.step
            report.say(f"saved {saved.path} in {saved.took:.1f} s, held up for {saved.held:.2f} s")

    def _restore(self, start: Start) -> None:
        source, manifest = start.source, start.source.manifest
        check_fits(source, self.config, self.vocabulary.digest)
        if not start.resumed:
            self.engine.load(source, ["model"], verify=True)
            logger.info("new run from the weights of %s", source.path)
            return
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
        """Every source goes on where the checkpoint left it, whatever the mixture was then and is now."""
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

    def _record_digests(self) -> dict[str, str]:
        return {source.name: source.records.manifest.digest for source in self.batches.sources}


def _differences(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves that differ between two nested mappings: (dotted key, old, new)."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        inner = (_differences(old.get(k), new.get(k), f"{key}.{k}" if key else k) for k in keys)
        return list(itertools.chain.from_iterable(inner))
    return [] if old == new else [(key, old, new)]
