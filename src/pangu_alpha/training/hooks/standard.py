"""The hooks of every run: report, comparison of copies, validation, saving."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.native.background import BackgroundSaver, Saved
from pangu_alpha.training.checks.replicas import ReplicaCheck
from pangu_alpha.training.hooks.hook import Done, Hook, Place, Run


def standard_hooks(run: Run, more: Sequence[Hook] = ()) -> list[Hook]:
    """Returns the hooks of a run in their order.

    Args:
        more: Hooks of later layers, such as the scoring of tasks.

    The comparison of copies and the objective's own hooks come before saving, so that what they refuse is not
    saved. Reports and validation also come before it, so that a saved step is fully reported.
    """
    hooks = [ReportHook(run), ReplicaHook(run), *run.objective.hooks(run)]
    if run.streams.validation is not None:
        hooks.append(ValidationHook(run))
    hooks += [*more, SaveHook(run)]
    names = [hook.name for hook in hooks]
    assert len({*names}) == len(names), f"each hook keeps its state under a name of its own: {names}"
    return hooks


class ReportHook(Hook):
    """Reports every step, including one that stops the run."""

    name = "report"
    every = 1
    when_halted = True

    def __init__(self, run: Run) -> None:
        self._run = run

    def run(self, place: Place, done: Done) -> None:
        """See Hook."""
        self._run.report.step(self._entry(place, done) | {"skipped": self._run.guard.skipped})

    def _entry(self, place: Place, done: Done) -> dict[str, Any]:
        units, result = self._run.objective.units, done.result
        rate = self._run.config.samples_per_step * units.per_sample / done.seconds
        entry = {
            "step": place.step,
            "samples": place.samples,
            "loss": result.loss,
            "grad_norm": result.norm,
            "loss_scale": done.loss_scale,
            "lr": done.learning_rate,
            units.rate_key: rate,
            "mfu": self._run.peak and rate * units.operations / self._run.peak,
            "applied": result.applied,
        }
        if len(self._run.streams.training.sources) > 1:
            entry |= self._source_losses(done)
        return entry

    def _source_losses(self, done: Done) -> dict[str, float]:
        result, losses = done.result, {}
        for place, source in enumerate(self._run.streams.training.sources):
            mine = result.row_sources == place
            if weight := float(result.row_weights[mine].sum()):
                losses[f"loss/{source.name}"] = float(result.row_losses[mine].sum(dtype=np.float64) / weight)
        return losses


class ReplicaHook(Hook):
    """Compares the copies that several ranks hold; ReplicaCheck also decides when."""

    name = "replicas"
    every = 1

    def __init__(self, run: Run) -> None:
        self._engine = run.engine
        self._check = ReplicaCheck(run.config, run.world, run.partitioned, run.objective.frozen)

    def run(self, place: Place, done: Done) -> None:
        """See Hook."""
        self._check.after_step(place.step, self._engine, done.result.applied)


class ValidationHook(Hook):
    """Measures the held-out batches of a run that has some."""

    name = "validation"
    at_end = True

    def __init__(self, run: Run) -> None:
        self._run = run
        self.every = run.config.run.evaluate_every

    def run(self, place: Place, done: Done) -> None:
        """See Hook."""
        run = self._run
        batches = itertools.islice(run.streams.validation, run.config.run.evaluate_batches)
        measured = run.engine.evaluate(batches)
        run.report.validation({"step": place.step} | measured, run.objective.validation_text(measured))


class SaveHook(Hook):
    """Saves checkpoints in the background of the following steps, and also when a signal stops the run."""

    name = "save"
    at_end = True

    def __init__(self, run: Run) -> None:
        self._run = run
        kept = run.config.run.checkpoint
        self.every = kept.every
        self._saver = BackgroundSaver(run.checkpoints.series.save, kept.background)
        self._saving = -1  # the newest step that this rank has begun to save
        self._saved = -1  # the newest step that this rank has on the disk

    def __enter__(self) -> SaveHook:
        self._saver.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._saver.__exit__(kind, error, trace)

    def begin(self, place: Place) -> None:
        """See Hook."""
        if self._run.checkpoints.saves:
            self._saver.reserve(self._run.engine.specs())

    def before_update(self) -> None:
        """Waits until the last save has copied everything that an update changes."""
        self._saver.copied()

    def run(self, place: Place, done: Done) -> None:
        """See Hook."""
        self._save(place)

    def tell(self) -> int:
        """The newest step that this rank has on the disk."""
        self._note(self._saver.finished())
        return self._saved

    def hear(self, numbers: np.ndarray) -> None:
        """See Hook."""
        self._run.checkpoints.settle(int(numbers.min()))

    def end(self, place: Place, stopped: bool) -> None:
        """Returns when the last checkpoint is on the disk."""
        if stopped:
            self._save(place)
        self._note(self._saver.wait())

    def _save(self, place: Place) -> None:
        """Begins to save the present place, unless it is being saved already."""
        if not self._run.checkpoints.saves or self._saving == place.step:
            return
        self._saving = place.step
        self._note(self._saver.save(self._run.engine.tensors(), self._run.manifest()))

    def _note(self, saved: Saved | None) -> None:
        if saved is not None:
            self._saved = saved.step
            self._run.report.say(f"saved {saved.path} in {saved.took:.1f} s, held up for {saved.held:.2f} s")
