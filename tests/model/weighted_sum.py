"""What tests of gradients sum up."""

from __future__ import annotations

from mindspore import nn, ops


class WeightedSum(nn.Cell):
    """A scalar whose gradient by the operator's output is different everywhere."""

    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def construct(self, *inputs):
        out = self.operator(*inputs)
        return (out * ops.sin(ops.range(0, out.size, 1).astype(out.dtype)).reshape(out.shape)).sum()
