"""Batches on which a plan is compared with one device: every device counts another number of tokens.

Letters: D data-parallel ranks, M micro-batches, B rows of one of them on a rank, S sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pangu_alpha.proof.dry_run import Job
from pangu_alpha.training.schedule import update_scalars

LARGEST = 1e30  # norm above which a step is skipped: only overflows are
HEAVY = 1e30  # weight of a token that makes the squares of its gradients overflow in float32


def rows_of_step(job: Job, step: int, overflow: int | None = None) -> tuple[np.ndarray, ...]:
    """Rows of all data-parallel ranks at one step.

    Random tokens in documents of random lengths; each row counts a random share of its tokens, one row none.

    Args:
        job: Sizes and seed.
        step: From 0.
        overflow: Step whose gradients overflow, by one row of the last data-parallel rank alone.

    Returns:
        input_ids, labels, loss_mask, position_ids, document_ids, each [D, M * B, S].
    """
    plan, length = job.plan, job.model.seq_length
    random = np.random.default_rng([job.seed or 0, step])
    shape = (plan.dp, plan.micro_batches * job.batch_size, length)
    ids = random.integers(0, job.model.vocab_size, shape, np.int32)
    labels = random.integers(0, job.model.vocab_size, shape, np.int32)
    mask = (random.random(shape) < random.uniform(0.2, 1.0, (*shape[:2], 1))).astype(np.float32)
    mask[0, 0] = 0.0
    mask[-1, -1, -1] = 1.0
    if step == overflow:
        mask[-1, -1, -1] = HEAVY
    starts = random.random(shape) < 2.0 / length
    starts[..., 0] = True
    documents = np.cumsum(starts, -1).astype(np.int32) - 1
    places = np.arange(length, dtype=np.int32)
    first = np.maximum.accumulate(np.where(starts, places, 0), -1)
    return ids, labels, mask, (places - first).astype(np.int32), documents


def micro_batches(job: Job, rows: Sequence[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
    """The same rows as one device reads them: M micro-batches of D * B rows."""
    size = job.batch_size
    return [
        tuple(array[:, m * size : (m + 1) * size].reshape(-1, array.shape[-1]) for array in rows)
        for m in range(job.plan.micro_batches)
    ]


def controls(job: Job, step: int, mask: np.ndarray) -> np.ndarray:
    """What changes from step to step besides the batch, as PartitionedStep takes it: float32 [6].

    Args:
        job: Sizes and recipe.
        step: From 0.
        mask: Loss mask of the rows that one rank, or one device alone, reads.
    """
    rows = job.plan.dp * job.plan.micro_batches * job.batch_size
    scale = 1.0 / (rows * job.model.seq_length)  # as training does: the step's nominal number of tokens
    scalars = update_scalars(step, job.optim)
    recipe = (scalars.learning_rate, scalars.epsilon, scalars.decay)
    return np.array([mask.sum(), scale, LARGEST, *recipe], np.float32)
