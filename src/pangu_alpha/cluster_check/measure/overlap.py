"""Whether a device computes while it communicates: products and an AllReduce alone, and both in one graph."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from pangu_alpha.cluster_check.measure.speed import product_of
from pangu_alpha.cluster_check.measure.timing import seconds_together
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.config.model import ComputeType

PRODUCT = {"CPU": 512, "Ascend": 4096}  # rows and columns
SUM = {"CPU": 1 << 22, "Ascend": 1 << 28}  # bytes on each rank
_MOST_PRODUCTS = 64  # in a graph
_REPEATS = 7


class Work(nn.Cell):
    """Products that follow each other, and an AllReduce that does not depend on them.

    Args:
        products: Number of products; 0 leaves them out.
        summed: Whether there is an AllReduce over all ranks.
    """

    def __init__(self, products: int, summed: bool, dtype: ComputeType) -> None:
        super().__init__()
        self.products, self.summed = products, summed
        self.product = product_of(dtype)
        self.reduce = ops.AllReduce(ops.ReduceOp.SUM)

    def construct(self, factor: Tensor, other: Tensor, sent: Tensor) -> tuple[Tensor, Tensor]:
        if self.summed:
            sent = self.reduce(sent)
        for _ in range(self.products):
            factor = self.product(factor, other)
        return factor, sent


def inputs_of(device: str, dtype: ComputeType) -> tuple[Tensor, Tensor, Tensor]:
    """Factors whose product is the first one again, and what is summed: zeros, which stay zeros."""
    size = PRODUCT[device]
    factor, other = np.ones((size, size), np.float32), np.full((size, size), 1.0 / size, np.float32)
    of_type = getattr(ms, dtype)
    return Tensor(factor, of_type), Tensor(other, of_type), Tensor(np.zeros(SUM[device] // 4, np.float32))


def measure(place: Place) -> dict[str, Any]:
    """Returns the seconds of products alone, of an AllReduce alone, and of both, which are about equal."""
    world = place.world
    assert world is not None
    dtype: ComputeType = "float16" if place.device == "Ascend" else "float32"
    inputs = inputs_of(place.device, dtype)

    def seconds(products: int, summed: bool) -> float:
        cell = Work(products, summed, dtype)
        return seconds_together(world, lambda: cell(*inputs), _REPEATS)

    reduce, single = seconds(0, True), seconds(1, False)
    wanted = int(np.clip(round(reduce / single), 1, _MOST_PRODUCTS))
    products = int(world.gather(np.array([wanted], np.int32))[0, 0])  # the same graph on all ranks
    return {
        "products": products,
        "product": seconds(products, False),
        "reduce": reduce,
        "both": seconds(products, True),
    }
