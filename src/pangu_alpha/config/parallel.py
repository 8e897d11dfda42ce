"""How a run is spread over devices: the frozen plan from which all facts of ranks, groups and stages derive.

Letters: L layers, P stages.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.operator_table import FoundTable
from pangu_alpha.config.option import option
from pangu_alpha.config.schema import validate

OptimizerParallel = Literal["none", "level1", "level2", "level3"]

RECOMPUTE = ("none", "selective", "full")
_OF_A_RUN = {"model", "data", "optim", "run"}  # sections that a run has, but not a plan


@dataclass(frozen=True)
class ParallelPlan:
    """Degrees of the three axes, and the settings that go with them. The default is one device.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    dp: int = option(
        1, "degree of data parallelism: groups of devices that read different sequences", at_least=1
    )
    tp: int = option(1, "degree of tensor parallelism: devices that share every matrix product", at_least=1)
    pp: int = option(
        1,
        "degree of pipeline parallelism: stages of consecutive layers",
        at_least=1,
    )
    micro_batches: int = option(
        1,
        "micro-batches whose gradients an optimizer step sums; a pipeline needs at least `pp`",
        at_least=1,
    )
    schedule: Literal["1f1b", "gpipe"] = option("1f1b", "order of the micro-batches in a pipeline")
    layers_per_stage: tuple[int, ...] = option(
        (),
        "layers of each stage, the query layer counted in the last; an empty list spreads them as evenly as "
        "possible, the larger stages first",
        at_least=1,
    )
    optimizer_parallel: OptimizerParallel = option(
        "none",
        "what is split over dp: `level1` splits weights and moments, `level2` also gradients, `level3` also "
        "gathers the weights again in the backward pass",
    )
    optimizer_threshold: int = option(
        64,
        "smallest parameter that `optimizer_parallel` splits, by the float32 size of the whole parameter",
        unit="KB",
        at_least=0,
        metavar="KB",
    )
    recompute: str | tuple[str, ...] = option(
        "none",
        "what a layer computes again in the backward pass: `none`, `selective` (the core of the attention), "
        "`full` (all but the input of the layer); one word, or one for each layer",
        choices=RECOMPUTE,
        metavar="MODE",
    )
    sequence_parallel: bool = option(
        False, "split norms and residuals over tp by rows (Korthikanti et al., 2022)"
    )
    vocab_parallel: bool = option(
        True, "split the embedding table, the logits and the loss over tp by vocabulary"
    )
    gradient_fusion: int = option(
        0,
        "size of the buckets in which gradients are communicated together; 0 sends each by itself",
        unit="MB",
        at_least=0,
        metavar="MB",
    )
    table: FoundTable | None = option(
        None,
        "how each operator of a block is split over tp: the file that `plan.py operators --output` writes, "
        "or its content, which checkpoints keep; null takes the hand-made table",
        see="operator_split.md#how-do-i-train-with-what-is-found",
        metavar="YAML",
        omitted=True,
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def devices(self) -> int:
        """Number of devices, dp * tp * pp."""
        return self.dp * self.tp * self.pp

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if self.micro_batches < self.pp:
            yield (
                f"micro_batches: {self.micro_batches} cannot fill {self.pp} stages; "
                f"use at least pp = {self.pp}"
            )
        if self.layers_per_stage and len(self.layers_per_stage) != self.pp:
            yield f"layers_per_stage: {len(self.layers_per_stage)} numbers for pp = {self.pp} stages"
        if self.optimizer_parallel != "none" and self.dp == 1:
            yield f"optimizer_parallel: {self.optimizer_parallel} has nothing to shard over with dp = 1"
        if self.sequence_parallel and self.tp == 1:
            yield "sequence_parallel: true has nothing to split over with tp = 1"
        if self.table is not None and self.sequence_parallel:
            yield (
                "sequence_parallel: true is a way to split norms and residuals, and the table says its own; "
                "leave one of them out"
            )

    def stage_layers(self, num_layers: int) -> tuple[int, ...]:
        """Number of layers of each stage, as given or else spread as evenly as possible.

        Args:
            num_layers: Number of layers L, including the query layer.
        """
        if self.layers_per_stage:
            return self.layers_per_stage
        share, rest = divmod(num_layers, self.pp)
        return tuple(share + (stage < rest) for stage in range(self.pp))

    def stage_of_layer(self, layer: int, num_layers: int) -> int:
        """The stage that holds a layer; both are counted from 0."""
        ends = itertools.accumulate(self.stage_layers(num_layers))
        return next(stage for stage, end in enumerate(ends) if layer < end)

    def recompute_of_layer(self, layer: int) -> str:
        """The recompute mode of a layer, one of RECOMPUTE."""
        return self.recompute if isinstance(self.recompute, str) else self.recompute[layer]


def misfits(plan: ParallelPlan, model: ModelConfig) -> Iterator[str]:
    """Yields one sentence for every way in which a plan does not fit a model, of any family."""
    if not isinstance(model, ModelConfig):
        yield from model.misfits(plan)
        return
    if plan.table is not None:
        yield from plan.table.misfits(plan.tp, model)
    elif model.num_heads % plan.tp:
        yield f"tp: {plan.tp} does not divide the model's {model.num_heads} heads"
    if plan.sequence_parallel and model.seq_length % plan.tp:
        yield f"sequence_parallel: tp = {plan.tp} does not divide seq_length {model.seq_length}"
    if plan.pp > model.num_layers:
        yield f"pp: {plan.pp} stages for {model.num_layers} layers; a stage needs at least one"
    if plan.layers_per_stage and sum(plan.layers_per_stage) != model.num_layers:
        yield (
            f"layers_per_stage: the sum is {sum(plan.layers_per_stage)}, the model has {model.num_layers} "
            "layers (the query layer included)"
        )
    if not isinstance(plan.recompute, str) and len(plan.recompute) != model.num_layers:
        yield f"recompute: {len(plan.recompute)} words for {model.num_layers} layers; give one for each"


def unpartitionable(plan: ParallelPlan) -> Iterator[str]:
    """Yields why MindSpore's partitioner would refuse a plan, apart from what `misfits` reports."""
    if plan.devices % 8 and plan.devices not in (1, 2, 4):
        yield (
            f"dp: {plan.dp} x tp {plan.tp} x pp {plan.pp} are {plan.devices} devices; MindSpore 2.9 takes "
            "1, 2, 4 or a multiple of 8"
        )
    words = (plan.recompute,) if isinstance(plan.recompute, str) else plan.recompute
    again = set(words) - {"none"}
    if plan.optimizer_parallel == "level3" and plan.pp > 1:
        yield (
            f"optimizer_parallel: level3 with pp {plan.pp} ends MindSpore 2.9's compiler on the first stage; "
            "use level2, or pp 1"
        )
    elif plan.optimizer_parallel == "level3" and plan.micro_batches > 1 and "full" in again:
        yield (
            f"optimizer_parallel: level3 with recompute {', '.join(sorted(again))} and "
            f"{plan.micro_batches} micro-batches ends MindSpore 2.9's compiler; use level2, or no recompute"
        )


def plan_section(document: Mapping[str, Any]) -> Any:
    """Returns the plan in a YAML file: the whole file, or its section `parallel`.

    A run's file without that section means one device, so the result is empty.
    """
    if "parallel" not in document and _OF_A_RUN & document.keys():
        return {}
    return document.get("parallel", document)
