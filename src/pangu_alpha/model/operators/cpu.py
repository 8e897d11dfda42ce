"""Operators written for MindSpore 2.9's CPU kernels. plain.py defines what they compute.

Measurements behind this file: the kernels BiasAddGrad, LayerNorm, GeLU and their gradients run on one core
without vector instructions. A kernel that broadcasts (except a scalar) or transposes is slow, and keeps an
index table of 8 to 16 bytes for each element of its output forever. So shapes are made equal first, and
gradients are written out here, which also keeps less between forward and backward. Once a later MindSpore has
fast kernels, the plain operators win and this file can go.
Letters: T rows, I inputs, O outputs, H hidden, V vocabulary, B batch, N heads, S queries, C keys,
d head size.
"""

from __future__ import annotations

import math

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops import auto_generate
from mindspore.ops.operations import _grad_ops

from pangu_alpha.model.operators import dropout, plain
from pangu_alpha.model.operators.plain import GELU_CUBIC, GELU_LINEAR


class ColumnSum(nn.Cell):
    """Sum over rows, as a matrix product with ones; BiasAddGrad takes twenty times as long.

    Inputs:
        - **x** (Tensor) - [T, O].

    Outputs:
        Tensor [O].
    """

    def __init__(self) -> None:
        super().__init__()
        self.matmul = ops.MatMul()

    def construct(self, x: Tensor) -> Tensor:
        ones = ops.ones((1, x.shape[0]), x.dtype)
        return self.matmul(ones, x).reshape((-1,))


class Affine(nn.Cell):
    """x W^T + b; see plain.Affine."""

    def __init__(self) -> None:
        super().__init__()
        self.product = ops.MatMul(transpose_b=True)
        self.bias_add = ops.BiasAdd()
        self.input_gradient = ops.MatMul()
        self.weight_gradient = ops.MatMul(transpose_a=True)
        self.column_sum = ColumnSum()

    def construct(self, x, weight, bias):
        return self.bias_add(self.product(x, weight), bias)

    def bprop(self, x, weight, bias, out, dout):
        return self.input_gradient(dout, weight), self.weight_gradient(dout, x), self.column_sum(dout)


class DenseAffine(nn.Cell):
    """x W^T + b in one kernel, for few rows; see plain.Affine. For many rows, MatMul is faster."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = auto_generate.Dense()

    def construct(self, x, weight, bias):
        return self.dense(x, weight, bias)


class _Standardize(nn.Cell):
    """Layer normalisation by the BatchNorm kernel, which treats each row as a channel.

    Inputs:
        As plain.Normalize.

    Outputs:
        The normalised rows, and for the gradient (x - mean) / deviation [T, H] and 1 / deviation [T].
    """

    def __init__(self, columns: int, epsilon: float) -> None:
        super().__init__()
        self.columns = columns
        self.epsilon = epsilon
        self.norm = ops.BatchNorm(is_training=True, epsilon=epsilon, momentum=0.0)
        self.norm_gradient = _grad_ops.BatchNormGrad(is_training=True, epsilon=epsilon)
        self.bias_add = ops.BiasAdd()
        self.rsqrt = ops.Rsqrt()
        self.column_sum = ColumnSum()

    def channels(self, x):
        """Reshapes [T, H] to [1, T, H, 1]."""
        return x.reshape((1, -1, self.columns, 1))

    def construct(self, x, gamma, beta):
        ones, zeros = ops.ones((x.shape[0],), x.dtype), ops.zeros((x.shape[0],), x.dtype)
        standard, _, _, _, variance = self.norm(self.channels(x), ones, zeros, zeros, ones)
        standard = standard.reshape(x.shape)
        scaled = standard * ops.broadcast_to(gamma, x.shape)
        return self.bias_add(scaled, beta), standard, self.rsqrt(variance + self.epsilon)

    def bprop(self, x, gamma, beta, out, dout):
        upstream, standard, inverse = dout[0], out[1], out[2]
        scaled = self.channels(upstream * ops.broadcast_to(gamma, x.shape))
        # The rows given here are standardised already, so the deviation that the kernel computes must be 1.
        zeros = ops.zeros(inverse.shape, inverse.dtype)
        variance = zeros + (1.0 - self.epsilon)
        dx = self.norm_gradient(scaled, self.channels(standard), inverse, zeros, variance, variance)[0]
        return dx.reshape(x.shape), self.column_sum(upstream * standard), self.column_sum(upstream)


class Normalize(nn.Cell):
    """See plain.Normalize."""

    def __init__(self, columns: int, epsilon: float) -> None:
        super().__init__()
        self.standardize = _Standardize(columns, epsilon)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return self.standardize(x, gamma, beta)[0]


class Gelu(nn.Cell):
    """The tanh form of GELU; see plain.Gelu. It keeps only x, and computes the sigmoid twice."""

    def __init__(self) -> None:
        super().__init__()
        self.square = ops.Square()
        self.sigmoid = ops.Sigmoid()
        self.sigmoid_gradient = auto_generate.SigmoidGrad()

    def construct(self, x):
        return x * self.sigmoid(x * (2 * GELU_LINEAR + 2 * GELU_CUBIC * self.square(x)))

    def bprop(self, x, out, dout):
        square = self.square(x)
        gate = self.sigmoid(x * (2 * GELU_LINEAR + 2 * GELU_CUBIC * square))
        # This is x times the derivative of the sigmoid's argument.
        inner = x * (2 * GELU_LINEAR + 6 * GELU_CUBIC * square)
        return (dout * (gate + self.sigmoid_gradient(gate, inner)),)


class ScoreMask(nn.Cell):
    """plain.ScoreMask repeated for every head, once a step: a broadcasting sum takes three times as long.

    Outputs:
        Tensor [B, N, S, C], float32: 0 or -10000.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.plain = plain.ScoreMask(num_heads)

    def construct(self, attention_mask):
        batch, queries, keys = attention_mask.shape
        return ops.broadcast_to(self.plain(attention_mask), (batch, self.num_heads, queries, keys))


class SplitHeads(nn.Cell):
    """See plain.SplitHeads. It unstacks and stacks, because Transpose keeps an index table."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.unstack = ops.Unstack(axis=2, num=num_heads)
        self.stack = ops.Stack(axis=1)

    def construct(self, x, batch):
        return self.stack(self.unstack(x.reshape((batch, -1, self.num_heads, x.shape[1] // self.num_heads))))


class JoinHeads(nn.Cell):
    """See plain.JoinHeads."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.columns = num_heads
        self.unstack = ops.Unstack(axis=1, num=num_heads)
        self.stack = ops.Stack(axis=2)

    def construct(self, heads):
        return self.stack(self.unstack(heads)).reshape((-1, self.columns * heads.shape[3]))


class _Softmax(nn.Cell):
    """softmax(q k^T / sqrt(d) + mask) v without dropout; keeps q, k, v, and computes the weights again."""

    def __init__(self, head_size: int) -> None:
        super().__init__()
        self.scale = 1.0 / math.sqrt(head_size)
        self.transposed_b = ops.BatchMatMul(transpose_b=True)
        self.transposed_a = ops.BatchMatMul(transpose_a=True)
        self.product = ops.BatchMatMul()
        self.softmax = ops.Softmax(-1)
        self.matmul = ops.MatMul()

    def weights(self, query, key, mask):
        """The attention weights [B, N, S, C]."""
        return self.softmax(self.transposed_b(query * self.scale, key) + mask)

    def construct(self, query, key, value, mask):
        return self.product(self.weights(query, key, mask), value)

    def bprop(self, query, key, value, mask, out, dout):
        weights = self.weights(query, key, mask)
        dweights = self.transposed_b(dout, value)
        # The row sums are those of weights * dweights. Those of dout * out are equal except for rounding, but
        # a row with a single key must give exactly zero, or Adam turns the rounding noise into steps.
        keys = key.shape[2]
        sums = self.matmul((weights * dweights).reshape((-1, keys)), ops.ones((keys, 1), query.dtype))
        sums = ops.broadcast_to(sums, (sums.shape[0], keys)).reshape(weights.shape)
        dscores = weights * (dweights - sums)
        dquery = self.product(dscores, key) * self.scale
        dkey = self.transposed_a(dscores, query * self.scale)
        return dquery, dkey, self.transposed_a(weights, dout), ops.zeros_like(mask)


class AttentionCore(nn.Cell):
    """See plain.AttentionCore, which is used if there is dropout."""

    def __init__(self, num_heads: int, head_size: int, dropout: nn.Cell) -> None:
        super().__init__()
        self.without_dropout = _Softmax(head_size)
        self.plain = plain.AttentionCore(num_heads, head_size, dropout)

    def construct(self, query, key, value, mask, dropout_rows=None):
        if dropout_rows is None:
            return self.without_dropout(query, key, value, mask)
        return self.plain(query, key, value, mask, dropout_rows)


class _OuterProduct(nn.Cell):
    """Product of keys [..., 1] and columns' numbers [C], after their shapes are made equal."""

    def __init__(self) -> None:
        super().__init__()
        self.mul = ops.Mul()

    def construct(self, keys, columns):
        shape = (*keys.shape[:-1], columns.shape[0])
        return self.mul(ops.broadcast_to(keys, shape), ops.broadcast_to(columns, shape))


class Dropout(dropout.Dropout):
    """See dropout.Dropout."""

    product = _OuterProduct


class AttentionDropout(dropout.AttentionDropout):
    """See dropout.AttentionDropout."""

    product = _OuterProduct


class _Probabilities(nn.Cell):
    """-log(softmax(x E^T)[label] + 1e-24), and the probabilities, which the gradient uses again."""

    def __init__(self) -> None:
        super().__init__()
        self.transposed_b = ops.MatMul(transpose_b=True)
        self.transposed_a = ops.MatMul(transpose_a=True)
        self.product = ops.MatMul()
        self.softmax = ops.Softmax(-1)
        self.pick = ops.GatherD()
        self.log = ops.Log()
        self.rows = ops.Gather()
        self.add_rows = ops.UnsortedSegmentSum()

    def construct(self, x, table, labels):
        probabilities = self.softmax(self.transposed_b(x, table))
        chosen = self.pick(probabilities, 1, labels.reshape((-1, 1))).reshape((-1,))
        return -self.log(chosen + 1e-24), probabilities

    def bprop(self, x, table, labels, out, dout):
        # d nll = p - onehot: subtracting the label's row from the product with p saves a pass over [T, V].
        upstream = ops.broadcast_to(dout[0].reshape((-1, 1)), x.shape)
        dx = (self.product(out[1], table) - self.rows(table, labels, 0)) * upstream
        weighted = x * upstream
        dtable = self.transposed_a(out[1], weighted) - self.add_rows(weighted, labels, table.shape[0])
        return dx, dtable, ops.zeros_like(labels)


class TiedCrossEntropy(nn.Cell):
    """See plain.TiedCrossEntropy.

    Args:
        vocab_size: Not used, because on CPU the table is not padded.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.loss = _Probabilities()

    def construct(self, x: Tensor, table: Tensor, labels: Tensor) -> Tensor:
        return self.loss(x, table, labels)[0]


class SquareSum(nn.Cell):
    """See plain.SquareSum. As a matrix product it is seven times as fast.

    The kernel L2Loss would be as fast, but is off by 4e-3 for four million elements.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dot = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        row = x.reshape((1, -1))
        return self.dot(row, row).reshape(())


class KeepIf(nn.Cell):
    """See plain.KeepIf; the mask gets x's shape, because a mask that broadcasts keeps an index table."""

    def __init__(self) -> None:
        super().__init__()
        self.negate = ops.LogicalNot()
        self.fill = ops.MaskedFill()
        self.zero = Tensor(0.0, ms.float32)

    def construct(self, condition: Tensor, x: Tensor) -> Tensor:
        return self.fill(x, ops.broadcast_to(self.negate(condition), x.shape), self.zero)
