"""Decides what happens to an unacceptable update: lower the loss scale, skip, count, and finally stop.

Takes and returns plain numbers, which a checkpoint stores and restores bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from pangu_alpha.config.optim import LossScaleConfig
from pangu_alpha.config.run import GuardConfig
from pangu_alpha.files.shown import quoted

LARGEST = 3.0e38  # a finite float32; acceptable norms and loss scales do not exceed it
_NORM_DECAY = 0.99  # of the running mean of the gradient norm, which covers about the last 100 steps
_NORM_WARMUP = 20  # steps before the mean is reliable enough to detect a spike


class TrainingHaltedError(RuntimeError):
    """The run stopped itself, for example because too many updates in a row were skipped."""


@dataclass
class LossScale:
    """Dynamic loss scale: it is divided after an overflow, and multiplied after a window without one.

    Args:
        value: The factor on the loss; constantly 1 if scaling is off.
        clean_steps: Number of steps since the last change.
    """

    value: float
    clean_steps: int = 0

    def update(self, finite: bool, config: LossScaleConfig) -> None:
        """Updates the scale after a step.

        Args:
            finite: Whether the step's gradients were finite.
        """
        self.clean_steps += 1
        if not finite:
            self.value, self.clean_steps = max(self.value / config.factor, 1.0), 0
        elif self.clean_steps >= config.window:
            self.value, self.clean_steps = min(self.value * config.factor, LARGEST), 0


@dataclass
class Guard:
    """Counts skipped updates, and decides what is a spike.

    Args:
        steps: Number of updates applied so far, over which the mean is taken.
        mean_norm: Running mean of the gradient norm.
        skipped: Number of updates skipped since the run began.
        skipped_in_row: Number of updates skipped since the last applied one, without those that only lowered
            the loss scale.
        scaling: Recipe of the loss scale; None keeps the scale constant.
    """

    scale: LossScale
    steps: int = 0
    mean_norm: float = 0.0
    skipped: int = 0
    skipped_in_row: int = 0
    config: GuardConfig = field(default_factory=GuardConfig)
    scaling: LossScaleConfig | None = None

    def largest_norm(self) -> float:
        """Norm above which an update is skipped; the device itself skips norms that are not finite."""
        if self.config.spike_factor is None or self.steps < _NORM_WARMUP:
            return LARGEST
        return self.config.spike_factor * self.mean_norm

    def observe(self, norm: float, applied: bool) -> None:
        """Updates the counters after a step.

        Args:
            norm: The step's gradient norm; inf or NaN after an overflow.
            applied: Whether the update was applied.

        Raises:
            TrainingHaltedError: Too many updates in a row were skipped.
        """
        finite = math.isfinite(norm)
        only_scaled = not finite and self.scaling is not None and self.scale.value > 1.0
        if self.scaling is not None:
            self.scale.update(finite, self.scaling)
        if applied:
            self.steps += 1
            decay = min(_NORM_DECAY, 1.0 - 1.0 / self.steps)
            self.mean_norm = decay * self.mean_norm + (1.0 - decay) * norm
            self.skipped_in_row = 0
            return
        self.skipped += 1
        self.skipped_in_row += not only_scaled
        if self.skipped_in_row >= self.config.max_skipped:
            key = "spike_factor" if finite else "max_skipped"
            raise TrainingHaltedError(
                f"{self.skipped_in_row} updates in a row were skipped (last gradient norm {norm:.6g}, "
                f"running mean {self.mean_norm:.4g}); lower optim.learning_rate, look at the data, or raise "
                f"run.guard.{key}, and continue from the last checkpoint"
            )

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint stores."""
        names = ("steps", "mean_norm", "skipped", "skipped_in_row")
        return {name: getattr(self, name) for name in names} | {"scale": asdict(self.scale)}

    def restore(self, state: Any) -> None:
        """Continues from the `state()` of another process.

        Raises:
            ValueError: The value is not such a state.
        """
        if not _is_state(state, self.state()):
            raise ValueError(f"not the state of a guard: {quoted(state, 200)}")
        for name, value in state.items():
            setattr(self, name, LossScale(**value) if name == "scale" else value)


def _is_state(value: Any, known: Any) -> bool:
    """Whether a value has the structure of a known state, with finite numbers that are not negative."""
    if isinstance(known, dict):
        same = isinstance(value, dict) and value.keys() == known.keys()
        return same and all(_is_state(value[key], known[key]) for key in known)
    kinds = int if isinstance(known, int) else int | float
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value < math.inf


def make_guard(guard: GuardConfig, scaling: LossScaleConfig, compute_dtype: str) -> Guard:
    """Makes a new guard.

    Args:
        scaling: Recipe of the loss scale; its mode "auto" scales if the compute type is float16.
        compute_dtype: "float32", "float16" or "bfloat16".
    """
    dynamic = scaling.mode == "dynamic" or (scaling.mode == "auto" and compute_dtype == "float16")
    return Guard(
        scale=LossScale(scaling.initial if dynamic else 1.0),
        config=guard,
        scaling=scaling if dynamic else None,
    )
