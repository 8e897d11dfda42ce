"""Draws the initial values of every parameter as the table of parameters states them (network.parameters).

Nothing is left to MindSpore's defaults, because they have changed since 2021 (its Dense was Normal(0.01), its
TruncatedNormal cut at two sigma). numpy draws the values, and they depend only on the seed and the
parameter's name, so they are the same for every plan, device and order of construction. Any part can be drawn
alone.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import partial

import numpy as np
from mindspore import Tensor, nn

from pangu_alpha.network.parameters import ParameterSpec, parameter_table
from pangu_alpha.network.rows import Constant

_PIECE = 1 << 16  # numbers drawn at once; fastest when they fit in a processor's cache


def initialize(model: nn.Cell, seed: int) -> None:
    """Overwrites every parameter of a network with its initial values; see `initial_values`.

    Args:
        model: A network whose `config` is of a type with registered rows (network.parameters).
        seed: Any non-negative integer.
    """
    table = parameter_table(model.config)
    for name, parameter in model.parameters_and_names():
        parameter.set_data(Tensor(initial_values(table[name], seed)))


def initial_values(
    spec: ParameterSpec,
    seed: int,
    part: tuple[Sequence[int], Sequence[int]] | None = None,
) -> np.ndarray:
    """Returns the initial values of a part of a parameter; they do not depend on which part is asked for.

    A part takes the time of all rows up to its last one, because a number's place in the random stream is
    known only after the numbers before it have been drawn. It takes no more memory than the part itself,
    except that a parameter with a cut is drawn whole.

    Args:
        spec: The parameter; unless it is constant, it must be a matrix.
        seed: Any non-negative integer.
        part: First index and length along each dimension; None is the whole. Rows beyond the whole are
            padding and filled with zeros.

    Returns:
        float32 array of the part.
    """
    shape, init = spec.shape, spec.init
    start, held = map(tuple, part) if part else ((0,) * len(shape), shape)
    if isinstance(init, Constant):
        return np.full(held, init.value, np.float32)
    rng = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
    drawn = _normal if init.cut == math.inf else partial(_cut, cut=init.cut)
    values = drawn(rng, shape, start, held)
    values *= np.float32(init.std)
    return values


def _normal(
    rng: np.random.Generator, shape: tuple[int, ...], start: tuple[int, ...], held: tuple[int, ...]
) -> np.ndarray:
    """A part of a matrix of normal values drawn row by row."""
    values = np.zeros(held, np.float32)
    first, end = start[0], min(start[0] + held[0], shape[0])
    columns = slice(start[1], start[1] + held[1])
    rows = max(1, _PIECE // shape[1])
    piece = np.empty((rows, shape[1]), np.float32)
    for row in range(0, end, rows):
        drawn = piece[: end - row]
        rng.standard_normal(dtype=np.float32, out=drawn)
        skipped = max(first - row, 0)
        if skipped < len(drawn):
            place = row + skipped - first
            values[place : place + len(drawn) - skipped] = drawn[skipped:, columns]
    return values


def _cut(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    start: tuple[int, ...],
    held: tuple[int, ...],
    cut: float,
) -> np.ndarray:
    """A part of a matrix of normal values; those beyond `cut` standard deviations are drawn again."""
    values = rng.standard_normal(shape, np.float32)
    while (outside := np.abs(values) > cut).any():
        values[outside] = rng.standard_normal(int(outside.sum()), np.float32)
    return values[tuple(slice(begin, begin + size) for begin, size in zip(start, held, strict=True))].copy()
