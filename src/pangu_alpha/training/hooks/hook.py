"""Hooks: actions between steps, each every so many steps and with its own state in the checkpoint.

The loop runs hooks in their order and does not know any of them by name. training.hooks.standard has the
hooks of every run: report, comparison of copies, validation, saving.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from pangu_alpha.checkpoint.native.format import Manifest
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.training.guard import Guard
from pangu_alpha.training.reporting.report import Report, SilentReport

if TYPE_CHECKING:
    from pangu_alpha.parallel.world import World


@dataclass
class Place:
    """Where a run stands.

    Args:
        step: Number of optimizer steps done.
        samples: Number of samples that all devices together have read.
    """

    step: int = 0
    samples: int = 0


@dataclass(frozen=True)
class StepResult:
    """The results of one optimizer step.

    Args:
        loss: Weighted mean of the row losses; for tokens -log p, nats.
        norm: Global gradient norm before clipping.
        applied: Whether the update was applied.
        row_losses: Loss of each row of all micro-batches and ranks, float64.
        row_weights: How much each of those rows counts, float64.
        row_sources: Index of each row's source, float64 whole numbers.
    """

    loss: float
    norm: float
    applied: bool
    row_losses: np.ndarray
    row_weights: np.ndarray
    row_sources: np.ndarray


@dataclass(frozen=True)
class Done:
    """A step that was just taken.

    Args:
        loss_scale, learning_rate: The values used in the step.
        seconds: How long it took, including the reading of its batch.
    """

    result: StepResult
    loss_scale: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """What hooks may use of a run.

    Some types are only named in comments, because importing them would make a circle: an objective has hooks
    of its own.

    Args:
        world: All ranks of the run.
        partitioned: Whether each rank holds slices by the plan; otherwise every rank holds everything.
        report: The reporter; on ranks other than 0 it keeps nothing.
        peak: Operations per second that all devices together can do; None if unknown.
        manifest: Makes the manifest of a checkpoint at the present place.
    """

    config: TrainConfig
    world: World
    partitioned: bool
    objective: Any  # training.objective.Objective
    streams: Any  # training.objective.Streams
    engine: Any  # training.engine.Engine
    guard: Guard
    checkpoints: Any  # training.checkpoints.RunCheckpoints
    report: Report | SilentReport
    peak: float | None
    manifest: Callable[[], Manifest]


class Hook:
    """An action that a run takes every so many steps; methods that a hook does not need do nothing.

    A hook is entered before the first step, and left when the run ends for any reason.

    Attributes:
        name: Name under which a checkpoint stores its state; unique among the hooks of a run.
        every: Number of steps between two actions; 0 is never.
        at_end: Whether it also acts after the last step of the run.
        when_halted: Whether it also acts after a step whose outcome ends the run.
    """

    name = ""
    every = 0
    at_end = False
    when_halted = False

    def is_due(self, step: int, last: bool) -> bool:
        """Whether the hook acts after a step.

        Args:
            step: Number of steps done.
            last: Whether the step was the last one of the run.
        """
        return self.every > 0 and (step % self.every == 0 or (self.at_end and last))

    def __enter__(self) -> Hook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def begin(self, place: Place) -> None:
        """Called before the first step of a new or resumed run; not called if no step is left."""

    def before_update(self) -> None:
        """Called in every step, just before parameters and moments change, perhaps by another thread."""

    def run(self, place: Place, done: Done) -> None:
        """Acts after a step.

        Args:
            place: Place of the run after the step.
            done: The step.

        Raises:
            TrainingHaltedError: The run must stop; it is raised on all ranks alike.
        """

    def tell(self) -> int | None:
        """A number for all ranks, requested before each step; a hook without one always returns None."""
        return None

    def hear(self, numbers: np.ndarray) -> None:
        """Receives the numbers that `tell` returned on all ranks, int64 [ranks]."""

    def end(self, place: Place, stopped: bool) -> None:
        """Called when no further step follows.

        Args:
            stopped: Whether a signal stopped the run.
        """

    def state(self) -> Any:
        """State for a checkpoint: plain mappings, lists, finite numbers and texts; None stores nothing."""
        return None

    def restore(self, state: Any) -> None:
        """Continues from the `state()` of another process.

        Raises:
            ValueError: The value is not such a state.
        """


def states(hooks: Sequence[Hook]) -> dict[str, Any]:
    """The states of all hooks that have one, by the hooks' names."""
    found = {hook.name: hook.state() for hook in hooks}
    # Copied, because a checkpoint is written beside the next steps, which may change what a hook returned.
    return {name: copy.deepcopy(state) for name, state in found.items() if state is not None}


def restore(hooks: Sequence[Hook], kept: Mapping[str, Any]) -> None:
    """Restores each hook from the state stored under its name; a hook without one stays as it is.

    Raises:
        ValueError: A state is not valid for its hook; the message names the hook.
    """
    for hook in hooks:
        if hook.name in kept:
            try:
                hook.restore(kept[hook.name])
            except ValueError as error:
                raise ValueError(f"{hook.name}: {error}") from error
