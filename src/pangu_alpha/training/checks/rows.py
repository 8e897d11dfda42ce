"""Checks before the first step that each rank reads the right rows, by comparing one number for each rank.

Ranks with the same data coordinate must read the same rows. Ranks with different ones must read different
rows, unless the corpus is so small that a step contains a window twice.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Sequence

import numpy as np

from pangu_alpha.cluster.tables.problem import ranges
from pangu_alpha.cluster.world_check import RanksDifferError
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.data.batches import Batch, TrainingBatches
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.world import World
from pangu_alpha.training.schedule import row_numbers

logger = logging.getLogger(__name__)


def digest_of(micro_batches: Sequence[Batch]) -> int:
    """An int64 that is equal only for the same rows in the same order."""
    digest = hashlib.sha256()
    for array in itertools.chain.from_iterable(batch.fields.values() for batch in micro_batches):
        digest.update(np.ascontiguousarray(array).data)
    return int.from_bytes(digest.digest()[:8], "little", signed=True)


def samples_of(plan: ParallelPlan, batch_size: int, position: int, data: int) -> np.ndarray:
    """The samples that a data coordinate reads in the step at `position`, int64 [M * B]."""
    return position + row_numbers(plan.micro_batches, data, plan.dp, batch_size).ravel()


def check_rows(
    world: World, plan: ParallelPlan, batches: TrainingBatches, position: int, own: Sequence[Batch]
) -> None:
    """Compares the rows of all ranks; every rank must call it in the same step.

    Args:
        world: All ranks.
        batches: The stream that the rows were read from.
        position: Number of samples read before the step.
        own: The micro-batches that this rank is about to use.

    Raises:
        RanksDifferError: Some rank has the wrong rows.
    """
    if world.size == 1:
        return
    mesh = Mesh.of(plan)
    places = [mesh.coordinates(rank).data for rank in range(world.size)]
    digests = world.gather(np.array(digest_of(own), np.int64)).tolist()
    for rank, place in enumerate(places):
        first = places.index(place)
        if digests[rank] != digests[first]:
            raise RanksDifferError(
                f"data: ranks {first} and {rank} share data coordinate {place}, so they must read the same "
                "rows, but their rows differ; make sure that both nodes hold the same records, whole"
            )
    if len(set(digests)) < plan.dp:
        _check_equal_rows(world, plan, batches, position, own)


def _check_equal_rows(
    world: World, plan: ParallelPlan, batches: TrainingBatches, position: int, own: Sequence[Batch]
) -> None:
    """Checks equal rows of several data coordinates: they are correct if each has its own samples' rows."""
    place = Mesh.of(plan).coordinates(world.rank).data
    samples = samples_of(plan, len(own[0]), position, place)
    expected = batches.rows(samples)
    wrong = digest_of([expected]) != digest_of([Batch.joined(own)])
    ranks = np.flatnonzero(world.gather(np.array(wrong, np.int64))).tolist()
    if ranks:
        raise RanksDifferError(
            f"data: rank{'s' * (len(ranks) > 1)} {ranges(ranks)} read rows that are those of another data "
            "coordinate, so some samples are trained on twice and others never; this is a fault of the "
            "program: please report it"
        )
    logger.info("data: several data coordinates read equal rows in this step: the corpus holds them twice")
