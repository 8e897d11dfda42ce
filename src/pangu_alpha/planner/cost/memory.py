"""Bytes on a rank of each stage by part: weights, gradients, optimizer, activations, logits, buffers, margin.

Mixed precision as MindSpore runs it: float32 parameters and Adam moments, 16-bit copies and activations.
Letters as in planner.cost.shapes.
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

_CONTROLS = 6  # numbers that a step is given


@dataclass(frozen=True)
class Memory:
    """Bytes on a rank of one stage.

    Args:
        weights: Parameters in float32.
        copies: Of weights: in 16 bits, as products want them, and gathered where they are sharded.
        gradients: Sums of gradients.
        optimizer: Adam's two moments.
        activations: What the forward pass keeps for the backward pass, over all micro-batches in flight.
        logits: Of logits and loss; only on the last stage.
        buffers: A stage's received activations.
        margin: What the runtime and fragmentation take.
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
        """All of it."""
        return sum(vars(self).values())


def stage_memory(job: Job, stage: int, device: Device, stack: Stack) -> Memory:
    """Bytes on a rank of a stage.

    Args:
        job: The run.
        stage: From 0.
        device: Its unusable share is the margin.
        stack: Whose graphs keep activations, and whether attention is fused.
    """
    return memory_of(job, stage, job.recomputed()[stage], device, stack)


def memory_of(job: Job, stage: int, counts: Mapping[str, int], device: Device, stack: Stack) -> Memory:
    """As `stage_memory`, of a stage that has other layers than the job says.

    Args:
        job: The run; its own layers and recompute do not matter.
        stage: From 0.
        counts: The stage's layers by recompute mode.
        device: See `stage_memory`.
        stack: See `stage_memory`.
    """
    first, last = stage == 0, stage == job.pp - 1
    layers, times = sum(counts.values()), in_flight(job, stage)
    parameters = job.parameters_of(layers, first, last)
    shards = job.dp if job.sharding != "none" else 1
    table = _whole_table(job, stage)  # besides what is shared out over dp
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
    """Parameters of the tied table on a rank where MindSpore's levels cannot cut it (parallel.layout)."""
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
    """Exact bytes of float32 weights and of their two moments on a rank of a stage, as the layouts say.

    What MindSpore's partitioner holds, to the byte (proof.dry_run.report compares them);
    `stage_memory` spreads biases and norms evenly instead. Weights without moments are the last stage's copy
    of the tied table and the numbers that a step is given (PartitionedStep.controls).
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
    """Most bytes that a stage keeps for the backward pass at a time, as proof.graph.liveness names them.

    Args:
        job: The run.
        stage: From 0.
        stack: A partitioned one.
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
    """Micro-batches whose activations a stage holds at once; a part of one with interleaved pieces."""
    if job.schedule == "gpipe":
        return job.micro_batches
    if job.chunks == 1:
        return min(job.micro_batches, job.pp - stage)
    pieces = 2 * (job.pp - stage - 1) + (job.chunks - 1) * job.pp + 1
    return min(job.micro_batches * job.chunks, pieces) / job.chunks


def activations(job: Job, stage: int, counts: Mapping[str, int], stack: Stack) -> float:
    """Kept activations in flight, and a layer that is being computed again with its weights."""
    ends = (stage == 0, stage == job.pp - 1)
    found = sum(layers * kept.layer_activations(job, mode, stack) for mode, layers in counts.items())
    found += kept.end_activations(job, *ends, stack) + kept.mask_bytes(job, counts, stack)
    return found * in_flight(job, stage) + again(job, counts, stack)


def again(job: Job, counts: Mapping[str, int], stack: Stack) -> float:
    """Bytes of a layer that is being computed again; 0 where none is."""
    if not counts.get("full", 0) + counts.get("selective", 0):
        return 0.0
    copies = kept.layer_copies(job, "none", stack) if counts.get("full", 0) else 0.0
    return kept.layer_activations(job, "none", stack) + copies


def _received(job: Job) -> float:
    """A stage's input and the gradient of its output, each for one micro-batch; the tensor parallel sum."""
    size = WORD * job.tokens * job.shape.hidden
    return size * ((2 if job.pp > 1 else 0) + (1 if job.tp > 1 else 0))
