"""The work that a step or a token cannot do without, counted from the shape: FLOPs and bytes.

Only what every implementation must do counts, so that no time can be below the limit: no masked half of the
attention, no recomputation, no slot of the cache that holds nothing, no padding.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

FLOAT = 4  # bytes of a float32


def training_flops(layers: int, hidden: int, vocabulary: int, rows: int, length: int) -> int:
    """FLOPs of the matrix products of a training step; a multiplication and an addition are two.

    Linear layers have 12 H^2 weights a layer: query, key, value, output, and up and down of the MLP with 4 H
    between them; the logits have H V. A weight takes part in three products a token: forward, gradient of the
    input, gradient of the weight. The last layer is the query layer. Its queries come from the position
    table and are the same in all rows of the batch, so that H^2 of its weights meet S tokens instead of B S.
    Attention has two products forward and four backward. Of their square S x S only the half that the causal
    mask leaves counts, S (S + 1) / 2: PyTorch's fused attention does little more than that, and who computes
    the masked half does work that nobody needs. Counting it would hide that.

    Args:
        rows: Sequences B of the batch, each one document.
        length: Tokens S of each.
    """
    tokens = rows * length
    linear = tokens * (12 * layers - 1) * hidden**2 + length * hidden**2
    logits = tokens * hidden * vocabulary
    attention = layers * rows * (length * (length + 1) // 2) * hidden
    return 2 * 3 * (linear + logits) + 2 * 6 * attention


def weight_bytes(shapes: Mapping[str, tuple[int, ...]], tables: Collection[str]) -> int:
    """Bytes of the float32 weights that one token reads: all of them, but one row of each table.

    Args:
        shapes: Of the weights by name.
        tables: Names of those that are only looked up in; the word table is none, because the logits are
            products with it.
    """
    return FLOAT * sum(math.prod(shape[name in tables :]) for name, shape in shapes.items())


def cache_bytes(layers: int, hidden: int, prompt: int, new_tokens: int) -> float:
    """Mean bytes of float32 keys and values that a token reads, over those after the prompt's own pass.

    That pass gives the first of `new_tokens`. The next token finds `prompt` keys and values of each layer,
    and its own never come from memory.
    """
    filled = range(prompt, prompt + new_tokens - 1)
    return 2 * layers * hidden * FLOAT * sum(filled) / len(filled)
