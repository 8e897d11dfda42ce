"""Rows of a table by index, with gradients by a kernel; model.layers.Embedding defines what they compute.

Letters: T = B*S rows, V rows of the table, H columns.
"""

from __future__ import annotations

from mindspore import nn, ops

from pangu_alpha.model.operators.native.training import kernel


class LookUp(nn.Cell):
    """Rows of a table.

    Inputs:
        - **table** (Tensor) - [V, H].
        - **ids** (Tensor) - int32 [B, S].

    Outputs:
        Tensor [T, H].
    """

    def __init__(self) -> None:
        super().__init__()
        self.gather = ops.Gather()
        self.gradient = kernel("LookUpGradient", lambda dy, ids, table: table)

    def construct(self, table, ids):
        return self.gather(table, ids, 0).reshape((ids.size, -1))

    def bprop(self, table, ids, out, dout):
        return self.gradient(dout, ids, table), ops.zeros_like(ids)


class ForkedLookUp(nn.Cell):
    """LookUp, and the table for its other use: the kernel adds the gradients of both.

    Inputs are those of LookUp.

    Outputs:
        (Tensor [T, H]; Tensor [V, H], the table).
    """

    def __init__(self) -> None:
        super().__init__()
        self.gather = ops.Gather()
        self.gradient = kernel("ForkedLookUpGradient", lambda dy, ids, more: more)

    def construct(self, table, ids):
        return self.gather(table, ids, 0).reshape((ids.size, -1)), table

    def bprop(self, table, ids, out, dout):
        return self.gradient(dout[0], ids, dout[1]), ops.zeros_like(ids)
