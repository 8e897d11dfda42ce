"""Batches for comparing a plan with one device; every device counts a different number of tokens.

Letters: D data-parallel ranks, M micro-batches, B rows of one of them on a rank, S sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pangu_alpha.config.run import GuardConfig
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.training.guard import make_guard
from pangu_alpha.training.schedule import dropout_rows, row_numbers, step_controls

HEAVY = 1e30  # token weight with which the squares of gradients overflow in float32


class Place(NamedTuple):
    """Where training stands.

    Args:
        step: Optimizer steps done.
        samples: Samples read by all devices together.
    """

    step: int = 0
    samples: int = 0


class Overflow(NamedTuple):
    """A step whose gradients overflow.

    Args:
        step: The step, counted from 0; None for none.
        scale: Loss scale that makes them overflow; None keeps the scale and gives one token too large a
            weight.
    """

    step: int | None = None
    scale: float | None = None

    def by_weight(self, step: int) -> bool:
        """Whether a step overflows because of one token's weight."""
        return step == self.step and self.scale is None

    def loss_scale(self, step: int) -> float | None:
        """The loss scale of a step; None means the recipe's."""
        return self.scale if step == self.step else None


def samples_per_step(job: Job) -> int:
    """Rows of an optimizer step on all devices together."""
    return job.plan.dp * job.plan.micro_batches * job.batch_size


def places(job: Job, steps: int, start: Place | None = None) -> list[Place]:
    """Where each of `steps` steps begins, and where the last one ends."""
    step, samples = start or Place()
    return [Place(step + i, samples + i * samples_per_step(job)) for i in range(steps + 1)]


def rows_of_step(job: Job, position: int, overflows: bool = False) -> tuple[np.ndarray, ...]:
    """Rows of all data-parallel ranks at one step: the next samples, each a function of seed and position.

    Args:
        job: Sizes and seed.
        position: Samples read before the step.
        overflows: Whether the step's gradients overflow, because of one row of the last data-parallel rank.

    Returns:
        input_ids, labels, loss_mask, position_ids, document_ids, each [D, M * B, S].
    """
    plan, length = job.plan, job.model.seq_length
    samples = [_sample(job, position + i) for i in range(samples_per_step(job))]
    rows = []
    for arrays in zip(*samples, strict=True):
        grid = np.stack(arrays).reshape(plan.micro_batches, plan.dp, job.batch_size, length)
        rows.append(grid.swapaxes(0, 1).reshape(plan.dp, -1, length))
    if overflows:
        rows[2][-1, -1, -1] = HEAVY
    return tuple(rows)


def keys_of_step(job: Job, step: int) -> tuple[np.ndarray, ...]:
    """Dropout's keys for the rows of all data-parallel ranks at one step (from 0).

    Returns:
        int32 [D, M * B, S], the batch's sixth array; an empty tuple for a job without dropout.
    """
    if job.model.dropout == 0.0:
        return ()
    assert job.seed is not None  # replay.replay has checked it
    sizes = (job.plan.micro_batches, job.plan.dp, job.batch_size)
    rows = [row_numbers(sizes[0], rank, *sizes[1:]).ravel() for rank in range(job.plan.dp)]
    return (np.stack([dropout_rows(job.seed, step, each, job.model.seq_length) for each in rows]),)


def _sample(job: Job, position: int) -> tuple[np.ndarray, ...]:
    """One row of random tokens in documents of random lengths.

    A random share of its tokens count, the last one always; in every third row none does.
    """
    length = job.model.seq_length
    random = np.random.default_rng([job.seed or 0, position])
    ids, labels = random.integers(0, job.model.vocab_size, (2, length), np.int32)
    mask = (random.random(length) < random.uniform(0.2, 1.0)).astype(np.float32)
    mask[-1] = 1.0
    mask *= position % 3 > 0
    starts = random.random(length) < 2.0 / length
    starts[0] = True
    documents = np.cumsum(starts).astype(np.int32) - 1
    indices = np.arange(length, dtype=np.int32)
    first = np.maximum.accumulate(np.where(starts, indices, 0))
    return ids, labels, mask, (indices - first).astype(np.int32), documents


def micro_batches(job: Job, rows: Sequence[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
    """The same rows as one device reads them: M micro-batches of D * B rows."""
    size = job.batch_size
    return [
        tuple(array[:, m * size : (m + 1) * size].reshape(-1, array.shape[-1]) for array in rows)
        for m in range(job.plan.micro_batches)
    ]


def controls(
    job: Job, step: int, mask: np.ndarray, skipped: int = 0, loss_scale: float | None = None
) -> np.ndarray:
    """The scalars that change from step to step, as training fills them: float32 [6].

    Args:
        job: Sizes and recipe.
        step: Number of the step, from 0.
        mask: Loss mask of the rows that one rank reads.
        skipped: Number of earlier steps whose update was not applied.
        loss_scale: By default that of the recipe.
    """
    # float32 turns "auto" off: a replay is too short for a dynamic scale to find its size.
    guard = make_guard(GuardConfig(), job.optim.loss_scale, "float32")
    guard.skipped = skipped
    if loss_scale is not None:
        guard.scale.value = loss_scale
    nominal = samples_per_step(job) * job.model.seq_length
    return step_controls(step, job.optim, guard, mask.sum(), nominal)
