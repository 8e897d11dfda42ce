"""Bytes on a rank of each stage by part: weights, gradients, optimizer, activations, logits, buffers, margin.

Assumes mixed precision as MindSpore runs it: float32 parameters and Adam moments, 16-bit copies and
activations. Letters as in planner.cost.shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.network.parameters import parameter_table
from pangu_alpha.parallel.layout import layouts
from pangu_alpha.planner.cost import kept
from pangu_alpha.planner.cost.hardware import Device, Stack
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.cost.kept import FULL, WORD

_CONTROLS = 6  # scalars that PartitionedStep.controls passes to a step


@dataclass(frozen=True)
class Memory:
    """Bytes on a rank of one stage.

    Args:
        weights: Parameters in float32.
        copies: Copies of weights: in 16 bits for the products, and gathered where weights are sharded.
        gradients: Sums of gradients.
        optimizer: Adam's two moments.
        activations: What the forward pass keeps for the backward pass, over all micro-batches in flight.
        logits: Logits and loss; only on the last stage.
        buffers: Received activations and gradients, and the buffer of a tensor parallel sum.
        margin: Memory that the runtime and fragmentation take.
    """

    weights: int
    copies: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    buffers: int
    margin: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(vars(self).values())


def stage_memory(job: Job, stage: int, device: Device, stack: Stack) -> Memory:
    """Bytes on a rank of a stage.

    Args:
        stage: Number of the stage, from 0.
        device: The device; its unusable share of memory is the margin.
        stack: The software: whose graphs keep activations, and whether attention is fused.
    """
    return memory_of(job, stage, job.recomputed()[stage], device, stack)


def memory_of(job: Job, stage: int, counts: Mapping[str, int], device: Device, stack: Stack) -> Memory:
    """Like `stage_memory`, for a stage with other layers than the job gives it.

    Args:
        job: The job; its own layers and recompute do not matter.
        stage: Number of the stage, from 0.
        counts: Number of the stage's layers by recompute mode.
    """
    first, last = stage == 0, stage == job.pp - 1
    layers, times = sum(counts.values()), in_flight(job, stage)
    parameters = job.parameters_of(layers, first, last)
    shards = job.dp if job.sharding != "none" else 1
    table = _whole_table(job, stage)  # held whole, next to the share of what is sharded over dp
    share = (parameters - table) / shards
    weights = parameters if job.sharding in ("none", "optimizer") else share + table
    gradients = share + table if job.sharding in ("level2", "level3") else parameters
    copies = sum(count * kept.layer_copies(job, mode, stack) for mode, count in counts.items())
    return Memory(
        weights=round(FULL * weights),
        copies=round(copies * times + kept.step_copies(job, layers, (first, last), stack)),
        gradients=round(FULL * gradients),
        optimizer=round(2 * FULL * (share + (table if first else 0))),
        activations=round(activations(job, stage, counts, stack)),
        logits=round(kept.loss_bytes(job, times, stack)) if last else 0,
        buffers=round(_received(job)),
        margin=round(device.memory * (1 - device.usable)),
    )


def _whole_table(job: Job, stage: int) -> float:
    """Parameters of the tied table on a rank where no level can shard it (parallel.layout); else 0."""
    first, last = stage == 0, stage == job.pp - 1
    if job.sharding not in ("level1", "level2", "level3") or not job.shape.tied or not (first or last):
        return 0.0
    rows = -(-job.shape.vocab // job.tp)
    cut = job.pp == 1 and job.sharding != "level3" and rows % job.dp == 0
    return 0.0 if cut else job.shape.vocab * job.shape.hidden / job.tp


def memory(job: Job, device: Device, stack: Stack) -> list[Memory]:
    """Bytes on a rank of every stage; see `stage_memory`."""
    return [stage_memory(job, stage, device, stack) for stage in range(job.pp)]


def fits(job: Job, device: Device, stack: Stack) -> bool:
    """Whether every stage fits into the device's memory."""
    return all(part.total <= device.memory for part in memory(job, device, stack))


def state_bytes(model: ModelConfig, plan: ParallelPlan, stage: int) -> tuple[int, int]:
    """Exact bytes of the float32 weights and of their two moments on a rank of a stage, from the layouts.

    These are, to the byte, what MindSpore's partitioner holds (proof.dry_run.report compares them);
    `stage_memory` instead spreads biases and norms evenly. The last stage's copy of the tied table and the
    scalars of a step (PartitionedStep.controls) have no moments.
    """
    placed, table = layouts(model, plan), parameter_table(model)
    own = sum(math.prod(layout.slice_shape) for layout in placed.values() if layout.stage == stage)
    copied = (
        math.prod(layout.slice_shape)
        for name, layout in placed.items()
        if table[name].tied and stage == plan.pp - 1 != layout.stage
    )
    return FULL * (own + sum(copied) + _CONTROLS), 2 * FULL * own


def kept_bytes(job: Job, stage: int, stack: Stack) -> dict[str, float]:
    """Largest number of bytes that a stage keeps for the backward pass at one time.

    Args:
        stage: Number of the stage, from 0.
        stack: A stack with `partitioned`.

    Returns:
        Bytes by the names that proof.graph.liveness uses.
    """
    counts, times = job.recomputed()[stage], in_flight(job, stage)
    last = stage == job.pp - 1
    copies = sum(count * kept.layer_copies(job, mode, stack) for mode, count in counts.items())
    ends = (stage == 0, last)
    return {
        "activations": activations(job, stage, counts, stack) - again(job, counts, stack),
        "loss": kept.loss_bytes(job, times, stack) * times / (times + 1) if last else 0.0,
        "copies": copies * times + kept.step_copies(job, sum(counts.values()), ends, stack),
    }


def in_flight(job: Job, stage: int) -> float:
    """Number of micro-batches whose activations a stage holds at once; fractional with interleaved chunks."""
    if job.schedule == "gpipe":
        return job.micro_batches
    if job.chunks == 1:
        return min(job.micro_batches, job.pp - stage)
    pieces = 2 * (job.pp - stage - 1) + (job.chunks - 1) * job.pp + 1
    return min(job.micro_batches * job.chunks, pieces) / job.chunks


def activations(job: Job, stage: int, counts: Mapping[str, int], stack: Stack) -> float:
    """Bytes of kept activations in flight, plus those of the layer that is being recomputed."""
    ends = (stage == 0, stage == job.pp - 1)
    found = sum(layers * kept.layer_activations(job, mode, stack) for mode, layers in counts.items())
    found += kept.end_activations(job, *ends, stack) + kept.mask_bytes(job, counts, stack)
    return found * in_flight(job, stage) + again(job, counts, stack)


def again(job: Job, counts: Mapping[str, int], stack: Stack) -> float:
    """Bytes of a layer that is being recomputed; 0 if no layer is."""
    if not counts.get("full", 0) + counts.get("selective", 0):
        return 0.0
    copies = kept.layer_copies(job, "none", stack) if counts.get("full", 0) else 0.0
    return kept.layer_activations(job, "none", stack) + copies


def _received(job: Job) -> float:
    """Bytes of a micro-batch's input, of its output's gradient, and of a tensor parallel sum."""
    size = WORD * job.tokens * job.shape.hidden
    return size * ((2 if job.pp > 1 else 0) + (1 if job.tp > 1 else 0))
