"""The cells a layer is made of, besides attention.

Letters: T rows = B batch x S sequence, I inputs, O outputs, H hidden, V vocabulary.
Each operator is a named attribute, so that a plan can place it from outside.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.model.operators import Operators


def empty_parameter(*shape: int) -> Parameter:
    """A float32 parameter whose values `initialize` sets; zeros until then."""
    return Parameter(ms.common.initializer.initializer("zeros", shape, ms.float32))


class Linear(nn.Cell):
    """x W^T + b in the compute type; W and b are stored in float32.

    Args:
        inputs: Columns I of x.
        outputs: Columns O of the result.
        operators: The device's.

    Inputs:
        - **x** (Tensor) - [T, I], compute type.

    Outputs:
        Tensor [T, O], compute type.
    """

    def __init__(self, inputs: int, outputs: int, operators: Operators) -> None:
        super().__init__()
        self.weight = empty_parameter(outputs, inputs)
        self.bias = empty_parameter(outputs)
        self.compute_dtype = operators.compute_dtype
        self.cast_weight = ops.Cast()
        self.cast_bias = ops.Cast()
        self.affine = operators.affine()

    def construct(self, x: Tensor) -> Tensor:
        dtype = self.compute_dtype
        return self.affine(x, self.cast_weight(self.weight, dtype), self.cast_bias(self.bias, dtype))


class LayerNorm(nn.Cell):
    """Layer normalisation in float32, whatever comes in; see operators.plain.Normalize.

    Inputs:
        - **x** (Tensor) - [T, H], any floating type.

    Outputs:
        Tensor [T, H] in the type of `x`.
    """

    def __init__(self, config: ModelConfig, operators: Operators) -> None:
        super().__init__()
        self.gamma = empty_parameter(config.hidden_size)
        self.beta = empty_parameter(config.hidden_size)
        self.cast = ops.Cast()
        self.normalize = operators.layer_norm(config.hidden_size, config.layer_norm_epsilon)

    def construct(self, x: Tensor) -> Tensor:
        normed = self.normalize(self.cast(x, ms.float32), self.gamma, self.beta)
        return self.cast(normed, x.dtype)


class Embedding(nn.Cell):
    """Rows of a table by index.

    Inputs:
        - **ids** (Tensor) - [B, S], int32.

    Outputs:
        Tensor [T, H], float32.
    """

    def __init__(self, rows: int, hidden_size: int) -> None:
        super().__init__()
        self.table = empty_parameter(rows, hidden_size)
        self.gather = ops.Gather()

    def construct(self, ids: Tensor) -> Tensor:
        return self.gather(self.table, ids, 0).reshape((ids.size, -1))


class FeedForward(nn.Cell):
    """H -> 4H -> H with the activation between.

    Inputs:
        - **x** (Tensor) - [T, H].

    Outputs:
        Tensor [T, H].
    """

    def __init__(self, config: ModelConfig, operators: Operators) -> None:
        super().__init__()
        self.up = Linear(config.hidden_size, config.ffn_size, operators)
        self.activation = operators.activation()
        self.down = Linear(config.ffn_size, config.hidden_size, operators)

    def construct(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


class Logits(nn.Cell):
    """x E^T with the word embedding's table: the head is tied and has no bias.

    Inputs:
        - **x** (Tensor) - [T, H], `compute_dtype`.
        - **table** (Tensor) - [V, H], float32.

    Outputs:
        Tensor [T, V], `compute_dtype`.
    """

    def __init__(self, compute_dtype: ms.Type) -> None:
        super().__init__()
        self.compute_dtype = compute_dtype
        self.cast = ops.Cast()
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor, table: Tensor) -> Tensor:
        return self.matmul(x, self.cast(table, self.compute_dtype))


class Dropout(nn.Cell):
    """Dropout whose mask is a pure function of the seed, this cell's salt and the element's place.

    MindSpore 2.9's own operator draws from a hidden stream and does not repeat on CPU; once it does, this
    cell may go. Row and column numbers are mixed into 32 bits by shifts, xors and the odd multipliers of
    the "lowbias32" hash (Wellons, 2018); an element stays if its bits reach the rate.

    Args:
        rate: Probability of a zero.
        salt: Tells the cells of one network apart.

    Inputs:
        - **x** (Tensor) - [..., C], floating point.
        - **seed** (Tensor) - int32 scalar, different for every step and micro-batch; None passes x through.

    Outputs:
        Tensor of the shape and type of `x`; what stays is divided by 1 - rate.
    """

    def __init__(self, rate: float, salt: int) -> None:
        super().__init__()
        self.off = rate == 0.0
        self.factor = 1.0 / (1.0 - rate)
        self.salt = Tensor(_wrap(salt * 0x9E3779B1), ms.int32)
        self.threshold = Tensor(_wrap(int(rate * 2**32) - 2**31), ms.int32)  # bits are signed
        self.multipliers = (Tensor(_wrap(0x7FEB352D), ms.int32), Tensor(_wrap(0x846CA68B), ms.int32))
        self.shifts = (Tensor(15, ms.int32), Tensor(16, ms.int32))
        self.xor = ops.BitwiseXor()
        self.shift = ops.RightShift()
        self.mul = ops.Mul()
        self.reached = ops.GreaterEqual()
        self.cast = ops.Cast()

    def mix(self, bits: Tensor) -> Tensor:
        """Spreads every input bit over the 32 output bits; int32 in and out, any shape."""
        bits = self.mul(self.xor(bits, self.shift(bits, self.shifts[0])), self.multipliers[0])
        return self.mul(self.xor(bits, self.shift(bits, self.shifts[1])), self.multipliers[1])

    def construct(self, x, seed=None):
        if self.off:
            return x
        if seed is None:
            return x
        columns = x.shape[-1]
        rows = x.size // columns
        row_bits = self.mix(
            self.xor(self.mix(self.cast(ops.range(0, rows, 1), ms.int32)), self.xor(seed, self.salt))
        )
        column_bits = self.mix(self.cast(ops.range(rows, rows + columns, 1), ms.int32))
        bits = self.mix(self.xor(row_bits.reshape((rows, 1)), column_bits.reshape((1, columns))))
        keep = self.cast(self.reached(bits, self.threshold), x.dtype).reshape(x.shape)
        return self.mul(self.mul(x, keep), self.factor)


def _wrap(bits: int) -> int:
    """The int32 with the same low 32 bits."""
    return (bits + 2**31) % 2**32 - 2**31
