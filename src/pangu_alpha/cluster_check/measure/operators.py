"""Outputs and gradients of every operator that training takes here, and of the plain definitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from pangu_alpha.cluster_check.cases.operators import (
    CASES,
    SHAPES,
    SHAPES_OF,
    Case,
    Shape,
    arrays_of,
    direction,
    output_weights,
    sampled,
    slopes,
)
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.config.families import FAMILIES
from pangu_alpha.config.model import ComputeType, ModelConfig
from pangu_alpha.model.chip import find_chip
from pangu_alpha.model.operators import Operators, operators_for
from pangu_alpha.model.operators.dropout import AttentionDropout

# Where the plain operators in float32 define the result for the checked ones in each type.
REFERENCE = "plain"


class _Attention(nn.Cell):
    """Mask and core as one function of (query, key, value, may attend), [B, N, S, d]."""

    def __init__(self, operators: Operators, shape: Shape) -> None:
        super().__init__()
        self.mask = operators.mask(shape.heads)
        self.core = operators.attention(shape.heads, shape.head_size, AttentionDropout(0.0, 0, shape.heads))
        self.split = operators.split_heads(shape.heads)
        self.join = operators.join_heads(shape.heads)
        self.plain_join = ops.Transpose()

    def construct(self, query, key, value, attention_mask):
        # Through the layout of the device's own split and join, which may differ from [B, N, S, d].
        batch = query.shape[0]
        query = self.split(self._flat(query), batch)
        key = self.split(self._flat(key), batch)
        value = self.split(self._flat(value), batch)
        return self.join(self.core(query, key, value, self.mask(attention_mask)))

    def _flat(self, heads):
        return self.plain_join(heads, (0, 2, 1, 3)).reshape((-1, heads.shape[1] * heads.shape[3]))


class _WeightedSum(nn.Cell):
    """A scalar whose gradient by the operator's output is different everywhere."""

    def __init__(self, operator: nn.Cell, shape: Sequence[int]) -> None:
        super().__init__()
        self.operator = operator
        self.weights = Tensor(output_weights(shape))

    def construct(self, *inputs):
        return (self.operator(*inputs).astype(ms.float32) * self.weights).sum()


class _Gradients(nn.Cell):
    """Gradients of a scalar by its first inputs.

    Args:
        whole: Cell of a scalar.
        count: Number of inputs to differentiate by; at least 1.
    """

    def __init__(self, whole: nn.Cell, count: int) -> None:
        super().__init__()
        self.differentiate = ops.grad(whole, tuple(range(count)))

    def construct(self, *inputs):
        return self.differentiate(*inputs)


def cell_of(name: str, operators: Operators, shape: Shape) -> nn.Cell:
    """The cell of a case, made of a device's operators."""
    make: dict[str, Callable[[], nn.Cell]] = {
        "affine": lambda: operators.affine(),
        "layer norm": lambda: operators.layer_norm(shape.hidden, 1e-5),
        "gelu": lambda: operators.activation(),
        "attention": lambda: _Attention(operators, shape),
        "cross entropy": lambda: operators.cross_entropy(shape.vocabulary),
        "sum of squares": lambda: operators.square_sum(),
    }
    return make[name]()


def measure(place: Place) -> dict[str, Any]:
    """Returns, by shape, type and operator, samples of output and gradients, and their largest numbers."""
    plain = place.measurement == REFERENCE
    types: tuple[ComputeType, ...] = ("float32",) if plain else types_of(place.device)
    found = {}
    for label in SHAPES_OF[place.setup.device]:
        for dtype in types:
            for name, case in CASES.items():
                computed = _computed(name, case, SHAPES[label], dtype, plain)
                found[f"{name}, {label}, {dtype}"] = computed
    return {"operators": found, **({} if plain else {"status": _float_status(place.device)})}


def types_of(device: str) -> tuple[ComputeType, ...]:
    """Types in which the device's chip multiplies."""
    chip = find_chip() if device == "Ascend" else None
    return FAMILIES[chip].compute_types if chip else ("float16", "float32")


def _computed(name: str, case: Case, shape: Shape, dtype: ComputeType, plain: bool) -> dict[str, Any]:
    operators = operators_for(_config(dtype), "plain" if plain else None)
    arrays = arrays_of(case, shape)
    inputs = [_tensor(array, number in case.float32, dtype) for number, array in enumerate(arrays)]
    cell = cell_of(name, operators, shape)
    output = cell(*inputs)
    tensors = [output]
    if case.differentiated:
        found = _Gradients(_WeightedSum(cell, output.shape), case.differentiated)(*inputs)
        tensors += found if isinstance(found, tuple) else (found,)
    values = [each.astype(ms.float32).asnumpy() for each in tensors]
    return {
        "samples": [sampled(each) for each in values],
        "scales": [float(np.abs(each).max()) for each in values],
        "slopes": list(_slopes(values[1:])),
        **({"numpy": _by_numpy(case, arrays)} if plain and shape.rows * shape.hidden < 10_000 else {}),
    }


def _slopes(gradients: Sequence[np.ndarray]) -> Iterator[float]:
    for number, gradient in enumerate(gradients):
        yield float((gradient.astype(np.float64) * direction(number, gradient.shape)).sum())


def _by_numpy(case: Case, arrays: Sequence[np.ndarray]) -> dict[str, Any]:
    """The definition in float64, and its derivatives by differences."""
    return {"sample": sampled(case.computes(*arrays)), "slopes": slopes(case, arrays)}


def _config(dtype: ComputeType) -> ModelConfig:
    """A model whose operators are those of training without dropout in a type; its sizes do not matter."""
    return ModelConfig(64, 8, 2, 2, seq_length=16, dropout=0.0, compute_dtype=dtype)


def _tensor(array: np.ndarray, float32: bool, dtype: str) -> Tensor:
    if array.dtype != np.float64 or float32:
        return Tensor(array.astype(np.float32) if array.dtype == np.float64 else array)
    return Tensor(array.astype(np.float32)).astype(getattr(ms, dtype))


def _float_status(device: str) -> dict[str, float] | None:
    """What the register of a saturating chip shows without and with an overflow; None for other devices."""
    operators = operators_for(_config("float16" if device == "Ascend" else "float32"))
    if operators.float_status is None:
        return None
    status = operators.float_status()
    found = {}
    for name, number in {"clean": 1.0, "overflow": 300.0}.items():
        factor = Tensor(np.full((16, 16), number, np.float16))  # 16 * 300^2 is more than float16 holds
        operators.float_status.clear()
        found[name] = float(status(ops.MatMul()(factor, factor)).asnumpy())
    return found
