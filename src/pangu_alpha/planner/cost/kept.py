"""Bytes that the forward pass keeps for the backward pass, by purpose.

For this project's network, they are counted operator by operator as MindSpore's graphs keep them;
proof.graph.liveness compares the counts with compiled graphs. For other software the formulas are those of
Korthikanti et al. (2022), section 4. Letters as in planner.cost.shapes; t is the tensor parallel degree,
which also splits rows under sequence parallelism.
"""

from __future__ import annotations

from collections.abc import Mapping

from pangu_alpha.planner.cost.hardware import Stack
from pangu_alpha.planner.cost.job import Job

WORD, FULL = 2, 4  # bytes of 16-bit and of float32 numbers
_STATISTICS = 2  # float32 numbers of a norm for each row: mean and deviation
_FLASH_STATISTICS = 16  # float32 numbers for each row of scores: maximum and sum, each repeated eight times
_SCORE = FULL + WORD  # bytes per score: its softmax in float32, and the 16-bit weight for the values
_MASK = 1  # bytes per element of a dropout mask
_LOSS = 2 * FULL  # bytes per logit: its exponential, and its element of the one-hot label


def layer_activations(job: Job, mode: str, stack: Stack) -> float:
    """Bytes that one layer keeps of a micro-batch.

    Args:
        mode: "none", "selective" (without the attention core) or "full" (only the layer's input).
        stack: The software: whose graphs, and whether attention is fused.
    """
    return _in_graphs(job, mode, stack) if stack.partitioned else _by_korthikanti(job, mode, stack)


def _in_graphs(job: Job, mode: str, stack: Stack) -> float:
    """Bytes that MindSpore's graphs keep of one layer of this project's network.

    Norms keep float32 inputs. Their outputs are gathered to whole rows before the products, and the products
    keep those rows, so sequence parallelism does not split them. FlashAttentionScore keeps its result in
    addition to the joined heads.
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
    """Bytes that the attention core keeps."""
    if mode == "selective":
        return 0.0
    shape, tokens = job.shape, job.tokens
    if stack.fused_attention:
        statistics = FULL * _FLASH_STATISTICS * shape.heads
        return tokens * (WORD * shape.attention_size + statistics) / job.tp
    score = _SCORE + (_MASK if shape.dropout else 0)
    return tokens * score * shape.heads * shape.seq / job.tp


def _by_korthikanti(job: Job, mode: str, stack: Stack) -> float:
    """Bytes that other software keeps of one layer.

    For a GPT without recompute this is T H (10 + 24 / t + 5 N S / (H t)); with sequence parallelism, T H (34
    / t + 5 N S / (H t)). Fused attention removes the last term.
    """
    shape, tokens, tp = job.shape, job.tokens, job.tp
    split = tp if job.sequence_parallel else 1
    if mode == "full":
        return WORD * tokens * shape.hidden / split
    masks = 2 if shape.biased else 0  # dropout on two outputs, one byte per column
    stream = (
        (4 * WORD + masks) * shape.hidden / split
    )  # inputs of two norms, of attention and of the feed-forward
    heads = WORD * (shape.qkv_size + shape.attention_size) / tp
    inner = WORD * shape.ffn * (3 if shape.gated else 2) / tp
    scores = 5 * shape.heads * shape.seq / tp  # 5 bytes per score: softmax, its dropout and the mask
    core = 0 if stack.fused_attention or mode == "selective" else scores
    return tokens * (stream + heads + inner + core)


def end_activations(job: Job, first: bool, last: bool, stack: Stack) -> float:
    """Bytes that a micro-batch keeps outside the layers.

    On the first stage this is the mask of the embeddings' dropout; on the last one, the input of the final
    norm, the queries and the rows of the logits.
    """
    if not stack.partitioned:
        return 0.0
    rows = job.tp if job.sequence_parallel else 1
    found = _MASK * job.shape.hidden / rows if first and job.shape.dropout else 0.0
    if last:
        found += (FULL * job.shape.hidden + FULL * _STATISTICS) / rows + 2 * WORD * job.shape.hidden
    return job.tokens * found


def mask_bytes(job: Job, counts: Mapping[str, int], stack: Stack) -> float:
    """Bytes of a micro-batch's attention mask, which all layers share.

    Fused attention keeps one byte for each pair of positions; without it the mask is float32, and kept only
    where scores are computed again.
    """
    if not stack.partitioned or not counts:
        return 0.0
    again = counts.get("selective", 0) + counts.get("full", 0) > 0
    return job.tokens * job.shape.seq * (1 if stack.fused_attention else FULL * again)


def loss_bytes(job: Job, in_flight: float, stack: Stack) -> float:
    """Bytes of logits and loss on the last stage.

    MindSpore's graphs keep two float32 numbers per logit for the backward pass, which starts by making two
    more; other software keeps the logits and their gradient in 16 bits, and a float32 copy.
    """
    columns = job.shape.vocab / (job.tp if job.vocab_parallel else 1)
    rows = job.tokens / (1 if job.vocab_parallel else job.tp)
    if stack.partitioned:
        return rows * columns * _LOSS * (in_flight + 1)
    return (WORD + FULL) * job.tokens * columns


def layer_copies(job: Job, mode: str, stack: Stack) -> float:
    """Bytes of a layer's 16-bit or gathered weights that a micro-batch keeps for its backward pass.

    Each micro-batch makes its own casts. With several micro-batches, level1 and level2 gather once a step, in
    16 bits, for all of them: see `step_copies`.
    """
    if not stack.partitioned:
        return 0.0
    weights = job.shape.layer_matrices / job.tp
    level, several = job.sharding, job.micro_batches > 1
    if level in ("level1", "level2") and several:
        return 0.0
    if mode != "full":
        return WORD * weights / (job.dp if level == "level3" and several else 1)
    # A recomputed layer casts and gathers again, but float32 weights gathered by level1 or level2 stay.
    return FULL * weights if level in ("level1", "level2") else 0.0


def step_copies(job: Job, layers: int, ends: tuple[bool, bool], stack: Stack) -> float:
    """Bytes of weights, cast to 16 bits or gathered, that stay for the whole step.

    Args:
        layers: Number of the stage's layers.
        ends: Whether the stage is the first, and whether it is the last.
    """
    shape = job.shape
    layer = shape.layer_parameters / job.tp
    if not stack.partitioned:
        return WORD * (2 * layer if job.sharding == "level3" else job.parameters_of(layers, *ends))
    table = shape.vocab * shape.hidden / job.tp
    cast = WORD * table if ends[1] else 0.0
    if job.micro_batches == 1 or job.sharding == "none":
        return cast
    if job.sharding == "level3":  # the next layer is gathered while one computes
        return cast + 2 * WORD * layer
    return cast + WORD * layers * layer + (FULL * table if job.pp == 1 else 0.0)
