"""Whether the ranks that hold copies of a weight or moment still hold the same bits.

A copy that drifts (its mask drawn anew, a sum left out, a chip that computes wrongly) makes every later step
that of no network, and the loss need not show it. The last stage's copy of the tied table is not compared:
it is sent to it anew in every step.
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

_FINE = (-1, 0, 0, 0)  # what a rank tells that sees no difference


class Holder(Protocol):
    """What holds a rank's tensors, as training.engine.Engine."""

    def values(self, names: Iterable[str]) -> Iterator[np.ndarray]:
        """The arrays of these names."""


class ReplicasDifferError(TrainingHaltedError):
    """The run stopped itself: ranks that hold copies of a tensor hold different bits."""


class ReplicaCheck:
    """Compares the copies of one run as one of its ranks sees them.

    Args:
        config: The run.
        world: All its ranks.
        partitioned: Whether each rank holds slices by the plan; else all hold all.
        frozen: Names of the parameters that are not trained, so that they have no moments.
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
        # layers repeat a few layouts; by name, 13 billion parameters on 2,048 ranks take 18 s
        groups = {layout: holders(layout, plan, self._stage) for layout in set(own.values())}
        self._groups = {name: groups[layout] for name, layout in own.items()}
        self._width = max(map(len, self._copied))
        self._every *= self._width > 0
        self._first = True

    def after_step(self, step: int, engine: Holder, applied: bool = True) -> None:
        """Compares if it is time: after the first update since the start, every so many steps, and the last.

        Args:
            step: Steps done.
            engine: Holds this rank's tensors.
            applied: Whether the step changed them.

        Raises:
            ReplicasDifferError: Copies differ; on all ranks alike.
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
        """The first tensor of this stage whose copies differ: its place, two ranks, how many such there are.

        Args:
            sums: Of all ranks, [ranks, tensors].
        """
        found = []
        for place, name in enumerate(self._names):
            for ranks in self._groups[name]:
                values = [int(sums[rank, place]) for rank in ranks]
                usual = Counter(values).most_common(1)[0][0]  # of as many each, the first rank's
                others = [rank for rank, value in zip(ranks, values, strict=True) if value != usual]
                if others:
                    found.append((place, others[0], ranks[values.index(usual)]))
        if not found:
            return _FINE
        return (*found[0], len({place for place, *_ in found}))


def copied_tensors(
    placed: Mapping[str, Layout], plan: ParallelPlan, frozen: Collection[str] = ()
) -> list[list[str]]:
    """Names of the weights and moments that several ranks of a stage hold, for every stage."""
    names: list[list[str]] = [[] for _ in range(plan.pp)]
    for name, layout in placed.items():
        if layout.share(plan) < 1.0:
            moments = () if name in frozen else MOMENTS
            names[layout.stage] += [name, *(moment + name for moment in moments)]
    return names


def holders(layout: Layout, plan: ParallelPlan, stage: int) -> list[tuple[int, ...]]:
    """The ranks of a stage that hold the same slice of a tensor, for every slice."""
    groups = defaultdict(list)
    for rank in Mesh.of(plan).stage_ranks(stage):
        groups[layout.start(plan, rank)].append(rank)
    return [tuple(ranks) for ranks in groups.values()]
