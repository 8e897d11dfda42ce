"""The cells of a layer, apart from attention.

Letters: T rows = B batch x S sequence, I inputs, O outputs, H hidden, V vocabulary.
Each operator is a named attribute, so that a plan can place it from outside.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.model.operators import Operators


def empty_parameter(*shape: int) -> Parameter:
    """A float32 parameter of zeros, whose values `initialize` sets later."""
    return Parameter(ms.common.initializer.initializer("zeros", shape, ms.float32))


class Linear(nn.Cell):
    """x W^T + b in the compute type; W and b are stored in float32.

    Args:
        inputs: Number of columns I of x.
        outputs: Number of columns O of the result.

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
    """Layer normalisation, computed in float32 for any input type; see operators.plain.Normalize.

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
    """Looks up rows of a table [rows, H] by index.

    Args:
        operators: The device's; their `look_up` computes the rows if they have one. `fork` is their
            forked_look_up, for whoever uses the table a second time; None if they have none.

    Inputs:
        - **ids** (Tensor) - [B, S], int32.
        - **known** (Tensor) - the rows [T, H], if they have been looked up already; otherwise None.

    Outputs:
        Tensor [T, H], float32.
    """

    def __init__(self, rows: int, hidden_size: int, operators: Operators) -> None:
        super().__init__()
        self.table = empty_parameter(rows, hidden_size)
        self.gather = ops.Gather()
        self.look_up = operators.look_up and operators.look_up()
        self.fork = operators.forked_look_up and operators.forked_look_up()

    def construct(self, ids: Tensor, known: Tensor | None = None) -> Tensor:
        if known is not None:
            return known
        if self.look_up is not None:
            return self.look_up(self.table, ids)
        return self.gather(self.table, ids, 0).reshape((ids.size, -1))


class FeedForward(nn.Cell):
    """Maps H -> 4H -> H, with the activation in between.

    Inputs:
        - **x** (Tensor) - [T, H], compute type.

    Outputs:
        Tensor [T, H], compute type.
    """

    def __init__(self, config: ModelConfig, operators: Operators) -> None:
        super().__init__()
        self.up = Linear(config.hidden_size, config.ffn_size, operators)
        self.activation = operators.activation()
        self.down = Linear(config.ffn_size, config.hidden_size, operators)

    def construct(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


class Logits(nn.Cell):
    """x E^T with the table of the word embedding: the output head is tied and has no bias.

    Inputs:
        - **x** (Tensor) - [T, H], `compute_dtype`.
        - **table** (Tensor) - [V, H], float32.

    Outputs:
        Tensor [T, V], `compute_dtype`.
    """

    def __init__(self, operators: Operators) -> None:
        super().__init__()
        self.compute_dtype = operators.compute_dtype
        self.cast = ops.Cast()
        self.matmul = operators.linear()

    def construct(self, x: Tensor, table: Tensor) -> Tensor:
        return self.matmul(x, self.cast(table, self.compute_dtype))
