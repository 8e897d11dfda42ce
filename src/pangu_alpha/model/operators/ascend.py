"""Operators for which Ascend has a fused kernel. What they compute stands in plain.py."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.operations.math_ops import NPUClearFloatStatusV2, NPUGetFloatStatusV2

from pangu_alpha.data.hashing import device_seeds


class Gelu(nn.Cell):
    """The tanh form of GELU by the fused kernel; see plain.Gelu."""

    def __init__(self) -> None:
        super().__init__()
        self.gelu = ops.GeLU()

    def construct(self, x: Tensor) -> Tensor:
        return self.gelu(x)


class BlockedMask(nn.Cell):
    """Turns "may attend" into the kernel's "is blocked".

    Args:
        num_heads: N; the mask serves all heads.

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
        num_heads: N.
        head_size: d.
        dropout: As there; its rate must be 0.

    Inputs:
        As plain.AttentionCore; **mask** as made by BlockedMask.
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
    """Dropout of attention weights by the device's own kernel; if rows are given, and only then.

    It moves a third of the bytes that dropout.AttentionDropout does, but the stream is the device's: each
    device draws for the slice it holds, so that other slices get other masks, and so does a resume.
    MindSpore 2.9 says of the operator that its seeds have no effect on Ascend.

    Args:
        rate: Probability of a zero.
        salt: Tells the cells of one network apart.
        num_heads: N; not needed here.
        stream: Whole numbers that no device with another slice of the tensor shares: the run's seed, and the
            device's coordinates on the axes that cut it.

    Inputs:
        - **weights** (Tensor) - any shape, floating point.
        - **rows** (Tensor) - any; its value is not used. None passes the weights through.

    Outputs:
        Tensor of the shape and type of `weights`, divided by 1 - rate already.
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
    """The register in which a chip that saturates notes that a result was too large, or NaN.

    Every vector or matrix operator sets it, nothing but `clear` resets it. It is not a value of the graph:
    the order of the operators is all that says what a reading covers.

    Inputs:
        - **computed** (any) - what must have been computed before the register is read.

    Outputs:
        Tensor, float32 scalar, 0 if no result saturated since the register was cleared, else more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unused = Tensor(np.zeros(8, np.int32))  # the operators want an input that has no meaning
        self.get = NPUGetFloatStatusV2()
        self.not_equal = ops.NotEqual()
        self.cast = ops.Cast()
        self.sum = ops.ReduceSum()

    def construct(self, computed):
        status = self.get(ops.depend(self.unused, computed))
        return self.sum(self.cast(self.not_equal(status, 0), ms.float32), 0)

    @staticmethod
    def clear() -> None:
        """Resets the register and waits until that is done; elsewhere than on Ascend there is none.

        Called before a step's graphs are started. Inside a graph of several stages the clearing could not be
        put before the first operator: what follows a Receive does not depend on the graph's inputs.
        """
        if ms.get_context("device_target") == "Ascend":
            NPUClearFloatStatusV2()(Tensor(np.zeros(8, np.int32))).asnumpy()
