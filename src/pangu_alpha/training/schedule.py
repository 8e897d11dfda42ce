"""Pure functions of the step for all that changes with time: learning rate, bias correction, dropout keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.data.hashing import mix64, odd32
from pangu_alpha.training.guard import Guard


def learning_rate(step: int, optim: OptimConfig) -> float:
    """Learning rate of the step that follows `step` finished ones (2021 code).

    Linear warm-up from 0, so that the first update changes only the moments; then a cosine that is also
    counted from step 0, so that it begins a little below the peak.

    Args:
        step: Number of steps done, from 0.
    """
    if step < optim.warmup_steps:
        return optim.learning_rate * step / optim.warmup_steps
    progress = min(step, optim.decay_steps) / optim.decay_steps
    span = optim.learning_rate - optim.end_learning_rate
    return optim.end_learning_rate + 0.5 * span * (1.0 + math.cos(math.pi * progress))


def schedule_note(optim: OptimConfig) -> str | None:
    """Explains what a user may not expect of a recipe's learning rates; None if there is nothing."""
    warmup, decay = optim.warmup_steps, optim.decay_steps
    if warmup < decay or optim.end_learning_rate == optim.learning_rate:
        return None
    return (
        f"optim.warmup_steps: the warm-up ends at step {warmup}, where the cosine, which is counted from "
        f"step 0 and ends at optim.decay_steps {decay}, is at its floor: from the peak the learning rate "
        f"falls to {optim.end_learning_rate:g} at once"
    )


@dataclass(frozen=True)
class UpdateScalars:
    """Inputs of the optimizer kernel in one step.

    Args:
        learning_rate: Factor of the whole update.
        epsilon: Added to the square root of the second moment.
        decay: Weight decay inside the update.
    """

    learning_rate: float
    epsilon: float
    decay: float


def update_scalars(step: int, optim: OptimConfig, skipped: int = 0) -> UpdateScalars:
    """Learning rate, epsilon and decay of a step; they include Adam's bias correction if it is on.

    p -= lr (m' / (sqrt(v') + eps) + wd p) with m' = m / c1, v' = v / c2 equals the kernel's uncorrected
    update for lr' = lr sqrt(c2) / c1, eps' = eps sqrt(c2), wd' = wd c1 / sqrt(c2). A skipped update leaves
    the moments unchanged, so c1 and c2 count only applied updates; the learning rate counts all steps.

    Args:
        step: Number of steps done, from 0.
        skipped: Number of steps among them whose update was not applied.
    """
    rate = learning_rate(step, optim)
    if not optim.bias_correction:
        return UpdateScalars(rate, optim.epsilon, optim.weight_decay)
    number = step - skipped + 1  # number of the next update, from 1
    root = math.sqrt(1.0 - optim.beta2**number)
    ratio = root / (1.0 - optim.beta1**number)
    return UpdateScalars(rate * ratio, optim.epsilon * root, optim.weight_decay / ratio)


def step_controls(
    step: int, optim: OptimConfig, guard: Guard, weight: float, nominal_weight: float
) -> np.ndarray:
    """A step's values apart from the batch, float32 [6], as partitioned.step.PartitionedStep takes them.

    Training and replays both use this function, so that a replay checks it as well.

    Args:
        step: Number of steps done, from 0.
        guard: Gives the loss scale, the largest acceptable norm, and the number of skipped updates.
        weight: How much the rows of this device count; for tokens, the number that count.
        nominal_weight: About how much all rows of the step count on all devices. The loss is also scaled by
            its inverse, so that float16 computes with about a mean.
    """
    scalars = update_scalars(step, optim, guard.skipped)
    scale = guard.scale.value / nominal_weight
    recipe = (scalars.learning_rate, scalars.epsilon, scalars.decay)
    return np.array([weight, scale, guard.largest_norm(), *recipe], np.float32)


def dropout_rows(seed: int, step: int, rows: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
    """The keys from which the masks of a step's rows are made; see model.operators.dropout.Dropout.

    Args:
        seed: `run.seed`.
        step: Number of steps done before.
        rows: Number of each row in the step, over all micro-batches and devices: its sample's number minus
            that of the step's first sample.
        length: Number of positions in a row.

    Returns:
        Odd int32 [rows, length] without a pattern; a row gets the same keys however the step is divided.
    """
    first, second = np.random.SeedSequence([seed, step]).generate_state(2, np.uint64)
    places = (np.asarray(rows, np.uint64)[:, None] << np.uint64(32)) + np.arange(length, dtype=np.uint64)
    return odd32(mix64(first ^ mix64(second ^ places)))


def row_numbers(micro_batches: int, rank: int, ranks: int, batch_size: int) -> np.ndarray:
    """Numbers, within the step, of the rows that one data-parallel rank reads, as in data.batches.

    Args:
        micro_batches: Number of micro-batches in a step.
        rank: Data-parallel rank, from 0 to ranks - 1.
        ranks: Number of data-parallel ranks.
        batch_size: Rows of one micro-batch on each rank.

    Returns:
        int64 [micro_batches, batch_size].
    """
    first = (np.arange(micro_batches) * ranks + rank) * batch_size
    return first[:, None] + np.arange(batch_size)
