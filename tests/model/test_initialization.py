"""Initial values follow the table of the 2021 release, by seed and name only."""

from __future__ import annotations

import math
import tracemalloc
import zlib

import numpy as np
import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.model.initialization import initial_values
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.network.parameters import ParameterSpec, parameter_table
from pangu_alpha.network.rows import Normal, Row, Stage

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


def drawn_at_once(name, shape, std, cut=math.inf):
    """A parameter of seed 5 drawn whole by one call of numpy."""
    rng = np.random.default_rng([5, zlib.crc32(name.encode())])
    found = rng.standard_normal(shape, np.float32)
    while (outside := np.abs(found) > cut).any():
        found[outside] = rng.standard_normal(int(outside.sum()), np.float32)
    return found * np.float32(std)


def spec(name, shape, std=1.0, cut=math.inf):
    """A parameter of that name and shape, whatever network has it."""
    row = Row(name, "H", Normal(std, cut), True, (None,), Stage.FIRST)
    return ParameterSpec(name, shape, row.init, row.decayed, row.axes, row.stage, None, row)


PARAMETERS = {
    "word_embedding.table": ((1001, 96), 0.02, math.inf),  # 682 rows are drawn at once
    "query_embedding.table": ((700, 128), 0.02, 2.0),
    "blocks.1.attention.query.weight": ((256, 256), 0.01, math.inf),  # all rows at once
    "query_layer.feed_forward.down.weight": ((3, 70_000), 0.02 / math.sqrt(6), math.inf),  # one by one
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_part_is_that_of_the_whole(name):
    shape, std, cut = PARAMETERS[name]
    whole = drawn_at_once(name, shape, std, cut)
    np.testing.assert_array_equal(initial_values(spec(name, shape, std, cut), 5), whole)
    rows, columns = shape
    for start, held in (
        ((0, 0), (rows // 3, columns)),
        ((rows // 3, 0), (rows // 3, columns)),
        ((rows - 1, 0), (1, columns)),
        ((0, columns // 4), (rows, columns // 4)),
        ((rows // 2, columns // 2), (rows // 2, columns - columns // 2)),
    ):
        part = initial_values(spec(name, shape, std, cut), 5, (start, held))
        cut_out = whole[start[0] : start[0] + held[0], start[1] : start[1] + held[1]]
        np.testing.assert_array_equal(part, cut_out, strict=True)


def test_rows_of_padding_are_zero():
    rows, columns = 1001, 96
    table = spec("word_embedding.table", (rows, columns), 0.02)
    whole = initial_values(table, 5)
    part = initial_values(table, 5, ((756, 0), (252, columns)))
    np.testing.assert_array_equal(part[:245], whole[756:])
    assert not part[245:].any()
    assert not initial_values(table, 5, ((1004, 0), (4, columns))).any()


def test_a_part_of_a_constant():
    table = parameter_table(ModelConfig(**SHAPE))
    gamma, bias = table["blocks.0.attention_norm.gamma"], table["blocks.0.attention.query.bias"]
    assert (initial_values(gamma, 5, ((16,), (8,))) == np.ones(8)).all()
    assert not initial_values(bias, 5, ((16,), (8,))).any()


def test_a_part_takes_no_more_memory_than_itself():
    shape, part = (8192, 1024), ((6144, 256), (1024, 128))  # 32 MiB, of which 512 KiB
    tracemalloc.start()
    try:
        initial_values(spec("blocks.0.feed_forward.up.weight", shape), 5, part)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20
