"""Dropout whose masks depend only on an element's place, whichever devices hold it.

Letters: T rows, H hidden, B batch, N heads, S queries, C keys.
"""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from pangu_alpha.data.hashing import column_numbers, head_numbers, salted


class Dropout(nn.Cell):
    """Dropout whose mask is a pure function of each row's key, this cell's salt and the column.

    MindSpore 2.9's own operator draws from a stream that cannot be repeated on another number of devices or
    after a resume. Here an element stays if the product key * salt * (number of its column) modulo 2^32, read
    as a signed number, reaches a threshold that follows from the rate; the factors are odd 32-bit numbers
    without a pattern (multiply-shift hashing: Dietzfelbinger, Hagerup, Katajainen, Penttonen, 1997). This
    needs few operators, each of which passes over all elements in memory. Shifts and exclusive ors would mix
    better than necessary, and Ascend's RightShift runs on its CPU.

    Args:
        rate: Probability of a zero.
        salt: Number that distinguishes the dropout cells of one network.

    Inputs:
        - **x** (Tensor) - [T, H], floating point.
        - **rows** (Tensor) - int32 [B, S], the key of each row (training.schedule.dropout_rows). With None, x
          is returned unchanged.

    Outputs:
        Tensor of the shape and type of `x`; the elements that stay are divided by 1 - rate.
    """

    product: Callable[[], nn.Cell | ops.Primitive] = ops.Mul  # of keys [..., 1] and columns' numbers [H]

    def __init__(self, rate: float, salt: int) -> None:
        super().__init__()
        self.off = rate == 0.0
        self.factor = 1.0 / (1.0 - rate)
        self.salt = salt
        self.threshold = Tensor(mask_threshold(rate), ms.int32)
        self.reshape = ops.Reshape()
        self.bits = self.product()
        self.reached = ops.GreaterEqual()
        self.cast = ops.Cast()
        self.drop = ops.Mul()
        self.rescale = ops.Mul()

    def construct(self, x, rows=None):
        if self.off:
            return x
        if rows is None:
            return x
        columns = _salted_columns(x.shape[1], self.salt)
        keep = self.reached(self.bits(self.reshape(rows, (-1, 1)), columns), self.threshold)
        keep = self.cast(ops.stop_gradient(keep), x.dtype)  # see AttentionDropout
        return self.rescale(self.drop(x, keep), self.factor)


class AttentionDropout(nn.Cell):
    """Dropout of attention weights, whose mask also depends on the head; see Dropout.

    It leaves the rescaling to its caller, who has fewer elements to multiply after the product with the
    values.

    Args:
        rate: Probability of a zero.
        salt: Number that distinguishes the dropout cells of one network.

    Inputs:
        - **weights** (Tensor) - [B, N, S, C], floating point.
        - **rows** (Tensor) - int32 [B, S], the key of each query. With None, the weights are returned
          unchanged.

    Outputs:
        Tensor [B, N, S, C], the weights or 0; the caller must divide it by 1 - rate.
    """

    product: Callable[[], nn.Cell | ops.Primitive] = ops.Mul

    def __init__(self, rate: float, salt: int, num_heads: int) -> None:
        super().__init__()
        self.off = rate == 0.0
        self.factor = 1.0 / (1.0 - rate)
        heads = salted(head_numbers(num_heads), salt)
        self.heads = Tensor(heads.reshape(1, -1, 1), ms.int32)
        self.threshold = Tensor(mask_threshold(rate), ms.int32)
        self.reshape = ops.Reshape()
        self.by_head = ops.Mul()
        self.expand_dims = ops.ExpandDims()
        self.bits = self.product()
        self.reached = ops.GreaterEqual()
        self.cast = ops.Cast()
        self.drop = ops.Mul()

    def construct(self, weights, rows=None):
        if self.off:
            return weights
        if rows is None:
            return weights
        batch, length = rows.shape
        keys = self.by_head(self.reshape(rows, (batch, 1, length)), self.heads)
        # This stands between products with two constants, because MindSpore 2.9 merges them into one where
        # their sizes happen to fit. It can move once MindSpore does not.
        keys = self.expand_dims(keys, 3)
        keep = self.reached(self.bits(keys, _columns(weights.shape[3])), self.threshold)
        # Without stop_gradient, where the cell is recomputed, MindSpore 2.9 would make a dense constant for
        # the gradient of the bits while it compiles: zeros [B, N, S, C] in int32 for each layer.
        keep = self.cast(ops.stop_gradient(keep), weights.dtype)
        return self.drop(weights, keep)


def mask_threshold(rate: float) -> int:
    """The value that the bits of a product, read as a signed number, must reach for an element to stay."""
    return int(rate * 2**32) - 2**31


@constexpr
def _columns(count: int) -> Tensor:
    return Tensor(column_numbers(count), ms.int32)


@constexpr
def _salted_columns(count: int, salt: int) -> Tensor:
    return Tensor(salted(column_numbers(count), salt), ms.int32)


def check_masks(rate: float, float_status: type[nn.Cell] | None = None) -> None:
    """Refuses a device on which the masks would differ from those of other devices.

    Args:
        rate: Probability of a zero.
        float_status: Operators.float_status of a chip that saturates; None for other devices.

    Raises:
        ValueError: A product of int32 is not the lower 32 bits of the whole product; or a comparison is
            wrong, as one by an overflowing difference would be; or the products count as overflow.
    """
    numbers, threshold = column_numbers(64), mask_threshold(rate)
    with np.errstate(over="ignore"):
        expected = numbers.reshape(-1, 1) * numbers
    if float_status is not None:
        float_status.clear()
    products = ops.Mul()(Tensor(numbers.reshape(-1, 1)), Tensor(numbers))
    kept = ops.GreaterEqual()(products, Tensor(threshold, ms.int32))
    bits, answers = products.asnumpy(), kept.asnumpy()  # also waits until both are computed
    overflows = 0.0 if float_status is None else float(float_status()(kept).asnumpy())
    remedy = "train with model.dropout=0 here, and report the chip"
    if wrong := int((bits != expected).sum()):
        raise ValueError(
            f"model.dropout: of {expected.size} products of int32 this device gave {wrong} that are not the "
            f"lower 32 bits of the whole product, from which dropout's masks are made; {remedy}"
        )
    if wrong := int((answers != (expected >= threshold)).sum()):
        raise ValueError(
            f"model.dropout: of {expected.size} comparisons of int32, by which dropout's masks are made, "
            f"this device gave {wrong} wrong answers; {remedy}"
        )
    if overflows:
        raise ValueError(
            "model.dropout: the products of int32 from which dropout's masks are made set this chip's float "
            f"status, so that every step would count as an overflow and be skipped; {remedy}"
        )
