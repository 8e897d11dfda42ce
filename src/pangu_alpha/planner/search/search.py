"""Searches for the fastest plans of a model on a cluster by branch and bound over grids.

A grid is dp, tp, pp and micro-batches. On each grid, all optimizer levels, sequence parallelism, placements,
and the layers and recompute of every stage are tried unless a bound shows that they cannot be among the best.
Two options are left out because in the cost model they never win: GPipe (as slow as 1F1B, with more memory)
and logits that are not split.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from pangu_alpha.config.families import unsupported
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import RECOMPUTE, OptimizerParallel, ParallelPlan, misfits, unpartitionable
from pangu_alpha.files.shown import quoted
from pangu_alpha.parallel.mesh import RANK_ORDER
from pangu_alpha.planner.cost.cost import CostModel
from pangu_alpha.planner.cost.hardware import Cluster, Stack
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.cost.memory import memory
from pangu_alpha.planner.cost.shapes import Shape
from pangu_alpha.planner.cost.software import software_of
from pangu_alpha.planner.search.placing import launchable
from pangu_alpha.planner.search.stages import Pipeline, Stages

_MOST_SEQUENCES = 10**9  # in a step; finding the divisors of much larger numbers takes too long

LEVELS: tuple[OptimizerParallel, ...] = ("none", "level1", "level2", "level3")
FREE = ("dp", "tp", "pp", "micro_batches", "optimizer_parallel", "sequence_parallel", "recompute", "order")


@dataclass(frozen=True)
class Question:
    """What to search for.

    Args:
        cluster: The cluster; all of its devices are used.
        batch: Sequences of an optimizer step, over all devices.
        fixed: Values that the search must not change, by their name in FREE. They have the form of
            ParallelPlan's fields; "order" that of Job.order.
        capacity: Bytes of a device that may be used; None means all of its memory.

    Raises:
        ValueError: If a fixed value, the batch or the model on this device is not possible.
    """

    model: ModelConfig
    cluster: Cluster
    stack: Stack
    batch: int
    fixed: Mapping[str, Any] = field(default_factory=dict)
    capacity: float | None = None

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.fixed) - set(FREE)):
            raise ValueError(f"fixed: {', '.join(unknown)} cannot be fixed; {', '.join(FREE)} can")
        for name, value in self.fixed.items():
            if (rule := _broken(name, value)) is not None:
                raise ValueError(f"fixed: {name}: {quoted(value)} must {rule}")
        family = self.cluster.device.family
        if family and (problem := unsupported(self.model, family)):
            raise ValueError(problem)
        if not 1 <= self.batch <= _MOST_SEQUENCES:
            bounds = f"at least 1 and at most {_MOST_SEQUENCES:,}"
            raise ValueError(f"batch: {self.batch} sequences; give {bounds}")

    @cached_property
    def shape(self) -> Shape:
        """The network's shape."""
        return Shape.of(self.model)

    @cached_property
    def software(self) -> Stack:
        """The stack with its attention decided for the model and the device."""
        return software_of(self.stack, self.model, self.cluster.device.family)

    @property
    def limit(self) -> float:
        """Bytes of a device that may be used."""
        return self.cluster.device.memory if self.capacity is None else self.capacity


def _broken(name: str, value: Any) -> str | None:
    """The rule that a value for a name in FREE breaks; None if it breaks none."""
    words = {"optimizer_parallel": LEVELS, "recompute": RECOMPUTE, "sequence_parallel": (True, False)}
    if name == "order":
        right = isinstance(value, tuple) and sorted(map(str, value)) == sorted(RANK_ORDER)
        return None if right else "name tp, dp and pp once each"
    if name in words:
        right = any(value is word or (value == word and isinstance(value, str)) for word in words[name])
        return None if right else f"be one of {', '.join(str(word).lower() for word in words[name])}"
    return None if type(value) is int and value >= 1 else "be a whole number of at least 1"


class Grid(NamedTuple):
    """The degrees, and how the sequences of a replica are cut into micro-batches.

    Args:
        micro_batches: Micro-batches of a step on each replica.
        micro_batch: Sequences of one micro-batch.
    """

    dp: int
    tp: int
    pp: int
    micro_batches: int
    micro_batch: int


@dataclass(frozen=True)
class Candidate:
    """A plan with its cost.

    Args:
        plan: The plan, as train.py takes it.
        job: The plan for the cost model, with micro-batch and placement.
        seconds: Seconds of a step.
        memory: Bytes on the fullest device.
    """

    plan: ParallelPlan
    job: Job
    seconds: float
    memory: int

    @property
    def grid(self) -> Grid:
        """The plan's grid."""
        job = self.job
        return Grid(job.dp, job.tp, job.pp, job.micro_batches, job.micro_batch)


@dataclass(frozen=True)
class Answer:
    """The result of a search.

    Args:
        best: The best plan of each of the best grids, the fastest first.
        least: Seconds that no plan can undercut in the cost model; equal to the best plan's seconds where
            that is proven best.
        grids: Number of possible grids.
        searched: Number of grids that bounds did not rule out.
        unfit: Number of searched grids on which no plan fits into memory and within the bound.
        seconds: Seconds that the search took.
    """

    question: Question
    best: tuple[Candidate, ...]
    least: float
    grids: int
    searched: int
    unfit: int
    seconds: float


def search(
    question: Question,
    top: int = 5,
    within: float = math.inf,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Answer:
    """Finds the best plans.

    Args:
        top: Number of grids wanted.
        within: Seconds of a step above which no plan is of interest.
        progress: Wraps the iteration over grids, for a progress bar.

    Returns:
        At most `top` plans; none if none fits (see planner.search.closest_questions).
    """
    began = time.perf_counter()
    model = CostModel(question.cluster, question.software)
    ordered = sorted((_least(question, model, grid), grid) for grid in grids(question))
    best: list[tuple[float, int, Candidate]] = []  # a heap whose first is the slowest
    least, searched, unfit = math.inf, 0, 0
    for bound, grid in progress(ordered):
        slowest = -best[0][0] if len(best) == top else within
        if bound > slowest:
            break
        searched += 1
        found, lowest = _best_of(question, model, grid, slowest)
        least = min(least, lowest)
        if found is None:
            unfit += 1
            continue
        heapq.heappush(best, (-found.seconds, searched, found))
        if len(best) > top:
            heapq.heappop(best)
    ranked = tuple(found for *_, found in sorted(best, reverse=True))
    least = min(least, ranked[0].seconds) if ranked else math.inf
    return Answer(question, ranked, least, len(ordered), searched, unfit, time.perf_counter() - began)


def grids(question: Question) -> Iterator[Grid]:
    """Yields all grids that use all devices and whose degrees divide the heads and the batch."""
    model, count = question.model, question.cluster.count
    given = question.fixed.get
    for tp in _divisors(math.gcd(count, model.num_heads)):
        for pp in _divisors(count // tp):
            dp = count // (tp * pp)
            if pp > model.num_layers or question.batch % dp:
                continue
            for micro_batches in _divisors(question.batch // dp):
                grid = Grid(dp, tp, pp, micro_batches, question.batch // dp // micro_batches)
                names = zip(("dp", "tp", "pp", "micro_batches"), grid, strict=False)
                if micro_batches >= pp and all(given(name, value) == value for name, value in names):
                    yield grid


def judge(question: Question, plan: ParallelPlan, order: tuple[str, ...] = RANK_ORDER) -> Candidate:
    """Computes the cost of a given plan, whether it fits into memory or not.

    Raises:
        ValueError: If the plan does not suit the model, the cluster or the batch.
    """
    if problems := [*misfits(plan, question.model), *unpartitionable(plan)]:
        raise ValueError("\n".join(problems))
    job = Job.of(question.shape, plan, question.batch, order)
    seconds = CostModel(question.cluster, question.software).estimate(job).step
    return Candidate(plan, job, seconds, peak(job, question))


def peak(job: Job, question: Question) -> int:
    """Bytes on the fullest device."""
    return max(part.total for part in memory(job, question.cluster.device, question.software))


def _divisors(number: int) -> list[int]:
    small = [i for i in range(1, math.isqrt(number) + 1) if number % i == 0]
    return sorted({*small, *(number // i for i in small)})


def _job(
    question: Question, grid: Grid, level: OptimizerParallel, sequence: bool, order: tuple[str, ...]
) -> Job:
    return Job(
        question.shape,
        micro_batch=grid.micro_batch,
        dp=grid.dp,
        tp=grid.tp,
        pp=grid.pp,
        micro_batches=grid.micro_batches,
        sharding=level,
        sequence_parallel=sequence,
        order=order,
    )


def _least(question: Question, model: CostModel, grid: Grid) -> float:
    """Seconds that no plan on a grid can undercut: those with nothing sharded and with free gradients."""
    ways = itertools.product(_sequences(question, grid), _orders(question, grid))
    seconds = (
        Pipeline(model, _job(question, grid, "none", sequence, order)).least(once=False)
        for sequence, order in ways
    )
    return min(seconds, default=math.inf)  # infinite where the fixed values are impossible on this grid


def _sequences(question: Question, grid: Grid) -> list[bool]:
    possible = [False, True] if grid.tp > 1 and question.model.seq_length % grid.tp == 0 else [False]
    return [value for value in possible if question.fixed.get("sequence_parallel", value) == value]


def _orders(question: Question, grid: Grid) -> list[tuple[str, ...]]:
    """Distinct placements that can be launched; an axis with one device has no place."""
    given = question.fixed.get("order")
    orders: dict[tuple[str, ...], tuple[str, ...]] = {}
    for order in itertools.permutations(RANK_ORDER) if given is None else [given]:
        orders.setdefault(tuple(axis for axis in order if getattr(grid, axis) > 1), order)
    return [order for order in orders.values() if launchable(grid, order, question.cluster)]


def _modes(question: Question, grid: Grid, level: str) -> tuple[str, ...]:
    """Recompute modes that the question allows and that MindSpore compiles under an optimizer level.

    MindSpore 2.9's compiler ends on level3 with micro-batches and full recompute; see unpartitionable.
    """
    given = question.fixed.get("recompute")
    modes = ("none", "selective", "full") if given is None else (given,)
    if level == "level3" and grid.micro_batches > 1:
        return tuple(mode for mode in modes if mode != "full")
    return modes


def _best_of(
    question: Question, model: CostModel, grid: Grid, bound: float
) -> tuple[Candidate | None, float]:
    """The best plan on a grid within a bound (or None), and seconds that no plan on the grid can undercut."""
    levels = [level for level in LEVELS if question.fixed.get("optimizer_parallel", level) == level]
    if grid.dp == 1:
        levels = [level for level in levels if level == LEVELS[0]]
    if grid.pp > 1:  # MindSpore 2.9's compiler ends on the first stage under level3; see unpartitionable
        levels = [level for level in levels if level != "level3"]
    ways: list[tuple[float, int, Pipeline]] = []
    for level, sequence, order in itertools.product(
        levels, _sequences(question, grid), _orders(question, grid)
    ):
        modes = _modes(question, grid, level)
        if modes:
            job = _job(question, grid, level, sequence, order)
            pipeline = Pipeline(model, job, question.limit, modes)
            ways.append((pipeline.least(), len(ways), pipeline))
    best, least = None, math.inf
    for lowest, _, pipeline in sorted(ways):
        if lowest > bound:
            break
        stages = pipeline.best(bound)
        if stages is not None:
            least = min(least, stages.least)
            if best is None or stages.seconds < bound:
                best, bound = (pipeline.job, stages), min(bound, stages.seconds)
    return (None, least) if best is None else (_candidate(*best), least)


def _candidate(job: Job, stages: Stages) -> Candidate:
    words = [mode for counts in stages.counts for mode in _in_turn(counts)]
    recompute = words[0] if len(set(words)) == 1 else tuple(words)
    even = stages.layers == job.layers
    layers = () if even else stages.layers
    assert job.sharding != "optimizer"  # none of LEVELS
    plan = ParallelPlan(
        dp=job.dp,
        tp=job.tp,
        pp=job.pp,
        micro_batches=job.micro_batches,
        layers_per_stage=layers,
        optimizer_parallel=job.sharding,
        recompute=recompute,
        sequence_parallel=job.sequence_parallel,
    )
    full = dataclasses.replace(job, stage_layers=layers, recompute=recompute)
    return Candidate(plan, full, stages.seconds, stages.memory)


def _in_turn(counts: Mapping[str, int]) -> Iterator[str]:
    """Yields a stage's recompute modes layer by layer; the layers that recompute most come first."""
    for mode in ("full", "selective", "none"):
        yield from [mode] * counts.get(mode, 0)
