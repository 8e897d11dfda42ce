"""Compiles the cells of the check "operators" for Ascend in a process that simulates it; prints each one."""

import sys

sys.path.pop(0)  # these tests' folder

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.communication import init

from pangu_alpha.cluster_check.cases.operators import CASES, SHAPES, arrays_of
from pangu_alpha.cluster_check.measure.operators import _config, _WeightedSum, cell_of
from pangu_alpha.config.families import FAMILIES
from pangu_alpha.model.operators import operators_for
from pangu_alpha.parallel.context import simulate_ascend
from pangu_alpha.proof.graph import private

SHAPE = SHAPES["small"]


class Gradient(nn.Cell):
    """The gradient of the check's weighted sum, with a fixed number of inputs, which `compile` needs."""

    def __init__(self, whole, count):
        super().__init__()
        self.operator, self.weights = whole.operator, whole.weights
        self.places = tuple(range(count))

    def weighted(self, output):
        return (output.astype(ms.float32) * self.weights).sum()


class OfOne(Gradient):
    def construct(self, a):
        return ops.grad(lambda a: self.weighted(self.operator(a)), self.places)(a)


class OfThree(Gradient):
    def construct(self, a, b, c):
        return ops.grad(lambda a, b, c: self.weighted(self.operator(a, b, c)), self.places)(a, b, c)


class OfFour(Gradient):
    def construct(self, a, b, c, d):
        return ops.grad(lambda a, b, c, d: self.weighted(self.operator(a, b, c, d)), self.places)(a, b, c, d)


BY_INPUTS = {1: OfOne, 3: OfThree, 4: OfFour}


def given(array, float32, dtype):
    """An input of a case, converted on the host: nothing runs on a simulated device."""
    if array.dtype != np.float64:
        return Tensor(array)
    return Tensor(array.astype(np.float32), ms.float32 if float32 else getattr(ms, dtype))


def compile_case(name, case, chip, dtype):
    arrays = arrays_of(case, SHAPE)
    inputs = [given(array, place in case.float32, dtype) for place, array in enumerate(arrays)]
    cell = cell_of(name, operators_for(_config(dtype), "Ascend", chip=chip), SHAPE)
    cell.compile(*inputs)
    if case.differentiated:
        whole = _WeightedSum(cell, np.shape(case.computes(*arrays)))
        BY_INPUTS[len(inputs)](whole, case.differentiated).compile(*inputs)


if __name__ == "__main__":
    simulate_ascend()
    private.allow_missing_hccl()
    init()
    for chip, family in FAMILIES.items():
        for dtype in family.compute_types:
            for name, case in CASES.items():
                compile_case(name, case, chip, dtype)
                print(f"compiled {name}, {chip}, {dtype}")
