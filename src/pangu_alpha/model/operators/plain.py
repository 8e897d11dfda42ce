"""Every operator in MindSpore's elementary ones: the definitions with which faster versions are compared.

Letters: T rows, I inputs, O outputs, H hidden, V vocabulary, B batch, N heads, S queries, C keys,
d head size.
Each elementary operator is a named attribute, so that a plan can place it from outside.
"""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

MASKED_SCORE = -10000.0  # added to the score of a key that may not be attended to (2021 release)
GELU_LINEAR = math.sqrt(2.0 / math.pi)  # of the tanh form of GELU (Hendrycks & Gimpel, 2016)
GELU_CUBIC = 0.044715 * GELU_LINEAR


class Affine(nn.Cell):
    """x W^T + b.

    Inputs:
        - **x** (Tensor) - [T, I].
        - **weight** (Tensor) - [O, I].
        - **bias** (Tensor) - [O].

    Outputs:
        Tensor [T, O].
    """

    def __init__(self) -> None:
        super().__init__()
        self.matmul = ops.MatMul(transpose_b=True)
        self.add = ops.Add()

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return self.add(self.matmul(x, weight), bias)


def linear() -> ops.Primitive:
    """The operator x W^T."""
    return ops.MatMul(transpose_b=True)


class Normalize(nn.Cell):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta over the last axis, with the biased variance.

    Inputs:
        - **x** (Tensor) - [T, H], float32.
        - **gamma**, **beta** (Tensor) - [H], float32.

    Outputs:
        Tensor [T, H], float32.
    """

    def __init__(self, columns: int, epsilon: float) -> None:
        super().__init__()
        self.norm = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=epsilon)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return self.norm(x, gamma, beta)[0]


class Gelu(nn.Cell):
    """0.5 x (1 + tanh(u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), the tanh form of the 2021 release.

    It is computed as x sigmoid(2 u), which is equal, because MindSpore 2.9's Tanh kernel on CPU is off by up
    to 1e-4. The Tanh form could return once that kernel is exact.

    Inputs:
        - **x** (Tensor) - any shape, floating point.

    Outputs:
        Tensor of the shape and type of `x`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.square = ops.Square()
        self.scale = ops.Mul()
        self.shift = ops.Add()
        self.sigmoid = ops.Sigmoid()
        self.mul = ops.Mul()

    def construct(self, x: Tensor) -> Tensor:
        inner = self.mul(x, self.shift(self.scale(self.square(x), 2.0 * GELU_CUBIC), 2.0 * GELU_LINEAR))
        return self.mul(x, self.sigmoid(inner))


class FastGelu(nn.Cell):
    """x sigmoid(1.702 x), the activation of the 2023 code on Ascend; a different function from GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = ops.Mul()
        self.sigmoid = ops.Sigmoid()
        self.mul = ops.Mul()

    def construct(self, x: Tensor) -> Tensor:
        return self.mul(x, self.sigmoid(self.scale(x, 1.702)))


class ScoreMask(nn.Cell):
    """Turns "may attend" into a number to add to a score.

    Args:
        num_heads: Not used; one mask is broadcast to all heads.

    Inputs:
        - **attention_mask** (Tensor) - [B, S, C], 1 = may attend, any type.

    Outputs:
        Tensor [B, 1, S, C], float32: 0 or -10000.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.cast = ops.Cast()
        self.sub = ops.Sub()
        self.mul = ops.Mul()
        self.expand_dims = ops.ExpandDims()

    def construct(self, attention_mask: Tensor) -> Tensor:
        blocked = self.sub(1.0, self.cast(attention_mask, ms.float32))
        return self.expand_dims(self.mul(blocked, MASKED_SCORE), 1)


class SplitHeads(nn.Cell):
    """Reshapes [B*S, H] to [B, N, S, d]; head h is columns h d to (h + 1) d.

    Inputs:
        - **x** (Tensor) - [B*S, H].
        - **batch** (int) - B.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.reshape = ops.Reshape()
        self.transpose = ops.Transpose()

    def construct(self, x, batch):
        heads = self.reshape(x, (batch, -1, self.num_heads, x.shape[1] // self.num_heads))
        return self.transpose(heads, (0, 2, 1, 3))


class JoinHeads(nn.Cell):
    """Reshapes [B, N, S, d] to [B*S, H]; the inverse of SplitHeads."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.reshape = ops.Reshape()
        self.transpose = ops.Transpose()

    def construct(self, heads):
        return self.reshape(self.transpose(heads, (0, 2, 1, 3)), (-1, self.num_heads * heads.shape[3]))


class AttentionCore(nn.Cell):
    """dropout(softmax(q k^T / sqrt(d) + mask)) v, with scores and softmax in float32.

    Args:
        head_size: d.
        dropout: Cell of (weights, rows). Its attribute `factor` multiplies the result.

    Inputs:
        - **query** (Tensor) - [B, N, S, d].
        - **key**, **value** (Tensor) - [B, N, C, d].
        - **mask** (Tensor) - made by the `mask` cell of the same device.
        - **dropout_rows** (Tensor) - int32 [B, S], the dropout's key of each query, or None for no dropout.

    Outputs:
        Tensor [B, N, S, d] in the type of `query`.
    """

    def __init__(self, num_heads: int, head_size: int, dropout: nn.Cell) -> None:
        super().__init__()
        self.factor = 1.0 / math.sqrt(head_size)
        self.scale = ops.Mul()
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.cast = ops.Cast()
        self.add = ops.Add()
        self.softmax = ops.Softmax(-1)
        self.dropout = dropout
        self.mix = ops.BatchMatMul()
        self.rescale = ops.Mul()
        self.dropout_factor = dropout.factor

    def construct(self, query, key, value, mask, dropout_rows=None):
        scores = self.scores(self.scale(query, self.factor), key)  # [B, N, S, C]
        weights = self.softmax(self.add(self.cast(scores, ms.float32), mask))
        weights = self.dropout(self.cast(weights, value.dtype), dropout_rows)
        mixed = self.mix(weights, value)
        if dropout_rows is None or self.dropout_factor == 1.0:
            return mixed
        return self.rescale(mixed, self.dropout_factor)


class TiedCrossEntropy(nn.Cell):
    """-log(softmax(x E^T)[label] + 1e-24), with the softmax in float32 (2021 release).

    It consists of operators that can all be split by vocabulary: no softmax or selection across columns.

    Args:
        vocab_size: V; the rows beyond it in a padded table get a probability of 0.

    Inputs:
        - **x** (Tensor) - [T, H].
        - **table** (Tensor) - [V or more, H], float32; multiplied in the type of `x`.
        - **labels** (Tensor) - int32 [T].

    Outputs:
        Tensor [T], float32, nats.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.cast_table = ops.Cast()
        self.matmul = ops.MatMul(transpose_b=True)
        self.cast = ops.Cast()
        self.mask_padding = ops.Add()
        self.max = ops.ReduceMax(keep_dims=True)
        self.sub = ops.Sub()
        self.exp = ops.Exp()
        self.sum = ops.ReduceSum()
        self.one_hot = ops.OneHot()
        self.pick = ops.Mul()
        self.sum_picked = ops.ReduceSum()
        self.div = ops.Div()
        self.add = ops.Add()
        self.log = ops.Log()
        self.neg = ops.Neg()
        self.on = Tensor(1.0, ms.float32)
        self.off = Tensor(0.0, ms.float32)

    def construct(self, x: Tensor, table: Tensor, labels: Tensor) -> Tensor:
        scores = self.cast(self.matmul(x, self.cast_table(table, x.dtype)), ms.float32)
        rows = table.shape[0]
        if rows > self.vocab_size:
            scores = self.mask_padding(scores, padding_scores(self.vocab_size, rows))
        # Subtracting the largest score does not change the result, so it needs no gradient.
        powers = self.exp(self.sub(scores, ops.stop_gradient(self.max(scores, -1))))
        chosen = self.sum_picked(self.pick(powers, self.one_hot(labels, rows, self.on, self.off)), -1)
        return self.neg(self.log(self.add(self.div(chosen, self.sum(powers, -1)), 1e-24)))


@constexpr
def padding_scores(vocab_size: int, rows: int) -> Tensor:
    """Numbers [rows], float32, to add to scores: 0 for each token, the lowest float16 for a padding row.

    exp of that number is 0, and so is the gradient of such a row.
    """
    return Tensor(np.where(np.arange(rows) < vocab_size, 0.0, -65504.0), ms.float32)


class SquareSum(nn.Cell):
    """Sum of the squares of all elements.

    Inputs:
        - **x** (Tensor) - any shape, float32.

    Outputs:
        Tensor, scalar, float32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.square = ops.Square()
        self.sum = ops.ReduceSum()

    def construct(self, x: Tensor) -> Tensor:
        return self.sum(self.square(x))


class KeepIf(nn.Cell):
    """x, or zeros of its shape; the zeros also replace NaN and inf.

    Inputs:
        - **condition** (Tensor) - bool scalar.
        - **x** (Tensor) - any shape, float32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.select = ops.Select()
        self.zero = Tensor(0.0, ms.float32)

    def construct(self, condition: Tensor, x: Tensor) -> Tensor:
        return self.select(condition, x, self.zero)
