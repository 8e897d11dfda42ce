"""Cells that compute by the kernels in `source`; plain.py and dropout.py define what they compute.

Letters: T rows, I inputs, O outputs, H hidden, V vocabulary, B batch, N heads, S queries, C keys,
d head size.

Precisions are those of torch.set_float32_matmul_precision: with "highest" products have float32 factors, with
"medium" factors rounded to bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import signature
from mindspore.ops.primitive import Primitive

from pangu_alpha.config.run import MatmulPrecision
from pangu_alpha.data.hashing import column_numbers, head_numbers, salted
from pangu_alpha.model.cache import empty_table
from pangu_alpha.model.operators.dropout import mask_threshold
from pangu_alpha.model.operators.native.library import library


def kernel(name: str, shapes: Callable[..., Any], outputs: int | list[ms.Type] = 1) -> Primitive:
    """The operator of a function in the library.

    Args:
        shapes: Shapes of the outputs as a function of those of the inputs; a list if there are several.
        outputs: Number of outputs if all are float32, otherwise their types.
    """
    types = [ms.float32] * outputs if isinstance(outputs, int) else outputs
    types = types[0] if len(types) == 1 else types
    return ops.Custom(f"{library()}:{name}", shapes, types, func_type="aot")


def kernel_of(
    precision: MatmulPrecision, name: str, shapes: Callable[..., Any], outputs: int = 1
) -> Primitive:
    """The operator of a function that exists for each precision of its products; see `kernel`."""
    return kernel(name + {"highest": "", "medium": "Medium"}[precision], shapes, outputs)


def first(*shapes):
    """The shape of the first input."""
    return shapes[0]


class Affine(nn.Cell):
    """x W^T + b; see plain.Affine."""

    def __init__(self, precision: MatmulPrecision = "highest") -> None:
        super().__init__()
        make = partial(kernel_of, precision)
        self.forward = make("Affine", lambda x, weight, bias: [x[0], weight[0]])
        self.gradient = make("AffineGradient", lambda x, weight, dy: [x, weight, weight[:1]], 3)

    def construct(self, x, weight, bias):
        return self.forward(x, weight, bias)

    def bprop(self, x, weight, bias, out, dout):
        gradients = self.gradient(x, weight, dout)
        return gradients[0], gradients[1], gradients[2]


def linear(precision: MatmulPrecision = "highest") -> Primitive:
    """x W^T; see ops.MatMul with transpose_b. It has no gradient."""
    return kernel_of(precision, "Linear", lambda x, weight: [x[0], weight[0]])


class _Standardize(nn.Cell):
    """Layer normalisation, and for the gradient the mean and 1 / deviation of each row."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = Tensor([epsilon], ms.float32)
        self.forward = kernel("LayerNorm", lambda x, gamma, beta, epsilon: [x, x[:1], x[:1]], 3)
        self.gradient = kernel("LayerNormGradient", lambda x, gamma, mean, inverse, dy: [x, gamma, gamma], 3)

    def construct(self, x, gamma, beta):
        return self.forward(x, gamma, beta, self.epsilon)

    def bprop(self, x, gamma, beta, out, dout):
        gradients = self.gradient(x, gamma, out[1], out[2], dout[0])
        return gradients[0], gradients[1], gradients[2]


class Normalize(nn.Cell):
    """See plain.Normalize."""

    def __init__(self, columns: int, epsilon: float) -> None:
        super().__init__()
        self.standardize = _Standardize(epsilon)

    def construct(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return self.standardize(x, gamma, beta)[0]


class Gelu(nn.Cell):
    """The tanh form of GELU; see plain.Gelu. It keeps only x."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = kernel("Gelu", first)
        self.gradient = kernel("GeluGradient", first)

    def construct(self, x):
        return self.forward(x)

    def bprop(self, x, out, dout):
        return (self.gradient(x, dout),)


class AllowedKeys(nn.Cell):
    """Keeps "may attend" as it is, for a kernel that applies it to the scores.

    Args:
        num_heads: Not used; one mask serves all heads.

    Inputs:
        - **attention_mask** (Tensor) - [B, S, C], 1 = may attend, any type.

    Outputs:
        Tensor [B, S, C], float32.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.cast = ops.Cast()

    def construct(self, attention_mask):
        return self.cast(attention_mask, ms.float32)


class KeepColumns(nn.Cell):
    """Leaves [T, H] as it is, because the kernel of attention finds a head's columns itself.

    Args:
        num_heads: Not used.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()

    def construct(self, x, batch=None):
        return x


class AttentionDropout(nn.Cell):
    """What the kernel of attention needs to know of dropout.AttentionDropout, whose mask it applies."""

    def __init__(self, rate: float, salt: int, num_heads: int) -> None:
        super().__init__()
        self.off = rate == 0.0
        self.factor = 1.0 / (1.0 - rate)
        self.heads = salted(head_numbers(num_heads), salt)
        self.threshold = mask_threshold(rate)


class _Attention(nn.Cell):
    """Attention without dropout, and its gradients."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.heads = Tensor(np.zeros(num_heads, np.int32))
        self.forward = kernel("Attention", first)
        self.gradient = kernel("AttentionGradient", lambda *shapes: list(shapes[:3]), 3)

    def construct(self, query, key, value, mask):
        return self.forward(query, key, value, mask, self.heads)

    def bprop(self, query, key, value, mask, out, dout):
        gradients = self.gradient(query, key, value, mask, self.heads, dout)
        return gradients[0], gradients[1], gradients[2], ops.zeros_like(mask)


class _DroppingAttention(nn.Cell):
    """Attention whose weights are dropped by position, and its gradients.

    Args:
        dropout: Gives the heads' numbers, the threshold and the factor.
    """

    def __init__(self, dropout: AttentionDropout) -> None:
        super().__init__()
        self.heads = Tensor(dropout.heads.astype(np.int32))
        self.threshold = Tensor([dropout.threshold], ms.int32)
        self.factor = Tensor([dropout.factor], ms.float32)
        self.forward = kernel("Attention", first)
        self.gradient = kernel("AttentionGradient", lambda *shapes: list(shapes[:3]), 3)

    def construct(self, query, key, value, mask, rows, columns):
        return self.forward(query, key, value, mask, self.heads, rows, columns, self.threshold, self.factor)

    def bprop(self, query, key, value, mask, rows, columns, out, dout):
        gradients = self.gradient(
            query, key, value, mask, self.heads, dout, rows, columns, self.threshold, self.factor
        )
        unused = ops.zeros_like(mask), ops.zeros_like(rows), ops.zeros_like(columns)
        return gradients[0], gradients[1], gradients[2], *unused


class AttentionCore(nn.Cell):
    """dropout(softmax(q k^T / sqrt(d) + mask)) v without tensors of [B, N, S, C]; see plain.AttentionCore.

    Args:
        head_size: Not used; it is H / N.
        dropout: Has the threshold, the factor and the numbers of the heads.

    Inputs:
        - **query** (Tensor) - [B*S, H], float32.
        - **key**, **value** (Tensor) - [B*C, H]; or [B, N, C, d] of a cache, without gradients.
        - **mask** (Tensor) - as AllowedKeys gives it.
        - **dropout_rows** (Tensor) - int32 [B, S], or None for no dropout.

    Outputs:
        Tensor [B*S, H].
    """

    def __init__(self, num_heads: int, head_size: int, dropout: AttentionDropout) -> None:
        super().__init__()
        self.off = dropout.off
        self.without_dropout = _Attention(num_heads)
        self.dropping = _DroppingAttention(dropout)

    def construct(self, query, key, value, mask, dropout_rows=None):
        if self.off:
            return self.without_dropout(query, key, value, mask)
        if dropout_rows is None:
            return self.without_dropout(query, key, value, mask)
        return self.dropping(query, key, value, mask, dropout_rows, _columns(mask.shape[2]))


@ops.constexpr
def _columns(count: int) -> Tensor:
    return Tensor(column_numbers(count), ms.int32)


@ops.constexpr
def salted_columns(count: int, salt: int) -> Tensor:
    """Numbers of columns, int32 [count], mixed with the number of a dropout cell."""
    return Tensor(salted(column_numbers(count), salt), ms.int32)


class _Drop(nn.Cell):
    """Dropout by position, whose gradient is the same function."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.threshold = Tensor([mask_threshold(rate)], ms.int32)
        self.factor = Tensor([1.0 / (1.0 - rate)], ms.float32)
        self.drop = kernel("Dropout", first)

    def construct(self, x, rows, columns):
        return self.drop(x, rows, columns, self.threshold, self.factor)

    def bprop(self, x, rows, columns, out, dout):
        dx = self.drop(dout, rows, columns, self.threshold, self.factor)
        return dx, ops.zeros_like(rows), ops.zeros_like(columns)


class Dropout(nn.Cell):
    """See dropout.Dropout."""

    def __init__(self, rate: float, salt: int) -> None:
        super().__init__()
        self.off = rate == 0.0
        self.salt = salt
        self.drop = _Drop(rate)

    def construct(self, x, rows=None):
        if self.off:
            return x
        if rows is None:
            return x
        return self.drop(x, rows, salted_columns(x.shape[1], self.salt))


class _Probabilities(nn.Cell):
    """-log(softmax(x E^T)[label] + 1e-24), and the probabilities, which the gradient uses again."""

    def __init__(self, precision: MatmulPrecision) -> None:
        super().__init__()
        make = partial(kernel_of, precision)
        self.forward = make("CrossEntropy", lambda x, table, labels: [x[:1], [x[0], table[0]]], 2)
        self.gradient = make(
            "CrossEntropyGradient", lambda x, table, labels, probabilities, dnats: [x, table], 2
        )

    def construct(self, x, table, labels):
        return self.forward(x, table, labels)

    def bprop(self, x, table, labels, out, dout):
        gradients = self.gradient(x, table, labels, out[1], dout[0])
        return gradients[0], gradients[1], ops.zeros_like(labels)


class TiedCrossEntropy(nn.Cell):
    """See plain.TiedCrossEntropy.

    Args:
        vocab_size: Not used, because on CPU the table is not padded.
    """

    def __init__(self, vocab_size: int, precision: MatmulPrecision = "highest") -> None:
        super().__init__()
        self.loss = _Probabilities(precision)

    def construct(self, x: Tensor, table: Tensor, labels: Tensor) -> Tensor:
        return self.loss(x, table, labels)[0]


class SquareSum(nn.Cell):
    """See plain.SquareSum."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = kernel("SquareSum", lambda x: [1])

    def construct(self, x: Tensor) -> Tensor:
        return self.sum(x).reshape(())


def writes_in_place(operator: Primitive, written: int, read: int) -> Primitive:
    """Declares that an operator changes its first inputs, which must be parameters."""
    ways = [signature.sig_rw.RW_WRITE] * written + [signature.sig_rw.RW_READ] * read
    operator.set_signatures([signature.make_sig(f"input{i}", way) for i, way in enumerate(ways)])
    operator.add_prim_attr("side_effect_mem", True)
    return operator


class KeyValueCache(nn.Cell):
    """See model.cache.KeyValueCache, whose table is the same.

    Inputs:
        - **new** (Tensor) - [B*S, H].
        - **places** (Tensor) - int32 [B, N, S, 3], row, head and slot of each new entry.

    Outputs:
        Tensor [B, N, C, d]: the rows of the cache that `places` names, after the update. For the rows 0 to
        B-1 it may be the whole cache, because AttentionCore reads no more rows than it has queries for.
    """

    def __init__(self, rows: int, num_heads: int, length: int, head_size: int, dtype: ms.Type) -> None:
        super().__init__()
        self.rows = rows
        self.table = empty_table((rows, num_heads, length, head_size), dtype)
        self.store = writes_in_place(kernel("StoreInCache", lambda *shapes: [1]), written=1, read=2)
        self.copy_slots = writes_in_place(kernel("CopyInCache", lambda *shapes: [1]), written=1, read=1)
        self.replace = ops.ScatterUpdate()
        self.gather = ops.Gather()

    def construct(self, new, places):
        table = ops.depend(self.table, self.store(self.table, new, places))
        if places.shape[0] == 1 and self.rows > 1:
            table = self.gather(table, places[:, 0, 0, 0], 0)
        return table

    def copy(self, numbers):
        """Copies the first slots of a row to another; see model.cache.KeyValueCache."""
        self.copy_slots(self.table, numbers)

    def clear(self, row):
        """Fills a row with zeros; see model.cache.KeyValueCache."""
        self.replace(self.table, row, ops.zeros((1, *self.table.shape[1:]), self.table.dtype))
