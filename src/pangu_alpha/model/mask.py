"""Makes attention masks [B, S, S] in the graph from document numbers [B, S]; only these are stored."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops


class DocumentMask(nn.Cell):
    """Lets a position attend to itself and to earlier positions of its own document.

    Inputs:
        - **document_ids** (Tensor) - int32 [B, S], equal within a document.

    Outputs:
        Tensor [B, S, S], float32, 1 = may attend.
    """

    def __init__(self) -> None:
        super().__init__()
        self.equal = ops.Equal()
        self.not_before = ops.GreaterEqual()
        self.mul = ops.Mul()
        self.cast_same = ops.Cast()
        self.cast_causal = ops.Cast()
        self.asking = ops.ExpandDims()
        self.asked = ops.ExpandDims()

    def construct(self, document_ids: Tensor) -> Tensor:
        length = document_ids.shape[1]
        places = ops.range(0, length, 1)
        causal = self.not_before(places.reshape((length, 1)), places.reshape((1, length)))
        same = self.equal(self.asking(document_ids, 2), self.asked(document_ids, 1))
        return self.mul(self.cast_same(same, ms.float32), self.cast_causal(causal, ms.float32))
