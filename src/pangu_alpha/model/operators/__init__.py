"""Chooses the operators that a device computes best; nothing else in the network depends on the device.

plain.py and dropout.py define every operator by MindSpore's elementary ones; cpu.py and ascend.py have faster
versions for their devices. Every version computes the same function, and a test compares them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mindspore as ms
from mindspore import nn

from pangu_alpha.config.families import FAMILIES, has_flash_attention, unsupported
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.run import ONLY_CPU, PRECISION_KEY, MatmulPrecision
from pangu_alpha.model.cache import KeyValueCache
from pangu_alpha.model.chip import find_chip, soc_version
from pangu_alpha.model.mask import DocumentMask
from pangu_alpha.model.operators import ascend, cpu, native, plain
from pangu_alpha.model.operators import dropout as positional
from pangu_alpha.model.operators.native import fused, inputs, update
from pangu_alpha.model.operators.native import training as kernels
from pangu_alpha.model.operators.native.decoding import TokenKernel
from pangu_alpha.model.operators.native.library import library, missing_bfloat16

__all__ = ["Operators", "dropout", "native", "operators_for"]


@dataclass(frozen=True)
class Operators:
    """A device's choice of operators, and the type in which it computes.

    Args:
        compute_dtype: Type of matrix products and the residual stream.
        affine: () -> cell of (x, weight, bias).
        layer_norm: (columns, epsilon) -> cell of (x, gamma, beta).
        activation: () -> cell of (x).
        mask: (heads) -> cell of (attention mask).
        split_heads: (heads) -> cell of (x, batch).
        join_heads: (heads) -> cell of (heads).
        attention: (heads, head size, dropout) -> cell of (query, key, value, mask, dropout rows).
        dropout: (rate, salt) -> cell of (x, dropout rows) for the residual stream. Without rows it returns x
            unchanged, whether or not the cell is set to training.
        attention_dropout: (rate, salt, heads) -> cell of (weights, dropout rows), otherwise like `dropout`.
        cross_entropy: (vocabulary) -> cell of (x, table, labels).
        square_sum: () -> cell of (x).
        keep_if: () -> cell of (condition, x).
        linear: () -> operator of (x, weight), x times the transposed weight; it need not have gradients.
        cache: (batch, heads, slots, head size, type) -> cell of (new keys or values, places).
        fused_block: (config, number of the block) -> cell of the kernels that compute a whole block (see
            native.fused.BlockKernels); None where the operators above compute it.
        token_kernel: (weights, caches, epsilon, order of the norm) -> function that computes the logits after
            one token of each row without a graph (see native.decoding.TokenKernel). Like `fused_block`, it
            takes the weights of all layers as they are. None where a graph computes them.
        document_mask: () -> cell of (document numbers).
        look_up: () -> cell of (table, ids) -> rows of the table, [T, H]; None for a Gather.
        forked_look_up: () -> cell of (table, ids) -> (the same, the table for another use, whose gradient it
            adds to its own); None for separate operators.
        update: (optimizer, largest norm) -> cell that clips and applies all gradients in one kernel (see
            native.update.ClippedAdamW); None for separate operators.
        float_status: Class of the cell that reports overflow; None where results show it as inf or NaN.
    """

    compute_dtype: ms.Type
    affine: Callable[[], nn.Cell] = plain.Affine
    layer_norm: Callable[[int, float], nn.Cell] = plain.Normalize
    activation: Callable[[], nn.Cell] = plain.Gelu
    mask: Callable[[int], nn.Cell] = plain.ScoreMask
    split_heads: Callable[[int], nn.Cell] = plain.SplitHeads
    join_heads: Callable[[int], nn.Cell] = plain.JoinHeads
    attention: Callable[[int, int, nn.Cell], nn.Cell] = plain.AttentionCore
    dropout: Callable[[float, int], nn.Cell] = positional.Dropout
    attention_dropout: Callable[[float, int, int], nn.Cell] = positional.AttentionDropout
    cross_entropy: Callable[[int], nn.Cell] = plain.TiedCrossEntropy
    square_sum: Callable[[], nn.Cell] = plain.SquareSum
    keep_if: Callable[[], nn.Cell] = plain.KeepIf
    linear: Callable[[], Any] = plain.linear
    cache: Callable[..., nn.Cell] = KeyValueCache
    fused_block: Callable[[ModelConfig, int], Any] | None = None
    token_kernel: Callable[..., TokenKernel] | None = None
    document_mask: Callable[[], nn.Cell] = DocumentMask
    look_up: Callable[[], nn.Cell] | None = None
    forked_look_up: Callable[[], nn.Cell] | None = None
    update: Callable[[Any, float], Any] | None = None
    float_status: type[ascend.FloatStatus] | None = None


_FAST: dict[str, dict[str, Any]] = {
    "plain": {},
    "CPU": {
        "affine": cpu.Affine,
        "layer_norm": cpu.Normalize,
        "activation": cpu.Gelu,
        "mask": cpu.ScoreMask,
        "split_heads": cpu.SplitHeads,
        "join_heads": cpu.JoinHeads,
        "attention": cpu.AttentionCore,
        "dropout": cpu.Dropout,
        "attention_dropout": cpu.AttentionDropout,
        "cross_entropy": cpu.TiedCrossEntropy,
        "square_sum": cpu.SquareSum,
        "keep_if": cpu.KeepIf,
    },
    "CPU kernels": {
        "affine": kernels.Affine,
        "layer_norm": kernels.Normalize,
        "activation": kernels.Gelu,
        "mask": kernels.AllowedKeys,
        "split_heads": kernels.KeepColumns,
        "join_heads": kernels.KeepColumns,
        "attention": kernels.AttentionCore,
        "dropout": kernels.Dropout,
        "attention_dropout": kernels.AttentionDropout,
        "cross_entropy": kernels.TiedCrossEntropy,
        "square_sum": kernels.SquareSum,
        "linear": kernels.linear,
        "cache": kernels.KeyValueCache,
        "fused_block": fused.BlockKernels,
        "token_kernel": TokenKernel,
        "document_mask": inputs.DocumentMask,
        "look_up": inputs.LookUp,
        "forked_look_up": inputs.ForkedLookUp,
        "update": update.ClippedAdamW,
    },
    # Decoding has one row for each token, so the number of kernels matters; the plain operators have the
    # fewest.
    "CPU decoding": {"affine": cpu.DenseAffine},
    "Ascend": {"activation": ascend.Gelu},
    # For training without dropout in half precision.
    "Ascend flash": {
        "activation": ascend.Gelu,
        "mask": ascend.BlockedMask,
        "attention": ascend.FlashAttention,
    },
}

# Instead of those of "CPU kernels"; the products of attention stay as they are.
_MEDIUM: dict[str, Any] = {
    "affine": partial(kernels.Affine, precision="medium"),
    "cross_entropy": partial(kernels.TiedCrossEntropy, precision="medium"),
    "linear": partial(kernels.linear, precision="medium"),
    "fused_block": partial(fused.BlockKernels, precision="medium"),
}


def operators_for(
    config: ModelConfig,
    device: str | None = None,
    decoding: bool = False,
    chip: str = "auto",
    device_dropout: Sequence[int] | None = None,
    precision: MatmulPrecision = "highest",
) -> Operators:
    """Returns the operators that are fast on a device.

    Args:
        config: Gives the activation and the compute type.
        device: "CPU", "Ascend", or "plain" for the defining operators; None is the current context's device.
        decoding: Whether the model only generates, one token of each row at a time.
        chip: Chip of an Ascend device, one of config.families.FAMILIES. "auto" is the one that MindSpore
            finds; with device "plain", no chip. An unknown chip gets the operators that all chips have.
        device_dropout: If given, the device's kernel draws the masks of the attention weights from this
            stream (see ascend.AttentionDropout). None makes masks by position, as in all other cells.
        precision: Of float32 products; "medium" rounds factors to bfloat16 (see docs/kernels.md).

    Raises:
        ValueError: The chip does not have the compute type, the device has no kernel that draws masks, or no
            products of medium precision.
    """
    device = device or ms.get_context("device_target")
    known = None if chip == "auto" or device == "CPU" else chip
    if device == "Ascend" and chip == "auto":
        known = _found_chip()
    if known and (problem := unsupported(config, known)):
        raise ValueError(problem)
    if device_dropout is not None and device != "Ascend":
        raise ValueError(
            "run.attention_dropout: 'device' is a kernel of Ascend's; leave it out here, or say positional"
        )
    default = "float16" if device == "Ascend" else "float32"
    dtype = default if config.compute_dtype == "auto" else config.compute_dtype
    choice = dict(_FAST[_row(config, device, dtype, decoding, known)])
    if precision == "medium":
        choice |= _medium(device)
    if device_dropout is not None:
        choice["attention_dropout"] = partial(ascend.AttentionDropout, stream=tuple(device_dropout))
    if config.activation == "fast_gelu":
        choice["activation"] = plain.FastGelu
        choice["fused_block"] = choice["token_kernel"] = None  # they have GELU inside
    if known and FAMILIES[known].saturates:
        choice["float_status"] = ascend.FloatStatus
    return Operators(compute_dtype=getattr(ms, dtype), **choice)


def _medium(device: str) -> dict[str, Any]:
    """The operators whose products have medium precision."""
    if device != "CPU":
        raise ValueError(ONLY_CPU)
    if (problem := missing_bfloat16()) is not None:
        raise ValueError(f"{PRECISION_KEY}: 'medium' multiplies in bfloat16, but {problem}")
    return _MEDIUM


def _row(config: ModelConfig, device: str, dtype: str, decoding: bool, chip: str | None) -> str:
    """Name of the entry in _FAST to use."""
    if device == "CPU":  # the fast kernels there are for float32 only
        if dtype != "float32":
            return "plain"
        return "CPU kernels" if library() else "CPU decoding" if decoding else "CPU"
    if device == "Ascend" and chip and not decoding and has_flash_attention(config, chip):
        return "Ascend flash"
    return device


def _found_chip() -> str | None:
    found = find_chip()
    if found is None:
        warnings.warn(
            f"MindSpore calls this chip {soc_version()!r}, which is not known here: operators are those that "
            "all chips have",
            stacklevel=3,
        )
    return found
