"""Initial values follow the table of the 2021 release, by seed and name only."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.model.pangu import PanguAlpha

SHAPE = {"vocab_size": 500, "hidden_size": 128, "num_layers": 3, "num_heads": 4, "seq_length": 64}


def values(seed=0, **changes):
    model = PanguAlpha(ModelConfig(**{**SHAPE, **changes}), seed)
    return {name: parameter.asnumpy() for name, parameter in model.parameters_and_names()}


@pytest.fixture(scope="module")
def initial(cpu):
    return values()


@pytest.mark.parametrize(
    "ending, std",
    [
        ("word_embedding.table", 0.02),
        ("attention.query.weight", 0.01),
        ("attention.key.weight", 0.01),
        ("attention.value.weight", 0.01),
        ("attention.output.weight", 0.02 / math.sqrt(6)),
        ("feed_forward.up.weight", 0.02),
        ("feed_forward.down.weight", 0.02 / math.sqrt(6)),
    ],
)
def test_normal(initial, ending, std):
    found = [array for name, array in initial.items() if name.endswith(ending)]
    assert len(found) in (1, 3)
    for array in found:
        assert array.std() == pytest.approx(std, rel=5 / math.sqrt(2 * array.size))
        assert abs(array.mean()) < 5 * std / math.sqrt(array.size)
        assert np.abs(array).max() > 3 * std  # not cut


@pytest.mark.parametrize("name", ["position_embedding.table", "query_embedding.table"])
def test_cut_at_two_sigma(initial, name):
    array = initial[name]
    assert 0.039 < np.abs(array).max() <= 0.04
    assert array.std() == pytest.approx(0.02 * 0.8796, rel=0.05)  # of a normal cut at two sigma


def test_constants(initial):
    for name, array in initial.items():
        if name.endswith(("bias", "beta")):
            assert (array == 0).all()
        if name.endswith("gamma"):
            assert (array == 1).all()


def test_seed_and_name_decide(initial):
    again, other = values(), values(seed=1)
    deeper = values(num_layers=4)
    for name, array in initial.items():
        np.testing.assert_array_equal(array, again[name])
        assert not name.endswith("weight") or not np.array_equal(array, other[name])
    np.testing.assert_array_equal(
        initial["blocks.1.feed_forward.up.weight"], deeper["blocks.1.feed_forward.up.weight"]
    )
    first, second = (initial[f"blocks.{i}.attention.query.weight"] for i in (0, 1))
    assert not np.array_equal(first, second)
