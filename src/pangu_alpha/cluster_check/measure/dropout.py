"""The masks of a device's dropout cells: their shares, their factors, and the masks themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from pangu_alpha.cluster_check.place import Place
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.model.operators import Operators, operators_for
from pangu_alpha.training.schedule import dropout_rows

RATE, SEED = 0.1, 1234
LENGTH, HIDDEN, HEADS = 128, 512, 4
CELLS = (1, 2, 5)  # salts: two cells of the first layer, and one of the second
STEPS = ((0, 0), (0, 1), (1, 0))  # (step, row): two micro-batches of a step, and the next step


def measure(place: Place) -> dict[str, Any]:
    """Returns each mask's share of zeros and distinct other values, a digest, and how masks go together."""
    operators = operators_of(place.measurement, place.device, place.rank)
    if place.measurement == "stream":
        return _told(_stream(operators))
    return _told({**_residual(operators), **_attention(operators, CELLS[:2])})


def operators_of(measurement: str, device: str, rank: int) -> Operators:
    """The operators of a measurement: the plain ones, the device's, or those that draw masks themselves."""
    config = ModelConfig(64, HIDDEN, 2, HEADS, seq_length=LENGTH, dropout=RATE, compute_dtype="auto")
    if measurement != "stream":
        return operators_for(config, "plain" if measurement == "plain" else None)
    stream = (SEED, rank, 0)  # as training.engine.dropout_stream makes that of a rank with rows of its own
    if device == "Ascend":
        return operators_for(config, device_dropout=stream)
    # CPU has a kernel of the same operator.
    drawn = operators_for(config, "Ascend", chip="910B", device_dropout=stream)
    return replace(operators_for(config, "plain"), attention_dropout=drawn.attention_dropout)


def _told(masks: Mapping[str, np.ndarray]) -> dict[str, Any]:
    names = list(masks)
    flat = {name: (mask != 0).reshape(-1) for name, mask in masks.items()}
    return {
        "rate": RATE,
        "elements": {name: int(each.size) for name, each in flat.items()},
        "zeros": {name: float(1.0 - each.mean()) for name, each in flat.items()},
        "factors": {
            name: sorted({*np.round(mask[mask != 0], 3).tolist()})[:8] for name, mask in masks.items()
        },
        "digests": {name: _digest(each) for name, each in flat.items()},
        "correlations": {
            f"{one} / {other}": _correlation(flat[one], flat[other])
            for number, one in enumerate(names)
            for other in names[number + 1 :]
            if flat[one].size == flat[other].size
        },
    }


def _keys(step: int, row: int) -> Tensor:
    return Tensor(dropout_rows(SEED, step, [row], LENGTH))


def _residual(operators: Operators) -> dict[str, np.ndarray]:
    """What ones become in the residual stream's cells, [S, H] each."""
    ones = Tensor(np.ones((LENGTH, HIDDEN), np.float32)).astype(operators.compute_dtype)
    return {
        f"residual, cell {salt}, step {step}, row {row}": _values(
            operators.dropout(RATE, salt)(ones, _keys(step, row))
        )
        for salt in CELLS
        for step, row in STEPS
    }


class _Weights(nn.Cell):
    """The weights that attention uses where all keys are alike, [S, N*S]: 1 / S, dropped and rescaled.

    The values are the unit matrix, so that a query's result is its row of weights.
    """

    def __init__(self, operators: Operators, salt: int) -> None:
        super().__init__()
        self.mask = operators.mask(HEADS)
        dropout = operators.attention_dropout(RATE, salt, HEADS)
        self.core = operators.attention(HEADS, LENGTH, dropout)
        self.split = operators.split_heads(HEADS)
        self.join = operators.join_heads(HEADS)

    def construct(self, zeros, units, may_attend, rows):
        query = self.split(zeros, 1)
        value = self.split(units, 1)
        return self.join(self.core(query, query, value, self.mask(may_attend), rows))


def _attention(operators: Operators, salts: Sequence[int]) -> dict[str, np.ndarray]:
    """What ones become as attention weights, [S, N*S] each."""
    inputs = weights_inputs(operators)
    return {
        f"attention, cell {salt}": LENGTH * _values(_Weights(operators, salt)(*inputs, _keys(0, 0)))
        for salt in salts
    }


def _stream(operators: Operators) -> dict[str, np.ndarray]:
    """The same by the device's own stream: of two cells, each called for two steps."""
    inputs, found = weights_inputs(operators), {}
    for salt in CELLS[:2]:
        cell = _Weights(operators, salt)
        for call in (0, 1):
            found[f"attention, cell {salt}, call {call}"] = LENGTH * _values(cell(*inputs, _keys(call, 0)))
    return found


def weights_inputs(operators: Operators) -> tuple[Tensor, Tensor, Tensor]:
    """The inputs of _Weights but for keys: equal scores, the unit matrix, a mask that forbids nothing."""
    units = np.tile(np.eye(LENGTH, dtype=np.float32), HEADS)
    zeros, units = (Tensor(each).astype(operators.compute_dtype) for each in (np.zeros_like(units), units))
    return zeros, units, Tensor(np.ones((1, LENGTH, LENGTH), np.float32))


def _values(tensor: Tensor) -> np.ndarray:
    return tensor.astype(ms.float32).asnumpy().astype(np.float64)


def _digest(kept: np.ndarray) -> str:
    return hashlib.sha256(np.packbits(kept).tobytes()).hexdigest()[:16]


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of two masks; 1 for equal ones, and for those that keep everything."""
    if one.all() or other.all() or not one.any() or not other.any():
        return 1.0
    return float(np.corrcoef(one, other)[0, 1])
