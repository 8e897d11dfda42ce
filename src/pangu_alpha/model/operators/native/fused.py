"""Kernels that compute several of a block's operators at once, and the block that is made of them.

model.pangu.Block defines what they compute; fusing changes where intermediate results lie, not what is added
to what. Letters: T rows, I inputs, O outputs, F inner columns, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops import Primitive

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.run import MatmulPrecision
from pangu_alpha.model.operators.dropout import mask_threshold
from pangu_alpha.model.operators.native.training import first, kernel, kernel_of, salted_columns


class BlockKernels(nn.Cell):
    """What model.fused_block.FusedBlock computes a block with; it has no parameters.

    Args:
        index: Number of the block from 0, on which its dropout masks depend.
    """

    def __init__(self, config: ModelConfig, index: int, precision: MatmulPrecision = "highest") -> None:
        super().__init__()
        self.fork = Fork(config.layer_norm_epsilon)
        self.projections = Projections(precision)
        self.attention_sum = Residual(config.dropout, 3 * index + 2)
        self.feed_forward = FeedForward(precision)
        self.feed_forward_sum = Residual(config.dropout, 3 * index + 3)


class _Fork(nn.Cell):
    """As _Standardize, but x is an output too, and the gradient by x is the sum of both branches'."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = Tensor([epsilon], ms.float32)
        self.forward = kernel("LayerNorm", lambda x, gamma, beta, epsilon: [x, x[:1], x[:1]], 3)
        self.gradient = kernel("LayerNormGradient", lambda x, gamma, *more: [x, gamma, gamma], 3)

    def construct(self, x, gamma, beta):
        found = self.forward(x, gamma, beta, self.epsilon)
        return found[0], x, found[1], found[2]

    def bprop(self, x, gamma, beta, out, dout):
        gradients = self.gradient(x, gamma, out[2], out[3], dout[0], dout[1])
        return gradients[0], gradients[1], gradients[2]


class Fork(nn.Cell):
    """plain.Normalize at the beginning of a branch: returns its result, and x for the residual connection.

    Inputs are those of plain.Normalize.
    """

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.fork = _Fork(epsilon)

    def construct(self, x, gamma, beta):
        found = self.fork(x, gamma, beta)
        return found[0], found[1]


class Projections(nn.Cell):
    """Several linear layers of the same x, whose gradients by x are added up in this order.

    Inputs:
        - **x** (Tensor) - [T, I].
        - **weights** (tuple[Tensor]) - two or three of [O, I].
        - **biases** (tuple[Tensor]) - [O] each.

    Outputs:
        Tuple of [T, O]: x W^T + b of each layer.
    """

    def __init__(self, precision: MatmulPrecision = "highest") -> None:
        super().__init__()
        make = partial(kernel_of, precision)
        self.forward2, self.gradient2 = _projections(make, 2)
        self.forward3, self.gradient3 = _projections(make, 3)

    def construct(self, x, weights, biases):
        if len(weights) == 2:
            return self.forward2(x, *weights, *biases)
        return self.forward3(x, *weights, *biases)

    def bprop(self, x, weights, biases, out, dout):
        if len(weights) == 2:
            found = self.gradient2(x, *weights, *dout)
            return found[0], (found[1], found[2]), (found[3], found[4])
        found = self.gradient3(x, *weights, *dout)
        return found[0], (found[1], found[2], found[3]), (found[4], found[5], found[6])


def _projections(make: Callable[..., Primitive], count: int) -> tuple[Primitive, Primitive]:
    """The kernels of a number of layers: forward and gradient."""

    def results(x, *more):
        return [[x[0], weight[0]] for weight in more[:count]]

    def gradients(x, *more):
        return [x, *more[:count], *(weight[:1] for weight in more[:count]), x]

    return make("Projections", results, count), make("ProjectionsGradient", gradients, 2 + 2 * count)


class _FeedForward(nn.Cell):
    """The result, and for the gradient what GELU got and gave."""

    def __init__(self, precision: MatmulPrecision) -> None:
        super().__init__()
        make = partial(kernel_of, precision)

        def results(x, up, up_bias, down, down_bias):
            return [[x[0], down[0]], [x[0], up[0]], [x[0], up[0]]]

        def gradients(x, up, down, *more):
            return [x, up, up[:1], down, down[:1], [x[0], up[0]]]

        self.forward = make("FeedForward", results, 3)
        self.gradient = make("FeedForwardGradient", gradients, 6)

    def construct(self, x, up, up_bias, down, down_bias):
        return self.forward(x, up, up_bias, down, down_bias)

    def bprop(self, x, up, up_bias, down, down_bias, out, dout):
        found = self.gradient(x, up, down, out[1], out[2], dout[0])
        return found[0], found[1], found[2], found[3], found[4]


class FeedForward(nn.Cell):
    """plain.Affine, plain.Gelu and plain.Affine.

    GELU and its gradient are computed of parts of a product that are still in the cache.

    Inputs:
        - **x** (Tensor) - [T, H].
        - **up**, **up_bias** (Tensor) - [F, H] and [F], of the first layer.
        - **down**, **down_bias** (Tensor) - [O, F] and [O], of the second layer.

    Outputs:
        Tensor [T, O].
    """

    def __init__(self, precision: MatmulPrecision = "highest") -> None:
        super().__init__()
        self.layers = _FeedForward(precision)

    def construct(self, x, up, up_bias, down, down_bias):
        return self.layers(x, up, up_bias, down, down_bias)[0]


class _Sum(nn.Cell):
    """x + y."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = kernel("Residual", first)

    def construct(self, x, y):
        return self.forward(x, y)

    def bprop(self, x, y, out, dout):
        return dout, dout


class _DroppingSum(nn.Cell):
    """x + dropout of y by position."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.threshold = Tensor([mask_threshold(rate)], ms.int32)
        self.factor = Tensor([1.0 / (1.0 - rate)], ms.float32)
        self.forward = kernel("Residual", first)
        self.drop = kernel("Dropout", first)

    def construct(self, x, y, rows, columns):
        return self.forward(x, y, rows, columns, self.threshold, self.factor)

    def bprop(self, x, y, rows, columns, out, dout):
        dy = self.drop(dout, rows, columns, self.threshold, self.factor)
        return dout, dy, ops.zeros_like(rows), ops.zeros_like(columns)


class Residual(nn.Cell):
    """The end of a branch: x + dropout.Dropout of the branch.

    Inputs:
        - **x** (Tensor) - [T, H], the residual stream.
        - **branch** (Tensor) - [T, H].
        - **rows** (Tensor) - as for dropout.Dropout, or None for no dropout.
    """

    def __init__(self, rate: float, salt: int) -> None:
        super().__init__()
        self.off = rate == 0.0
        self.salt = salt
        self.sum = _Sum()
        self.dropping = _DroppingSum(rate)

    def construct(self, x, branch, rows=None):
        if self.off:
            return self.sum(x, branch)
        if rows is None:
            return self.sum(x, branch)
        return self.dropping(x, branch, rows, salted_columns(x.shape[1], self.salt))
