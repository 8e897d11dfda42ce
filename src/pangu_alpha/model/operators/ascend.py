"""Operators for which Ascend has a fused kernel. plain.py defines what they compute."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.operations.math_ops import NPUClearFloatStatusV2, NPUGetFloatStatusV2

from pangu_alpha.data.hashing import device_seeds


class Gelu(nn.Cell):
    """The tanh form of GELU, by the fused kernel; see plain.Gelu."""

    def __init__(self) -> None:
        super().__init__()
        self.gelu = ops.GeLU()

    def construct(self, x: Tensor) -> Tensor:
        return self.gelu(x)


class BlockedMask(nn.Cell):
    """Turns "may attend" into "is blocked", as the kernel expects it.

    Args:
        num_heads: Not used; one mask serves all heads.

    Inputs:
        - **attention_mask** (Tensor) - [B, S, C], 1 = may attend, any type.

    Outputs:
        Tensor [B, 1, S, C], uint8, 1 = blocked.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.cast = ops.Cast()
        self.sub = ops.Sub()
        self.cast_blocked = ops.Cast()
        self.expand_dims = ops.ExpandDims()

    def construct(self, attention_mask: Tensor) -> Tensor:
        blocked = self.sub(1.0, self.cast(attention_mask, ms.float32))
        return self.expand_dims(self.cast_blocked(blocked, ms.uint8), 1)


class FlashAttention(nn.Cell):
    """Attention by FlashAttentionScore, in half precision and without dropout; see plain.AttentionCore.

    Args:
        dropout: A dropout cell whose rate must be 0, because the kernel is called without dropout.

    Inputs:
        As plain.AttentionCore, with **mask** as made by BlockedMask.
    """

    def __init__(self, num_heads: int, head_size: int, dropout: nn.Cell) -> None:
        super().__init__()
        assert dropout.off
        self.flash_attention = ops.operations.nn_ops.FlashAttentionScore(
            head_num=num_heads, scale_value=1.0 / math.sqrt(head_size), input_layout="BNSD"
        )

    def construct(self, query, key, value, mask, dropout_rows=None):
        return self.flash_attention(query, key, value, None, None, None, mask)[3]


class AttentionDropout(nn.Cell):
    """Dropout of attention weights by the device's own kernel, which applies only if rows are given.

    It moves a third of the bytes that dropout.AttentionDropout does. But each device draws its own masks for
    the slice it holds, so another split of the tensor gets other masks, and so does a resume. According to
    MindSpore 2.9's documentation, the operator's seeds have no effect on Ascend.

    Args:
        rate: Probability of a zero.
        salt: Number that distinguishes the dropout cells of one network.
        num_heads: Not used.
        stream: Whole numbers that differ between devices with different slices of the tensor: the run's seed,
            and the device's coordinates on the axes that cut the tensor.

    Inputs:
        - **weights** (Tensor) - any shape, floating point.
        - **rows** (Tensor) - any; its value is not used. With None, the weights are returned unchanged.

    Outputs:
        Tensor of the shape and type of `weights`, already divided by 1 - rate.
    """

    def __init__(self, rate: float, salt: int, num_heads: int, stream: Sequence[int] = ()) -> None:
        super().__init__()
        self.off = rate == 0.0
        self.factor = 1.0
        self.dropout = ops.Dropout(1.0 - rate, *device_seeds(stream, salt))

    def construct(self, weights, rows=None):
        if self.off:
            return weights
        if rows is None:
            return weights
        return self.dropout(weights)[0]


class FloatStatus(nn.Cell):
    """The register in which a saturating chip notes that a result was too large, or NaN.

    Every vector or matrix operator can set it, and only `clear` resets it. It is not a value of the graph, so
    only the order of the operators decides which results a reading covers.

    Inputs:
        - **computed** (any) - what must be computed before the register is read.

    Outputs:
        Tensor, float32 scalar: 0 if no result has saturated since the register was cleared, else more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unused = Tensor(np.zeros(8, np.int32))  # the operators require an input, but do not use it
        self.get = NPUGetFloatStatusV2()
        self.not_equal = ops.NotEqual()
        self.cast = ops.Cast()
        self.sum = ops.ReduceSum()

    def construct(self, computed):
        status = self.get(ops.depend(self.unused, computed))
        return self.sum(self.cast(self.not_equal(status, 0), ms.float32), 0)

    @staticmethod
    def clear() -> None:
        """Resets the register and waits until that is done; does nothing on devices other than Ascend.

        Call it before the graphs of a step are started. Inside a graph of several stages it could not be
        ordered before the first operator, because what follows a Receive does not depend on the graph's
        inputs.
        """
        if ms.get_context("device_target") == "Ascend":
            NPUClearFloatStatusV2()(Tensor(np.zeros(8, np.int32))).asnumpy()
