"""Checks that ranks with copies of a weight or moment still hold the same bits.

When a copy drifts (a mask is drawn anew, a sum is left out, a chip computes wrongly), every later step
belongs to no network, and the loss need not show it. The last stage's copy of the tied table is not compared,
because it is sent there anew in every step.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from pangu_alpha.checkpoint.naming import MOMENTS, parameter_of
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.parallel.layout import Layout, layouts
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.world import World
from pangu_alpha.training.guard import TrainingHaltedError

logger = logging.getLogger(__name__)

_FINE = (-1, 0, 0, 0)  # what a rank reports if it finds no difference


class Holder(Protocol):
    """Holds a rank's tensors, like training.engine.Engine."""

    def values(self, names: Iterable[str]) -> Iterator[np.ndarray]:
        """Yields the arrays of these names."""


class ReplicasDifferError(TrainingHaltedError):
    """Stops the run: ranks that hold copies of a tensor hold different bits."""


class ReplicaCheck:
    """Compares the copies in one run, as seen by one of its ranks.

    Args:
        world: All ranks of the run.
        partitioned: Whether each rank holds slices by the plan; otherwise every rank holds everything.
        frozen: Names of the parameters that are not trained and therefore have no moments.
    """

    def __init__(
        self, config: TrainConfig, world: World, partitioned: bool, frozen: Collection[str] = ()
    ) -> None:
        self._every = config.run.check_replicas_every if world.size > 1 else 0
        self._steps = config.run.steps
        self._world = world
        plan = config.parallel if partitioned else ParallelPlan(dp=world.size)
        placed = layouts(config.model, plan)
        self._copied = copied_tensors(placed, plan, frozen)
        self._stage = Mesh.of(plan).stage_of(world.rank)
        self._names = self._copied[self._stage]
        own = {name: placed[parameter_of(name)] for name in self._names}
        # Layers repeat a few layouts, so groups are made once for each layout: doing it for every name would
        # take 18 s for 13 billion parameters on 2,048 ranks.
        groups = {layout: holders(layout, plan, self._stage) for layout in set(own.values())}
        self._groups = {name: groups[layout] for name, layout in own.items()}
        self._width = max(map(len, self._copied))
        self._every *= self._width > 0
        self._first = True

    def after_step(self, step: int, engine: Holder, applied: bool = True) -> None:
        """Compares after the first update since the start, then every so many steps, and after the last step.

        Args:
            step: Number of steps done.
            engine: Holds this rank's tensors.
            applied: Whether the step changed them.

        Raises:
            ReplicasDifferError: Copies differ; it is raised on all ranks alike.
        """
        first = self._first and applied
        self._first = self._first and not applied
        if self._every and (first or step % self._every == 0 or step == self._steps):
            self.compare(step, engine)

    def compare(self, step: int, engine: Holder) -> None:
        """Compares now; see `after_step`."""
        began = time.perf_counter()
        sums = np.zeros(self._width, np.uint32)
        for place, array in enumerate(engine.values(self._names)):
            sums[place] = zlib.crc32(np.ascontiguousarray(array).data)
        told = self._world.gather(np.array(self._difference(self._world.gather(sums)), np.int64))
        seen = np.flatnonzero(told[:, 0] >= 0).tolist()
        if not seen:
            seconds = time.perf_counter() - began
            logger.info("step %d: copies on several ranks are equal (%.2f s)", step, seconds)
            return
        place, rank, usual, number = told[seen[0]].tolist()
        name = self._copied[self._stage_of(seen[0])][place]
        more = f" ({number} tensors of this stage in all)" if number > 1 else ""
        raise ReplicasDifferError(
            f"step {step}: {name}{more}: rank {rank} no longer holds the same bits as rank {usual}, though "
            "both hold copies of it; this step is not saved; look at that rank's log and device, and go on "
            "from the last checkpoint; run.check_replicas_every=0 leaves the comparison out"
        )

    def _stage_of(self, rank: int) -> int:
        return rank // (self._world.size // len(self._copied))

    def _difference(self, sums: np.ndarray) -> Sequence[int]:
        """The first tensor of this stage whose copies differ: its index, two ranks, and the number of such.

        Args:
            sums: Checksums of all ranks, [ranks, tensors].
        """
        found = []
        for place, name in enumerate(self._names):
            for ranks in self._groups[name]:
                values = [int(sums[rank, place]) for rank in ranks]
                usual = Counter(values).most_common(1)[0][0]  # in a tie, the first rank's value
                others = [rank for rank, value in zip(ranks, values, strict=True) if value != usual]
                if others:
                    found.append((place, others[0], ranks[values.index(usual)]))
        if not found:
            return _FINE
        return (*found[0], len({place for place, *_ in found}))


def copied_tensors(
    placed: Mapping[str, Layout], plan: ParallelPlan, frozen: Collection[str] = ()
) -> list[list[str]]:
    """For every stage, the names of the weights and moments that several of its ranks hold."""
    names: list[list[str]] = [[] for _ in range(plan.pp)]
    for name, layout in placed.items():
        if layout.share(plan) < 1.0:
            moments = () if name in frozen else MOMENTS
            names[layout.stage] += [name, *(moment + name for moment in moments)]
    return names


def holders(layout: Layout, plan: ParallelPlan, stage: int) -> list[tuple[int, ...]]:
    """For every slice of a tensor, the ranks of a stage that hold it."""
    groups = defaultdict(list)
    for rank in Mesh.of(plan).stage_ranks(stage):
        groups[layout.start(plan, rank)].append(rank)
    return [tuple(ranks) for ranks in groups.values()]
