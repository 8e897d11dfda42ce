"""What happens between steps: hooks, each every so many steps, with its own state in the checkpoint.

The loop runs hooks in their order and knows none of them by name; training.hooks.standard has those of every
run: report, comparison of copies, validation, saving.
"""

from __future__ import annotations

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
        step: Optimizer steps done.
        samples: Samples read by all devices together.
    """

    step: int = 0
    samples: int = 0


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step computed.

    Args:
        loss: Mean over what counts: of tokens -log p, nats.
        norm: Global gradient norm before clipping.
        applied: Whether the update was applied.
        row_losses: Loss of each row of all micro-batches and ranks, float64.
        row_weights: How much each of those rows counts, float64.
        row_sources: Source of each of those rows, float64 whole numbers.
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
        result: What it computed.
        loss_scale: That it was taken with.
        learning_rate: Likewise.
        seconds: How long it took, its batch's reading included.
    """

    result: StepResult
    loss_scale: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """What hooks may use of a run.

    Args:
        config: Its configuration.
        world: All its ranks.
        partitioned: Whether each rank holds slices by the plan; otherwise every rank holds all.
        objective: What is trained.
        streams: Its data.
        engine: Holds the values.
        guard: Counts skipped updates.
        checkpoints: Where it saves.
        report: Where it reports; of rank 0, the other ranks' keep nothing.
        peak: Operations a second that all devices can do together; None is not known.
        manifest: What a checkpoint of the present place says about itself.

    Types stand below only where they do not make a circle: an objective has hooks of its own.
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
    """Something that a run does every so many steps; each method that is not needed does nothing.

    A hook is entered before the first step and left when the run ends, whatever ends it.

    Attributes:
        name: Under which a checkpoint keeps its state; no two hooks of a run have one.
        every: Steps between two runs; 0 is never.
        at_end: Whether it also runs after the last step of the run.
        when_halted: Whether it also runs after a step whose outcome ends the run.
    """

    name = ""
    every = 0
    at_end = False
    when_halted = False

    def is_due(self, step: int, last: bool) -> bool:
        """Whether it runs after a step.

        Args:
            step: Steps done.
            last: Whether it was the last one of the run.
        """
        return self.every > 0 and (step % self.every == 0 or (self.at_end and last))

    def __enter__(self) -> Hook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def begin(self, place: Place) -> None:
        """Called before the first step, also of a run that goes on; not where no step is left."""

    def before_update(self) -> None:
        """Called in every step when nothing is left to do but what changes parameters and moments."""

    def run(self, place: Place, done: Done) -> None:
        """What it does.

        Args:
            place: Of the run after the step.
            done: The step.

        Raises:
            TrainingHaltedError: The run must not go on; on all ranks alike.
        """

    def tell(self) -> int | None:
        """A number for all ranks, asked for before each step; None, always, tells them nothing."""
        return None

    def hear(self, numbers: np.ndarray) -> None:
        """Takes what `tell` gave on each rank, int64 [ranks]."""

    def end(self, place: Place, stopped: bool) -> None:
        """Called when no step follows.

        Args:
            place: Of the run.
            stopped: Whether a signal stopped it.
        """

    def state(self) -> Any:
        """What a checkpoint keeps: plain mappings, lists, finite numbers and texts; None keeps nothing."""
        return None

    def restore(self, state: Any) -> None:
        """Goes on from `state()` of another process.

        Raises:
            ValueError: It is none.
        """


def states(hooks: Sequence[Hook]) -> dict[str, Any]:
    """The states of the hooks that have one, by their names."""
    found = {hook.name: hook.state() for hook in hooks}
    return {name: state for name, state in found.items() if state is not None}


def restore(hooks: Sequence[Hook], kept: Mapping[str, Any]) -> None:
    """Gives each hook the state that is kept under its name; one without goes on as it is.

    Raises:
        ValueError: A state is none of its hook's; says which.
    """
    for hook in hooks:
        if hook.name in kept:
            try:
                hook.restore(kept[hook.name])
            except ValueError as error:
                raise ValueError(f"{hook.name}: {error}") from error
