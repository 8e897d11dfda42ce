"""A token by one kernel for the whole network; model.pangu.PanguAlpha defines what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import Parameter

from pangu_alpha.model.operators.native.decoding import MOST_ROWS


def token_kernel(model: Any, caches: Sequence[Parameter], rows: int) -> Any:
    """The kernel that gives the logits after one token of each row, or None.

    There is none for too many rows, nor for a network of which a block is not computed by kernels, as one
    whose linear layers are not those of its config.

    Args:
        model: A model.pangu.PanguAlpha, whose weights must not change as long as the kernel is used.
        caches: Tables of all layers, keys before values.
        rows: Number of rows of a call.
    """
    make, blocks = model.operators.token_kernel, [*model.blocks, model.query_layer]
    if make is None or rows > MOST_ROWS or any(block.fused is None for block in blocks):
        return None
    tables = model.word_embedding, model.position_embedding, model.query_embedding
    weights = [
        *(each.table for each in tables),
        *(model.final_norm.gamma, model.final_norm.beta),
        *(weight for block in blocks for weight in block.weights()),
    ]
    return make(weights, caches, model.config.layer_norm_epsilon, model.norm_first)
