"""What devices exchange in an optimizer step, apart from what the partitioned operators exchange.

Each cell has three methods: `batch_sums` turns gradients and tokens of one device's rows into those of the
whole batch, `square_sum` turns the squares of its gradients into the square of the global norm, and `total`
sums a scalar over all devices.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Tensor, nn, ops


class OneDevice(nn.Cell):
    """Exchanges nothing, because the device holds the whole batch and every gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.add = ops.AddN()

    def batch_sums(self, gradients, tokens):
        """Returns gradients and tokens unchanged."""
        return gradients, tokens

    def square_sum(self, squares):
        """Sum of the scalars in `squares`."""
        return self.add(squares)

    def total(self, scalar):
        """Returns the scalar unchanged."""
        return scalar


class DataParallel(OneDevice):
    """Sums for ranks that each hold the whole model and read their own rows, by explicit AllReduce.

    The update gets equal gradients on all ranks, so norm, clipping and skipping are equal too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world_sum = ops.AllReduce(ops.ReduceOp.SUM)

    def batch_sums(self, gradients, tokens):
        """Sums of gradients and tokens over all ranks."""
        last = self.world_sum(tokens)
        all_tokens = last
        sums = ()
        for gradient in gradients:  # in a fixed order, because ranks with different orders would hang
            last = self.world_sum(ops.depend(gradient, last))
            sums += (last,)
        return sums, all_tokens

    def total(self, scalar):
        """Sum of every rank's scalar."""
        return self.world_sum(scalar)


class Partitioned(nn.Cell):
    """Sums in a graph whose operators MindSpore has split: gradients are slices, the batch is cut by rows.

    Several devices hold the same slice of a gradient, so each of its squares counts 1 / holders; all devices
    of a data-parallel rank hold the same rows.

    Args:
        shares: For each gradient, 1 / number of devices that hold its slice.
        row_share: 1 / number of devices that read the same rows, which is 1 / (tp * pp).
    """

    def __init__(self, shares: Sequence[float], row_share: float) -> None:
        super().__init__()
        self.shares = tuple(Tensor(share, ms.float32) for share in shares)
        self.row_share = Tensor(row_share, ms.float32)
        self.mul = ops.Mul()
        self.map = ops.HyperMap()
        self.add = ops.AddN()
        self.world_sum = ops.AllReduce(ops.ReduceOp.SUM)

    def batch_sums(self, gradients, tokens):
        """Sums the tokens; the partitioner has already summed the gradients.

        The gradients wait for the sum of the tokens, so that the norm's sum comes after it on every device.
        """
        total = self.world_sum(self.mul(tokens, self.row_share))
        return ops.depend(gradients, total), total

    def square_sum(self, squares):
        """Sum over all devices, in which every element of every gradient counts once."""
        return self.world_sum(self.add(self.map(self.mul, squares, self.shares)))

    def total(self, scalar):
        """Sum of every device's scalar."""
        return self.world_sum(scalar)
