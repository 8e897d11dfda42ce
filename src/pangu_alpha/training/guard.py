"""What a run does when an update is unacceptable: lower the loss scale, skip, count, and stop in the end.

Plain numbers in and out; they are saved with the checkpoint and come back bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from pangu_alpha.config.optim import LossScaleConfig
from pangu_alpha.config.run import GuardConfig
from pangu_alpha.files.shown import quoted

LARGEST = 3.0e38  # a finite float32 that no acceptable norm exceeds, nor any loss scale
_NORM_DECAY = 0.99  # of the running mean of the gradient norm; about the last 100 steps
_NORM_WARMUP = 20  # steps before the mean is trusted to tell a spike


class TrainingHaltedError(RuntimeError):
    """The run stopped itself: too many updates in a row were skipped."""


@dataclass
class LossScale:
    """Dynamic loss scale: divided after an overflow, multiplied after a clean window.

    Args:
        value: The factor on the loss; 1 and constant where scaling is off.
        clean_steps: Steps since the last change.
    """

    value: float
    clean_steps: int = 0

    def update(self, finite: bool, config: LossScaleConfig) -> None:
        """Takes note of a step."""
        self.clean_steps += 1
        if not finite:
            self.value, self.clean_steps = max(self.value / config.factor, 1.0), 0
        elif self.clean_steps >= config.window:
            self.value, self.clean_steps = min(self.value * config.factor, LARGEST), 0


@dataclass
class Guard:
    """Counts skipped updates and knows what a spike is.

    Args:
        steps: Updates applied so far, of which the mean is made.
        mean_norm: Running mean of the gradient norm.
        skipped: Updates skipped since the run began.
        skipped_in_row: Skipped without an applied one between; lowering the loss scale does not count.
        scale: The dynamic loss scale.
        config: When to skip and when to stop.
        scaling: Recipe of the loss scale; None keeps it.
    """

    scale: LossScale
    steps: int = 0
    mean_norm: float = 0.0
    skipped: int = 0
    skipped_in_row: int = 0
    config: GuardConfig = field(default_factory=GuardConfig)
    scaling: LossScaleConfig | None = None

    def largest_norm(self) -> float:
        """Norm above which an update is skipped; the device skips those that are not finite by itself."""
        if self.config.spike_factor is None or self.steps < _NORM_WARMUP:
            return LARGEST
        return self.config.spike_factor * self.mean_norm

    def observe(self, norm: float, applied: bool) -> None:
        """Takes note of a step.

        Raises:
            TrainingHaltedError: Too many updates were skipped in a row.
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
        """What a checkpoint keeps."""
        names = ("steps", "mean_norm", "skipped", "skipped_in_row")
        return {name: getattr(self, name) for name in names} | {"scale": asdict(self.scale)}

    def restore(self, state: Any) -> None:
        """Continues from `state()` of another process.

        Raises:
            ValueError: It is none.
        """
        if not _is_state(state, self.state()):
            raise ValueError(f"not the state of a guard: {quoted(state, 200)}")
        for name, value in state.items():
            setattr(self, name, LossScale(**value) if name == "scale" else value)


def _is_state(value: Any, known: Any) -> bool:
    """Whether a value is built as a state that is known, of numbers that are finite and not negative."""
    if isinstance(known, dict):
        same = isinstance(value, dict) and value.keys() == known.keys()
        return same and all(_is_state(value[key], known[key]) for key in known)
    kinds = int if isinstance(known, int) else int | float
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value < math.inf


def make_guard(guard: GuardConfig, scaling: LossScaleConfig, compute_dtype: str) -> Guard:
    """A fresh guard.

    Args:
        guard: What to skip and when to stop.
        scaling: The recipe; its mode "auto" scales where the compute type is float16.
        compute_dtype: "float32", "float16" or "bfloat16".
    """
    dynamic = scaling.mode == "dynamic" or (scaling.mode == "auto" and compute_dtype == "float16")
    return Guard(
        scale=LossScale(scaling.initial if dynamic else 1.0),
        config=guard,
        scaling=scaling if dynamic else None,
    )
