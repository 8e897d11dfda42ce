"""One way to train one shape: the degrees, batch, recompute and schedule that the cost models need.

A Job can also describe what MindSpore cannot run, such as interleaved schedules (ParallelPlan cannot), so
that the models can be compared with measurements of other software.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pangu_alpha.config.parallel import RECOMPUTE, ParallelPlan
from pangu_alpha.config.schema import validate
from pangu_alpha.parallel.mesh import RANK_ORDER
from pangu_alpha.planner.cost.shapes import Shape

Sharding = Literal["none", "optimizer", "level1", "level2", "level3"]


@dataclass(frozen=True)
class Job:
    """A transformer shape, how it is spread over devices, and how much of it a step computes.

    Args:
        micro_batch: Sequences of a micro-batch on a data parallel rank.
        schedule: "1f1b" (interleaved if `chunks` > 1) or "gpipe".
        chunks: Parts into which an interleaved schedule cuts each stage.
        stage_layers: Layers of each stage; empty spreads them evenly, with the larger stages first.
        sharding: What is sharded over dp, as ParallelPlan.optimizer_parallel; "optimizer" shards only the
            optimizer's state (ZeRO-1).
        optimizer_threshold: Size of the smallest parameter that MindSpore shards, as in ParallelPlan. Unit:
            KB.
        recompute: One of "none", "selective", "full", or one of them for each layer.
        sequence_parallel: Whether norms and residuals are split over tp.
        vocab_parallel: Whether logits are split over tp.
        order: Axes from neighbouring devices outwards; MindSpore and Megatron order ranks by tp, dp, pp.

    Raises:
        ConfigError: If rules are broken; it lists all fields that break one.
    """

    shape: Shape
    micro_batch: int = 1
    dp: int = 1
    tp: int = 1
    pp: int = 1
    micro_batches: int = 1
    schedule: Literal["1f1b", "gpipe"] = "1f1b"
    chunks: int = 1
    stage_layers: tuple[int, ...] = ()
    sharding: Sharding = "none"
    optimizer_threshold: int = 64
    recompute: str | tuple[str, ...] = "none"
    sequence_parallel: bool = False
    vocab_parallel: bool = True
    order: tuple[str, ...] = RANK_ORDER

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        for name in ("micro_batch", "dp", "tp", "pp", "micro_batches", "chunks"):
            if getattr(self, name) < 1:
                yield f"{name}: {getattr(self, name)} must be at least 1"
        if self.stage_layers and (
            len(self.stage_layers) != self.pp or sum(self.stage_layers) != self.shape.layers
        ):
            yield f"stage_layers: {self.stage_layers} must be {self.pp} numbers with sum {self.shape.layers}"
        if self.pp > self.shape.layers:
            yield f"pp: {self.pp} stages for {self.shape.layers} layers"
        words = (self.recompute,) if isinstance(self.recompute, str) else self.recompute
        for word in sorted(set(words) - set(RECOMPUTE)):
            yield f"recompute: {word!r} is not one of {', '.join(RECOMPUTE)}"
        if not isinstance(self.recompute, str) and len(self.recompute) != self.shape.layers:
            yield f"recompute: {len(self.recompute)} words for {self.shape.layers} layers"
        if self.chunks > 1 and (self.schedule != "1f1b" or self.pp == 1):
            yield f"chunks: {self.chunks} pieces need schedule 1f1b and more than one stage"
        if sorted(self.order) != sorted(RANK_ORDER):
            yield f"order: {self.order} must name tp, dp and pp once each"

    @classmethod
    def of(cls, shape: Shape, plan: ParallelPlan, batch: int, order: tuple[str, ...] = RANK_ORDER) -> Job:
        """Creates the job of a plan.

        Args:
            batch: Sequences of an optimizer step, over all ranks.
            order: Axes from neighbouring devices outwards.

        Raises:
            ValueError: If dp x micro_batches does not divide the batch.
        """
        share, rest = divmod(batch, plan.dp * plan.micro_batches)
        if rest or not share:
            raise ValueError(
                f"batch {batch} is not divisible by dp {plan.dp} x micro_batches {plan.micro_batches}; "
                f"the next that is: {(share + 1) * plan.dp * plan.micro_batches}"
            )
        return cls(
            shape=shape,
            micro_batch=share,
            dp=plan.dp,
            tp=plan.tp,
            pp=plan.pp,
            micro_batches=plan.micro_batches,
            schedule=plan.schedule,
            stage_layers=plan.layers_per_stage,
            sharding=plan.optimizer_parallel,
            optimizer_threshold=plan.optimizer_threshold,
            recompute=plan.recompute,
            sequence_parallel=plan.sequence_parallel,
            vocab_parallel=plan.vocab_parallel,
            order=order,
        )

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.dp * self.tp * self.pp

    @property
    def batch(self) -> int:
        """Sequences of an optimizer step."""
        return self.micro_batch * self.dp * self.micro_batches

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch on a data parallel rank."""
        return self.micro_batch * self.shape.seq

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers of each stage."""
        if self.stage_layers:
            return self.stage_layers
        share, rest = divmod(self.shape.layers, self.pp)
        return tuple(share + (stage < rest) for stage in range(self.pp))

    def stride(self, axis: str) -> int:
        """Distance between neighbours along an axis, in devices of the placement."""
        stride = 1
        for name in self.order:
            if name == axis:
                return stride
            stride *= getattr(self, name)
        raise AssertionError(axis)

    def recomputed(self) -> list[Counter[str]]:
        """For each stage, the number of its layers by recompute mode."""
        if isinstance(self.recompute, str):
            return [Counter({self.recompute: layers}) for layers in self.layers]
        ends = list(itertools.accumulate(self.layers, initial=0))
        return [Counter(self.recompute[a:b]) for a, b in itertools.pairwise(ends)]

    def parameters_of(self, layers: int, first: bool, last: bool) -> int:
        """Parameters on a rank of a stage with `layers` layers; tables are split over tp, not over dp."""
        count = layers * self.shape.layer_parameters
        if first:
            count += self.shape.first_parameters
        if last:
            count += self.shape.last_parameters
            count += self.shape.vocab * self.shape.hidden if self.pp > 1 and self.shape.tied else 0
        return round(count / self.tp)

    def stage_parameters(self) -> list[int]:
        """`parameters_of` for every stage."""
        return [
            self.parameters_of(layers, stage == 0, stage == self.pp - 1)
            for stage, layers in enumerate(self.layers)
        ]
