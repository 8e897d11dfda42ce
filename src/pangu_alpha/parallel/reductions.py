"""What devices must tell each other in an optimizer step, besides what the partitioned operators do.

Each cell has three methods: `batch_sums` turns gradients and tokens of one device's rows into those of the
whole batch, `square_sum` the squares of its gradients into the square of the global norm, `total` a scalar of
each device into their sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Tensor, nn, ops


class OneDevice(nn.Cell):
    """Nothing to tell: the device holds the whole batch and every gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.add = ops.AddN()

    def batch_sums(self, gradients, tokens):
        """Gradients and tokens as they are."""
        return gradients, tokens

    def square_sum(self, squares):
        """Sum of the scalars `squares`."""
        return self.add(squares)

    def total(self, scalar):
        """The scalar."""
        return scalar


class DataParallel(OneDevice):
    """Sums for ranks that each hold the whole model and read their own rows, by explicit AllReduce.

    The update sees equal gradients on all ranks, so norm, clipping and skipping are equal, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world_sum = ops.AllReduce(ops.ReduceOp.SUM)

    def batch_sums(self, gradients, tokens):
        """Gradients and tokens of all ranks."""
        last = self.world_sum(tokens)
        all_tokens = last
        sums = ()
        for gradient in gradients:  # one after the other: ranks that took them in another order would hang
            last = self.world_sum(ops.depend(gradient, last))
            sums += (last,)
        return sums, all_tokens

    def total(self, scalar):
        """Sum of every rank's scalar."""
        return self.world_sum(scalar)


class Partitioned(nn.Cell):
    """Sums of a graph whose operators MindSpore has split: gradients are slices, the batch is cut by rows.

    A slice of a gradient lies on several devices, so each square counts 1 / holders; a row lies on all
    devices of its data-parallel rank.

    Args:
        shares: For each gradient the part of its square that this device counts: 1 / devices that hold it.
        row_share: 1 / devices that read the same rows, which are tp * pp.
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
        """Gradients are summed by the partitioner already; tokens are not.

        The gradients wait for the tokens' sum, so that the norm's comes after it on every device.
        """
        total = self.world_sum(self.mul(tokens, self.row_share))
        return ops.depend(gradients, total), total

    def square_sum(self, squares):
        """Sum over all devices, every element of every gradient counted once."""
        return self.world_sum(self.add(self.map(self.mul, squares, self.shares)))

    def total(self, scalar):
        """Sum of every device's scalar."""
        return self.world_sum(scalar)
