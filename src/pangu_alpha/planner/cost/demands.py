"""The collective calls of a job's stage, from the same formulas that the proof compares with compiled graphs.

The formulas know whole networks only. A stage's calls are those of its ends plus, for each layer, those that
one more layer adds; networks of at most three stages with at most two layers each are therefore enough to
derive the calls of every network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.planner.cost.job import Job, Sharding
from pangu_alpha.planner.cost.shapes import Shape
from pangu_alpha.proof.checks.traffic import Call, Demand, Formulas

_DTYPE = "float16"  # any type of 16 bits
_STAGES = 3  # a first, a last, and one between


class Kind(NamedTuple):
    """The purpose of a call and the call itself.

    Args:
        what: Purpose, as in proof.checks.traffic.Demand.
        call: Phase, operation, axis, type and payload.
    """

    what: str
    call: Call


Calls = Mapping[Kind, int]  # number of calls of each kind in a step


class _Grid(NamedTuple):
    """Everything besides its layers that the calls of a stage depend on."""

    shape: Shape
    micro_batch: int
    dp: int
    tp: int
    stages: int
    micro_batches: int
    sharding: Sharding
    threshold: int
    sequence_parallel: bool
    vocab_parallel: bool
    saturates: bool

    @classmethod
    def of(cls, job: Job, saturates: bool) -> _Grid:
        """Extracts what a job's calls depend on; all middle stages of a pipeline are alike."""
        return cls(
            job.shape,
            job.micro_batch,
            job.dp,
            job.tp,
            min(job.pp, _STAGES),
            job.micro_batches,
            job.sharding,
            job.optimizer_threshold,
            job.sequence_parallel,
            job.vocab_parallel,
            saturates,
        )

    def formulas(self, stage: int, layers: int, mode: str) -> Formulas:
        """The formulas of a stage with `layers` layers, where every other stage has one."""
        sharding = self.sharding
        assert sharding != "optimizer"  # see `describes`
        shares = tuple(layers if each == stage else 1 for each in range(self.stages))
        plan = ParallelPlan(
            dp=self.dp,
            tp=self.tp,
            pp=self.stages,
            micro_batches=self.micro_batches,
            layers_per_stage=shares,
            optimizer_parallel=sharding,
            optimizer_threshold=self.threshold,
            recompute=mode,
            sequence_parallel=self.sequence_parallel,
            vocab_parallel=self.vocab_parallel,
        )
        network = _network(self.shape, sum(shares))
        return Formulas(network, plan, self.micro_batch, _DTYPE, stage, self.saturates)


def describes(job: Job) -> bool:
    """Whether the formulas cover a job: its network's shape, its sharding and its schedule."""
    shape = job.shape
    known = shape.biased and shape.tied and not shape.gated and shape.ffn == 4 * shape.hidden
    heads = shape.kv_heads == shape.heads and shape.head_size * shape.heads == shape.hidden
    return known and heads and job.chunks == 1 and job.sharding != "optimizer"


class Demands:
    """The calls of any stage of a job: those of the stage's ends and those of each of its layers.

    Args:
        job: A job for which `describes` is true; its own layers and recompute do not matter.
        saturates: Whether overflow is detected by the chip's float status, as in proof.checks.traffic.
    """

    def __init__(self, job: Job, saturates: bool = False) -> None:
        grid = _Grid.of(job, saturates)
        # Passes do not depend on how the optimizer is sharded, nor updates on the rows of activations; fixed
        # values let more jobs share the cache.
        self._passes = grid._replace(sharding="none", threshold=0)
        self._updates = grid._replace(micro_batch=1, sequence_parallel=False)

    def passes(self, first: bool, last: bool) -> Calls:
        """Calls of the micro-batches' passes through a stage's ends, without its layers.

        Args:
            first: Whether the stage embeds the tokens.
            last: Whether the stage computes logits and loss.
        """
        return _of_ends(self._passes, Formulas.passes, first, last)

    def passes_of_layer(self, mode: str) -> Calls:
        """Calls that one layer of a recompute mode adds to `passes`."""
        return _of_layer(self._passes, Formulas.passes, mode)

    def updates(self, first: bool, last: bool) -> Calls:
        """Calls for the weights, the gradients and the update of a stage's ends; arguments as in `passes`."""
        return _of_ends(self._updates, Formulas.updates, first, last)

    def updates_of_layer(self, mode: str) -> Calls:
        """Calls that one layer of a recompute mode adds to `updates`."""
        return _of_layer(self._updates, Formulas.updates, mode)

    def of_stage(self, first: bool, last: bool, counts: Mapping[str, int]) -> Calls:
        """All calls of a stage.

        Args:
            first: Whether the stage embeds the tokens.
            last: Whether the stage computes logits and loss.
            counts: Number of its layers by recompute mode.
        """
        found = Counter(self.passes(first, last))
        found.update(self.updates(first, last))
        for mode, layers in counts.items():
            for calls in (self.passes_of_layer(mode), self.updates_of_layer(mode)):
                found.update({kind: layers * times for kind, times in calls.items()})
        return {kind: times for kind, times in found.items() if times}


@lru_cache(1 << 8)
def _network(shape: Shape, layers: int) -> ModelConfig:
    return ModelConfig(shape.vocab, shape.hidden, layers, shape.heads, shape.seq, dropout=shape.dropout)


@lru_cache(1 << 14)
def _of_ends(grid: _Grid, which: Callable[[Formulas], list[Demand]], first: bool, last: bool) -> Calls:
    """The calls of a stage as if it had no layers.

    With two stages there is no middle stage; its calls are taken to be those that both stages have in common.
    """
    if grid.stages == 2 and not (first or last):
        one, other = (_of_ends(grid, which, end, not end) for end in (True, False))
        return {kind: min(times, other[kind]) for kind, times in one.items() if kind in other}
    stage = 0 if first else grid.stages - 1 if last else 1
    return _difference(_asked(grid, which, stage, 1, "none"), _of_layer(grid, which, "none"))


@lru_cache(1 << 14)
def _of_layer(grid: _Grid, which: Callable[[Formulas], list[Demand]], mode: str) -> Calls:
    """The calls that one more layer adds."""
    return _difference(_asked(grid, which, 0, 2, mode), _asked(grid, which, 0, 1, mode))


def _difference(more: Calls, less: Calls) -> Calls:
    # Keep the order of the calls: their seconds are summed in this order, and a set's order varies between
    # runs, which would change the last digit of the sum.
    found = {kind: more.get(kind, 0) - less.get(kind, 0) for kind in {**more, **less}}
    return {kind: times for kind, times in found.items() if times}


@lru_cache(1 << 14)
def _asked(
    grid: _Grid, which: Callable[[Formulas], list[Demand]], stage: int, layers: int, mode: str
) -> Calls:
    found: Counter[Kind] = Counter()
    for demand in which(grid.formulas(stage, layers, mode)):
        found[Kind(demand.what, demand.call)] += demand.times
    return found
