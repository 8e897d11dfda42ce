"""Which operators a device computes best: the one place where the device decides, never the mathematics.

plain.py and dropout.py define every operator by MindSpore's elementary ones; cpu.py and ascend.py hold what
is faster there. Every variant computes the same function, and a test holds them equal.
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
from pangu_alpha.model.chip import find_chip, soc_version
from pangu_alpha.model.operators import ascend, cpu, plain
from pangu_alpha.model.operators import dropout as positional

__all__ = ["Operators", "dropout", "operators_for"]


@dataclass(frozen=True)
class Operators:
    """A device's choice: what makes each operator, and the type it computes in.

    Args:
        compute_dtype: Type of matrix products and the residual stream.
        affine: () -> cell of (x, weight, bias).
        layer_norm: (columns, epsilon) -> cell of (x, gamma, beta).
        activation: () -> cell of (x).
        mask: (heads) -> cell of (attention mask).
        split_heads: (heads) -> cell of (x, batch).
        join_heads: (heads) -> cell of (heads).
        attention: (heads, head size, dropout) -> cell of (query, key, value, mask, dropout rows).
        dropout: (rate, salt) -> cell of (x, dropout rows) for the residual stream; without rows it passes x
            through, whether the cell is set to training or not.
        attention_dropout: (rate, salt, heads) -> cell of (weights, dropout rows), as `dropout`.
        cross_entropy: (vocabulary) -> cell of (x, table, labels).
        square_sum: () -> cell of (x).
        keep_if: () -> cell of (condition, x).
        float_status: Class of the cell that tells of overflow; None where the results themselves tell.
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
    # One row a token: the number of kernels counts, and the plain operators have the fewest.
    "CPU decoding": {"affine": cpu.DenseAffine},
    "Ascend": {"activation": ascend.Gelu},
    # for training without dropout in half precision
    "Ascend flash": {
        "activation": ascend.Gelu,
        "mask": ascend.BlockedMask,
        "attention": ascend.FlashAttention,
    },
}


def operators_for(
    config: ModelConfig,
    device: str | None = None,
    decoding: bool = False,
    chip: str = "auto",
    device_dropout: Sequence[int] | None = None,
) -> Operators:
    """The operators that are fast on a device.

    Args:
        config: Gives the activation and the compute type.
        device: "CPU", "Ascend", or "plain" for the definitions; the current context's when left out.
        decoding: Whether the model only generates, a token a row at a time.
        chip: Of an Ascend device, one of config.families.FAMILIES. "auto" is the one that MindSpore finds,
            and with device "plain" none. One that is not known gets operators that all chips have.
        device_dropout: Lets the device's kernel draw the masks of the attention weights, from this stream of
            ascend.AttentionDropout; None: masks by position, as everywhere else.

    Raises:
        ValueError: The chip does not have the compute type, or no kernel that draws masks by itself.
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
    if device_dropout is not None:
        choice["attention_dropout"] = partial(ascend.AttentionDropout, stream=tuple(device_dropout))
    if config.activation == "fast_gelu":
        choice["activation"] = plain.FastGelu
    if known and FAMILIES[known].saturates:
        choice["float_status"] = ascend.FloatStatus
    return Operators(compute_dtype=getattr(ms, dtype), **choice)


def _row(config: ModelConfig, device: str, dtype: str, decoding: bool, chip: str | None) -> str:
    """Which operators of _FAST serve."""
    if device == "CPU":  # its fast kernels are for float32
        return "plain" if dtype != "float32" else "CPU decoding" if decoding else "CPU"
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
