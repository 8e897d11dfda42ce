"""The collective calls of a stage of a job, from the formulas that the proof compares with graphs.

The formulas know whole networks. What a stage asks for is what its ends ask for and, for each layer, what
one layer more asks for; so networks of three stages and at most two layers a stage tell the calls of all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.planner.job import Job
from pangu_alpha.planner.shapes import Shape
from pangu_alpha.proof.traffic import Call, Demand, Formulas

_DTYPE = "float16"  # any type of 16 bits
_STAGES = 3  # a first, a last, and one between


class Kind(NamedTuple):
    """What calls are for, and what they do.

    Args:
        what: As proof.traffic.Demand.
        call: Phase, operation, axis, type and payload.
    """

    what: str
    call: Call


Calls = Mapping[Kind, int]  # how many of each kind in a step


class _Grid(NamedTuple):
    """All that the calls of a stage depend on besides its layers."""

    shape: Shape
    micro_batch: int
    dp: int
    tp: int
    stages: int
    micro_batches: int
    sharding: str
    threshold: int
    sequence_parallel: bool
    vocab_parallel: bool

    @classmethod
    def of(cls, job: Job, micro_batch: int, sequence_parallel: bool) -> _Grid:
        """What a job's calls depend on; more than three stages are no other stages."""
        return cls(
            job.shape,
            micro_batch,
            job.dp,
            job.tp,
            min(job.pp, _STAGES),
            job.micro_batches,
            job.sharding,
            job.optimizer_threshold,
            sequence_parallel,
            job.vocab_parallel,
        )

    def formulas(self, stage: int, layers: int, mode: str) -> Formulas:
        """Those of a stage of so many layers, the other stages having one."""
        shares = tuple(layers if each == stage else 1 for each in range(self.stages))
        shape = self.shape
        network = ModelConfig(
            shape.vocab, shape.hidden, sum(shares), shape.heads, shape.seq, dropout=shape.dropout
        )
        plan = ParallelPlan(
            dp=self.dp,
            tp=self.tp,
            pp=self.stages,
            micro_batches=self.micro_batches,
            layers_per_stage=shares,
            optimizer_parallel=self.sharding,
            optimizer_threshold=self.threshold,
            recompute=mode,
            sequence_parallel=self.sequence_parallel,
            vocab_parallel=self.vocab_parallel,
        )
        return Formulas(network, plan, self.micro_batch, _DTYPE, stage)


def describes(job: Job) -> bool:
    """Whether the formulas know jobs of this kind: the network's shape, its sharding, its schedule."""
    shape = job.shape
    known = shape.biased and shape.tied and not shape.gated and shape.ffn == 4 * shape.hidden
    heads = shape.kv_heads == shape.heads and shape.head_size * shape.heads == shape.hidden
    return known and heads and job.chunks == 1 and job.sharding != "optimizer"


def passes(job: Job, first: bool, last: bool, counts: Mapping[str, int]) -> Calls:
    """Calls of the micro-batches and of their passes through a stage.

    Args:
        job: One that is described; its own layers and recompute do not matter.
        first: Whether the stage embeds the tokens.
        last: Whether it has logits and loss.
        counts: Its layers by recompute mode.
    """
    grid = _Grid.of(job, job.micro_batch, job.sequence_parallel)
    return _of_stage(grid, Formulas.passes, first, last, counts)


def passes_of_layer(job: Job, mode: str) -> Calls:
    """What a layer of a recompute mode adds to `passes`."""
    grid = _Grid.of(job, job.micro_batch, job.sequence_parallel)
    return _of_layer(grid, Formulas.passes, mode)


def updates(job: Job, first: bool, last: bool, counts: Mapping[str, int]) -> Calls:
    """Calls for weights, gradients and the update, whatever the rows are; arguments as of `passes`."""
    return _of_stage(_Grid.of(job, 1, False), Formulas.updates, first, last, counts)


def _of_stage(
    grid: _Grid,
    which: Callable[[Formulas], list[Demand]],
    first: bool,
    last: bool,
    counts: Mapping[str, int],
) -> Calls:
    stage = 0 if first else grid.stages - 1 if last else 1
    found = Counter(_asked(grid, which, stage, 1, "none"))
    found.subtract(_of_layer(grid, which, "none"))
    for mode, layers in counts.items():
        for kind, times in _of_layer(grid, which, mode).items():
            found[kind] += layers * times
    return {kind: times for kind, times in found.items() if times}


@lru_cache(1 << 14)
def _of_layer(grid: _Grid, which: Callable[[Formulas], list[Demand]], mode: str) -> Calls:
    """What a layer more asks for."""
    found = Counter(_asked(grid, which, 0, 2, mode))
    found.subtract(_asked(grid, which, 0, 1, mode))
    return {kind: times for kind, times in found.items() if times}


@lru_cache(1 << 14)
def _asked(
    grid: _Grid, which: Callable[[Formulas], list[Demand]], stage: int, layers: int, mode: str
) -> Calls:
    found: Counter[Kind] = Counter()
    for demand in which(grid.formulas(stage, layers, mode)):
        found[Kind(demand.what, demand.call)] += demand.times
    return found
