"""The masks of a device's dropout cells: their shares, their factors, and the masks themselves."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from mindspore import Tensor

from pangu_alpha.cluster_check.place import Place
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.model.operators import Operators, operators_for
from pangu_alpha.training.schedule import dropout_rows

RATE = 0.1
LENGTH, HIDDEN, HEADS = 256, 512, 4
CELLS = (1, 2, 5)  # salts: two cells of the first layer, and one of the second
STEPS = ((0, 0), (0, 1), (1, 0))  # (step, row): two micro-batches of a step, and the next step


def measure(place: Place) -> dict[str, Any]:
    """Returns each mask's share of zeros and distinct other values, a digest, and how masks go together."""
    config = ModelConfig(64, HIDDEN, 2, HEADS, seq_length=LENGTH, dropout=RATE, compute_dtype="auto")
    operators = operators_for(config, "plain" if place.measurement == "plain" else None)
    masks = {**_residual(operators), **_attention(operators)}
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
    return Tensor(dropout_rows(1234, step, [row], LENGTH))


def _residual(operators: Operators) -> dict[str, np.ndarray]:
    """What ones become in the residual stream's cells, [S, H] each."""
    ones = Tensor(np.ones((LENGTH, HIDDEN), np.float32))
    return {
        f"residual, cell {salt}, step {step}, row {row}": _values(
            operators.dropout(RATE, salt)(ones, _keys(step, row))
        )
        for salt in CELLS
        for step, row in STEPS
    }


def _attention(operators: Operators) -> dict[str, np.ndarray]:
    """What ones become as attention weights, [1, N, S, S] each, times the factor that the caller applies."""
    ones = Tensor(np.ones((1, HEADS, LENGTH, LENGTH), np.float32))
    found = {}
    for salt in CELLS[:2]:
        cell = operators.attention_dropout(RATE, salt, HEADS)
        found[f"attention, cell {salt}"] = _values(cell(ones, _keys(0, 0))) * cell.factor
    return found


def _values(tensor: Tensor) -> np.ndarray:
    return tensor.asnumpy().astype(np.float64)


def _digest(kept: np.ndarray) -> str:
    return hashlib.sha256(np.packbits(kept).tobytes()).hexdigest()[:16]


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of two masks; 1 for equal ones, and for those that keep everything."""
    if one.all() or other.all() or not one.any() or not other.any():
        return 1.0
    return float(np.corrcoef(one, other)[0, 1])
