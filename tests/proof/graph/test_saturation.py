"""Float16 as a device in saturation mode computes it, and its status register."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from mindspore.ops.operations.math_ops import NPUClearFloatStatusV2, NPUGetFloatStatusV2

from pangu_alpha.proof.graph.rewrite import RewriteOptions

SATURATES = RewriteOptions(saturates=True)


class Halves(nn.Cell):
    """Twice the square of a number in float16, and what the cast to float16 gives."""

    def construct(self, x):
        half = ops.cast(x, ms.float16)
        return half, ops.mul(half, half) * 2.0


class Product(nn.Cell):
    """A matrix product, then the difference of two overflows."""

    def __init__(self):
        super().__init__()
        self.matmul = ops.MatMul()
        self.less = ops.Sub()

    def construct(self, x):
        product = self.matmul(x, x)
        return product, self.less(product, product)


class Watched(nn.Cell):
    """Squares x and y in float16 and reads the status after x's square alone.

    Args:
        clears: Whether the graph clears the status, after the square of z.
    """

    def __init__(self, clears):
        super().__init__()
        self.clears = clears
        self.clear = NPUClearFloatStatusV2()
        self.read = NPUGetFloatStatusV2()
        self.status = Tensor(np.zeros(8), ms.int32)

    def construct(self, x, y, z):
        before, status = z * z, self.status
        if self.clears:
            status = self.clear(ops.depend(status, before))
            x = ops.depend(x, status)
        square = x * x
        status = self.read(ops.depend(status, (before, square)))
        return square, y * y, before, status


def test_overflow_becomes_the_largest_number_and_nan_becomes_0(rewritten):
    x = Tensor(np.array([300, -1e6, np.nan, 2, np.inf], np.float32))
    half, doubled = rewritten(Halves(), x, options=SATURATES)
    assert half.tolist() == [300, -65504, 0, 2, 65504]
    assert doubled.tolist() == [65504, 65504, 0, 8, 65504]
    half, doubled = rewritten(Halves(), x)
    assert half[[0, 1, 3, 4]].tolist() == [300, -np.inf, 2, np.inf] and np.isnan(half[2])
    assert doubled[[0, 1, 3, 4]].tolist() == [np.inf, np.inf, 8, np.inf]


def test_a_difference_of_overflows_is_a_finite_wrong_number(rewritten):
    x = Tensor(np.full((2, 2), 1000, np.float16))
    product, difference = rewritten(Product(), x, options=SATURATES)
    assert np.all(product == 65504) and np.all(difference == 0)
    product, difference = rewritten(Product(), x)
    assert np.all(np.isinf(product)) and np.all(np.isnan(difference))


def test_float32_is_left_alone(rewritten):
    x = Tensor(np.array([1e30, np.inf], np.float32))
    (value,) = rewritten(Same(), x, options=SATURATES)
    assert value.tolist() == [np.inf, np.inf]


class Same(nn.Cell):
    def construct(self, x):
        return x * x


@pytest.mark.parametrize(
    ("clears", "large", "noted"),
    [
        (False, "", False),
        (False, "x", True),
        (False, "y", False),  # nothing orders y's square before the reading
        (False, "z", True),
        (True, "x", True),
        (True, "y", False),
        (True, "z", False),  # it was cleared since
    ],
)
def test_the_status_tells_of_overflows_that_surely_came_before_it_was_read(rewritten, clears, large, noted):
    inputs = [Tensor(np.array([1, 1000 if name == large else 2], np.float16)) for name in "xyz"]
    *_, status = rewritten(Watched(clears), *inputs, options=SATURATES)
    assert (status.shape, status.dtype) == ((8,), np.int32)
    assert bool(status.any()) == noted
    *_, status = rewritten(Watched(clears), *inputs)
    assert not status.any()  # without saturation inf itself is the sign
