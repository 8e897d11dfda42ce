"""Initial values of every parameter: the table of the 2021 release, written out.

MindSpore's defaults have changed since (its Dense was Normal(0.01), its TruncatedNormal cut at two sigma),
so nothing is left to them. Values are drawn by numpy and depend on the seed and the parameter's name only:
the same for every plan, device and order of construction. Any part of a parameter can be drawn alone.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
from mindspore import Tensor, nn

_PIECE = 1 << 16  # numbers drawn at once; what a processor's cache holds is the fastest


def initialize(model: nn.Cell, seed: int) -> None:
    """Sets every parameter of a PanguAlpha; see `initial_values`.

    Args:
        model: A PanguAlpha; its parameters are overwritten.
        seed: Any non-negative integer.
    """
    for name, parameter in model.parameters_and_names():
        values = initial_values(name, parameter.shape, model.config.num_layers, seed)
        parameter.set_data(Tensor(values))


def initial_values(
    name: str,
    shape: Sequence[int],
    num_layers: int,
    seed: int,
    part: tuple[Sequence[int], Sequence[int]] | None = None,
) -> np.ndarray:
    """Initial values of a part of a parameter, the same whatever part is asked for.

    | parameter | 2021 value |
    | --- | --- |
    | word embedding | Normal(0.02) |
    | position and query embedding | Normal(0.02) cut at 2 sigma |
    | query, key, value weights | Normal(0.01) |
    | feed-forward up | Normal(0.02) |
    | attention output, feed-forward down | Normal(0.02 / sqrt(2 L)) |
    | gamma / beta and biases | 1 / 0 |

    A part costs the time of all rows up to its last, since a number's place in the random stream is not
    known before all that lie in front of it are drawn; but no more memory than the part. Only what is cut at
    2 sigma is drawn whole, [S, H].

    Args:
        name: Of the parameter.
        shape: Of the whole.
        num_layers: Layers L of the network.
        seed: Any non-negative integer.
        part: First index and length along each dimension; the whole when left out. Rows beyond the whole are
            padding, zero.

    Returns:
        float32 array of the part.
    """
    shape = tuple(shape)
    start, held = map(tuple, part) if part else ((0,) * len(shape), shape)
    if name.endswith(("gamma", "beta", "bias")):
        return np.full(held, float(name.endswith("gamma")), np.float32)
    std, cut = _distribution(name, num_layers)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = _normal(rng, shape, start, held) if cut == math.inf else _cut(rng, shape, cut, start, held)
    values *= np.float32(std)
    return values


def _distribution(name: str, num_layers: int) -> tuple[float, float]:
    """Standard deviation of a parameter, and at how many of them it is cut."""
    residual_std = 0.02 / math.sqrt(2 * num_layers)
    table = (
        ("word_embedding.table", 0.02, math.inf),
        ("position_embedding.table", 0.02, 2.0),
        ("query_embedding.table", 0.02, 2.0),
        ("attention.query.weight", 0.01, math.inf),
        ("attention.key.weight", 0.01, math.inf),
        ("attention.value.weight", 0.01, math.inf),
        ("attention.output.weight", residual_std, math.inf),
        ("feed_forward.up.weight", 0.02, math.inf),
        ("feed_forward.down.weight", residual_std, math.inf),
    )
    return next((std, cut) for ending, std, cut in table if name.endswith(ending))


def _normal(
    rng: np.random.Generator, shape: tuple[int, ...], start: tuple[int, ...], held: tuple[int, ...]
) -> np.ndarray:
    """A part of a matrix of normal values that are drawn row by row."""
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
    cut: float,
    start: tuple[int, ...],
    held: tuple[int, ...],
) -> np.ndarray:
    """A part of a matrix of normal values; those beyond `cut` standard deviations are drawn again."""
    values = rng.standard_normal(shape, np.float32)
    while (outside := np.abs(values) > cut).any():
        values[outside] = rng.standard_normal(int(outside.sum()), np.float32)
    return values[tuple(slice(begin, begin + size) for begin, size in zip(start, held, strict=True))].copy()
