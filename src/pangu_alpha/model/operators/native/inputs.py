"""What a batch's numbers become: rows of a table, and a mask; model.layers and model.mask define it.

Letters: B batch, S sequence, T = B*S rows, V rows of the table, H columns.
"""

from __future__ import annotations

import math

from mindspore import nn, ops
from mindspore.ops import Primitive

from pangu_alpha.model.operators.native.training import kernel


def look_up() -> Primitive:
    """(table, ids) -> rows, without a gradient."""
    return kernel("LookUp", lambda table, ids: [math.prod(ids), table[1]])


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
        self.forward = look_up()
        self.gradient = kernel("LookUpGradient", lambda dy, ids, table: table)

    def construct(self, table, ids):
        return self.forward(table, ids)

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
        self.forward = look_up()
        self.gradient = kernel("ForkedLookUpGradient", lambda dy, ids, more: more)

    def construct(self, table, ids):
        return self.forward(table, ids), table

    def bprop(self, table, ids, out, dout):
        return self.gradient(dout[0], ids, dout[1]), ops.zeros_like(ids)


class DocumentMask(nn.Cell):
    """See model.mask.DocumentMask."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = kernel("DocumentMask", lambda documents: [*documents, documents[1]])

    def construct(self, document_ids):
        return self.mask(document_ids)

    def bprop(self, document_ids, out, dout):
        return (ops.zeros_like(document_ids),)
