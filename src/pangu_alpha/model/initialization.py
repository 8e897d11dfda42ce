"""Initial values of every parameter: the table of the 2021 release, written out.

MindSpore's defaults have changed since (its Dense was Normal(0.01), its TruncatedNormal cut at two sigma),
so nothing is left to them. Values are drawn by numpy and depend on the seed and the parameter's name only:
the same for every plan, device and order of construction.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
from mindspore import Tensor, nn


def initialize(model: nn.Cell, seed: int) -> None:
    """Sets every parameter of a PanguAlpha.

    | parameter | 2021 value |
    | --- | --- |
    | word embedding | Normal(0.02) |
    | position and query embedding | Normal(0.02) cut at 2 sigma |
    | query, key, value weights | Normal(0.01) |
    | feed-forward up | Normal(0.02) |
    | attention output, feed-forward down | Normal(0.02 / sqrt(2 L)) |
    | gamma / beta and biases | 1 / 0 |

    Args:
        model: A PanguAlpha; its parameters are overwritten.
        seed: Any non-negative integer.
    """
    residual_std = 0.02 / math.sqrt(2 * model.config.num_layers)
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
    for name, parameter in model.parameters_and_names():
        if name.endswith(("gamma", "beta", "bias")):
            values = np.full(parameter.shape, float(name.endswith("gamma")), np.float32)
        else:
            std, cut = next((std, cut) for ending, std, cut in table if name.endswith(ending))
            values = _normal(
                parameter.shape, std, cut, np.random.default_rng([seed, zlib.crc32(name.encode())])
            )
        parameter.set_data(Tensor(values))


def _normal(shape: tuple[int, ...], std: float, cut: float, rng: np.random.Generator) -> np.ndarray:
    """Normal values in float32; those beyond `cut` standard deviations are drawn again."""
    values = rng.standard_normal(shape, np.float32)
    while (outside := np.abs(values) > cut).any():
        values[outside] = rng.standard_normal(int(outside.sum()), np.float32)
    return values * np.float32(std)
