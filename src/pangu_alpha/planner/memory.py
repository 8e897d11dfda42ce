"""Bytes on a rank of each stage by part: weights, gradients, optimizer, activations, logits, buffers, margin.

Activations follow Korthikanti et al. (2022), section 4; letters as in planner.shapes. Mixed precision as
MindSpore runs it: float32 parameters and Adam moments, 16-bit copies and activations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.parallel.layout import layouts, parameter_shapes
from pangu_alpha.planner.hardware import Device
from pangu_alpha.planner.job import Job

WORD, FULL = 2, 4  # bytes of 16-bit and of float32 numbers


@dataclass(frozen=True)
class Memory:
    """Bytes on a rank of one stage.

    Args:
        weights: Parameters in float32 and, beside them, the 16-bit copies that a layer computes with.
        gradients: Sums of gradients.
        optimizer: Adam's two moments.
        activations: What the forward pass keeps for the backward pass, over all micro-batches in flight.
        logits: Logits, their gradient and the loss's float32 copy; only on the last stage.
        buffers: Gathered weights of two layers, or a stage's received activations.
        margin: What the runtime and fragmentation take.
    """

    weights: int
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


def stage_memory(job: Job, stage: int, device: Device, fused_attention: bool = True) -> Memory:
    """Bytes on a rank of a stage.

    Args:
        job: The run.
        stage: From 0.
        device: Its unusable share is the margin.
        fused_attention: Whether scores are never kept.
    """
    counts = job.recomputed()[stage]
    return memory_of(job, stage, counts, device, fused_attention)


def memory_of(
    job: Job, stage: int, counts: Mapping[str, int], device: Device, fused_attention: bool = True
) -> Memory:
    """As `stage_memory`, of a stage that has other layers than the job says.

    Args:
        job: The run; its own layers and recompute do not matter.
        stage: From 0.
        counts: The stage's layers by recompute mode.
        device: See `stage_memory`.
        fused_attention: See `stage_memory`.
    """
    last = stage == job.pp - 1
    parameters = job.parameters_of(sum(counts.values()), stage == 0, last)
    shards = job.dp if job.sharding != "none" else 1
    whole = job.sharding in ("none", "optimizer")
    table = _whole_table(job, stage)  # besides what is shared out over dp
    share = (parameters - table) / shards
    weights = parameters if whole else share + table
    gradients = share + table if job.sharding in ("level2", "level3") else parameters
    layer = job.shape.layer_parameters / job.tp
    copies = 2 * layer if job.sharding == "level3" else parameters
    return Memory(
        weights=round(FULL * weights + (WORD * copies if whole else 0)),
        gradients=round(FULL * gradients),
        optimizer=round(2 * FULL * (share + (table if stage == 0 else 0))),
        activations=round(_activations(job, stage, counts, fused_attention)),
        logits=round(_logits(job)) if last else 0,
        buffers=round((0 if whole else WORD * copies) + _received(job)),
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


def memory(job: Job, device: Device, fused_attention: bool = True) -> list[Memory]:
    """Bytes on a rank of every stage; see `stage_memory`."""
    return [stage_memory(job, stage, device, fused_attention) for stage in range(job.pp)]


def fits(job: Job, device: Device, fused_attention: bool = True) -> bool:
    """Whether every stage fits into the device's memory."""
    return all(part.total <= device.memory for part in memory(job, device, fused_attention))


def state_bytes(model: ModelConfig, plan: ParallelPlan, stage: int) -> tuple[int, int]:
    """Exact bytes of float32 weights and of their two moments on a rank of a stage, as the layouts say.

    What MindSpore's partitioner does, to the byte (proof.dry_run compares them); `stage_memory` spreads
    biases and norms evenly instead. Without the last stage's copy of the tied table, which has no moments.
    """
    placed = layouts(parameter_shapes(model), model, plan).values()
    count = sum(math.prod(layout.slice_shape) for layout in placed if layout.stage == stage)
    return FULL * count, 2 * FULL * count


def in_flight(job: Job, stage: int) -> float:
    """Micro-batches whose activations a stage holds at once; a part of one with interleaved pieces."""
    if job.schedule == "gpipe":
        return job.micro_batches
    if job.chunks == 1:
        return min(job.micro_batches, job.pp - stage)
    pieces = 2 * (job.pp - stage - 1) + (job.chunks - 1) * job.pp + 1
    return min(job.micro_batches * job.chunks, pieces) / job.chunks


def layer_activations(job: Job, mode: str, fused_attention: bool = True) -> float:
    """Bytes that a layer keeps of a micro-batch.

    For a GPT without recompute this is the T H (10 + 24 / t + 5 N S / (H t)) of Korthikanti et al. (2022),
    with sequence parallelism T H (34 / t + ...), without fused attention.

    Args:
        job: The run.
        mode: "none", "selective" (no attention core) or "full" (the input alone).
        fused_attention: Whether scores are never kept.
    """
    shape, tokens, tp = job.shape, job.tokens, job.tp
    split = tp if job.sequence_parallel else 1
    if mode == "full":
        return WORD * tokens * shape.hidden / split
    masks = 2 if shape.biased else 0  # of dropout on two outputs, a byte a column
    stream = (
        (4 * WORD + masks) * shape.hidden / split
    )  # inputs of two norms and of attention and feed-forward
    heads = WORD * (shape.qkv_size + shape.attention_size) / tp
    inner = WORD * shape.ffn * (3 if shape.gated else 2) / tp
    scores = 5 * shape.heads * shape.seq / tp  # softmax, its dropout and mask, a score
    core = 0 if fused_attention or mode == "selective" else scores
    return tokens * (stream + heads + inner + core)


def _activations(job: Job, stage: int, counts: Mapping[str, int], fused_attention: bool) -> float:
    """Kept activations in flight, and a layer that is being computed again."""
    kept = sum(layers * layer_activations(job, mode, fused_attention) for mode, layers in counts.items())
    again = counts.get("full", 0) + counts.get("selective", 0)
    layer = layer_activations(job, "none", fused_attention) if again else 0
    return kept * in_flight(job, stage) + layer


def _logits(job: Job) -> float:
    """Logits and their gradient in 16 bits, and in float32."""
    columns = job.shape.vocab / (job.tp if job.vocab_parallel else 1)
    return (WORD + FULL) * job.tokens * columns


def _received(job: Job) -> float:
    """A stage's input and the gradient of its output, each for one micro-batch; the tensor parallel sum."""
    size = WORD * job.tokens * job.shape.hidden
    return size * ((2 if job.pp > 1 else 0) + (1 if job.tp > 1 else 0))
