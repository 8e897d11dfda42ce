"""Bytes that the forward pass leaves for the backward pass, by what reads them.

For this project's network as MindSpore's graphs keep it: counted operator by operator, and compared with
graphs by proof.graph.liveness. For other software: Korthikanti et al. (2022), section 4. Letters as in
planner.cost.shapes; t is the tensor parallel degree, also of rows under sequence parallelism.
"""

from __future__ import annotations

from collections.abc import Mapping

from pangu_alpha.planner.cost.hardware import Stack
from pangu_alpha.planner.cost.job import Job

WORD, FULL = 2, 4  # bytes of 16-bit and of float32 numbers
_STATISTICS = 2  # mean and deviation of a norm's row, float32
_FLASH_STATISTICS = 16  # maximum and sum of a row of scores, each repeated eight times in float32
_SCORE = FULL + WORD  # a score's softmax in float32, and the weight that meets the values
_MASK = 1  # an element of dropout's mask
_LOSS = 2 * FULL  # a logit's exponential, and its place in the label's row


def layer_activations(job: Job, mode: str, stack: Stack) -> float:
    """Bytes that a layer keeps of a micro-batch.

    Args:
        job: The run.
        mode: "none", "selective" (no attention core) or "full" (the input alone).
        stack: Whose graphs, and whether attention is fused.
    """
    return _in_graphs(job, mode, stack) if stack.partitioned else _by_korthikanti(job, mode, stack)


def _in_graphs(job: Job, mode: str, stack: Stack) -> float:
    """What MindSpore's graphs keep of this project's network.

    Norms keep float32 inputs. What they give is gathered to whole rows before products, and the products keep
    those rows: sequence parallelism does not split them. FlashAttentionScore keeps its result beside the
    joined heads.
    """
    shape, tp = job.shape, job.tp
    rows = tp if job.sequence_parallel else 1
    if mode == "full":
        return job.tokens * WORD * shape.hidden / rows
    masks = 2 * _MASK * shape.hidden / rows if shape.dropout else 0.0
    norms = 2 * (FULL * shape.hidden + FULL * _STATISTICS) / rows
    products = 2 * WORD * shape.hidden  # the inputs of query, key and value, and of the feed-forward
    heads = WORD * (shape.qkv_size + shape.attention_size) / tp
    inner = WORD * shape.ffn * (3 if shape.activation == "fast_gelu" else 2) / tp
    return job.tokens * (norms + products + heads + inner + masks) + _core(job, mode, stack)


def _core(job: Job, mode: str, stack: Stack) -> float:
    """Bytes of the attention core."""
    if mode == "selective":
        return 0.0
    shape, tokens = job.shape, job.tokens
    if stack.fused_attention:
        statistics = FULL * _FLASH_STATISTICS * shape.heads
        return tokens * (WORD * shape.attention_size + statistics) / job.tp
    score = _SCORE + (_MASK if shape.dropout else 0)
    return tokens * score * shape.heads * shape.seq / job.tp


def _by_korthikanti(job: Job, mode: str, stack: Stack) -> float:
    """T H (10 + 24 / t + 5 N S / (H t)) for a GPT without recompute; with sequence parallelism T H (34 / t
    + ...), without fused attention."""
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
    core = 0 if stack.fused_attention or mode == "selective" else scores
    return tokens * (stream + heads + inner + core)


def end_activations(job: Job, first: bool, last: bool, stack: Stack) -> float:
    """Bytes kept of a micro-batch outside the layers: the mask of the embeddings' dropout; the final norm's
    input, the queries, the rows of the logits."""
    if not stack.partitioned:
        return 0.0
    rows = job.tp if job.sequence_parallel else 1
    found = _MASK * job.shape.hidden / rows if first and job.shape.dropout else 0.0
    if last:
        found += (FULL * job.shape.hidden + FULL * _STATISTICS) / rows + 2 * WORD * job.shape.hidden
    return job.tokens * found


def mask_bytes(job: Job, counts: Mapping[str, int], stack: Stack) -> float:
    """Bytes of the attention mask of a micro-batch, which all layers share: a byte a pair of positions for
    fused attention; without it float32, and only where scores are computed again."""
    if not stack.partitioned or not counts:
        return 0.0
    again = counts.get("selective", 0) + counts.get("full", 0) > 0
    return job.tokens * job.shape.seq * (1 if stack.fused_attention else FULL * again)


def loss_bytes(job: Job, in_flight: float, stack: Stack) -> float:
    """Bytes of logits and loss on the last stage.

    In MindSpore's graphs two float32 numbers a logit are kept for the backward pass, which begins with two
    more; elsewhere the logits and their gradient in 16 bits, and in float32.
    """
    columns = job.shape.vocab / (job.tp if job.vocab_parallel else 1)
    rows = job.tokens / (1 if job.vocab_parallel else job.tp)
    if stack.partitioned:
        return rows * columns * _LOSS * (in_flight + 1)
    return (WORD + FULL) * job.tokens * columns


def layer_copies(job: Job, mode: str, stack: Stack) -> float:
    """Bytes of a layer's weights, cast to 16 bits or gathered, that a micro-batch keeps to pass back.

    Each micro-batch casts for itself. With micro-batches, level1 and level2 gather once a step, in 16 bits,
    for all of them: see `step_copies`.
    """
    if not stack.partitioned:
        return 0.0
    weights = job.shape.layer_matrices / job.tp
    level, several = job.sharding, job.micro_batches > 1
    if level in ("level1", "level2") and several:
        return 0.0
    if mode != "full":
        return WORD * weights / (job.dp if level == "level3" and several else 1)
    # What is computed again is cast or gathered again, but what level1 and level2 gathered in float32 stays.
    return FULL * weights if level in ("level1", "level2") else 0.0


def step_copies(job: Job, layers: int, ends: tuple[bool, bool], stack: Stack) -> float:
    """Bytes of weights, cast to 16 bits or gathered, that stay for the whole step.

    Args:
        job: The run.
        layers: Of the stage.
        ends: Whether the stage is the first, and whether it is the last.
        stack: Whose graphs.
    """
    shape = job.shape
    layer = shape.layer_parameters / job.tp
    if not stack.partitioned:
        return WORD * (2 * layer if job.sharding == "level3" else job.parameters_of(layers, *ends))
    table = shape.vocab * shape.hidden / job.tp
    cast = WORD * table if ends[1] else 0.0
    if job.micro_batches == 1 or job.sharding == "none":
        return cast
    if job.sharding == "level3":  # a layer ahead of the one that computes
        return cast + 2 * WORD * layer
    return cast + WORD * layers * layer + (FULL * table if job.pp == 1 else 0.0)
