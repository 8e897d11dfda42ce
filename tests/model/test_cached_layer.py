"""The kernel of a whole layer for few rows equals its definition, and no row depends on the others."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.model.operators import operators_for
from pangu_alpha.model.operators.native.library import library

_SPEC = importlib.util.spec_from_file_location("kernel_calls", Path(__file__).parent / "kernel_calls.py")
kernel_calls = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(kernel_calls)
SHAPES = kernel_calls.LAYERS + [(rows, 16, 5, 2, 8, 40) for rows in (2, 4, 6, 7, 10, 11, 15)]


@pytest.fixture(scope="module")
def call(cpu):
    """Calls a kernel of the library."""
    if library() is None:
        pytest.skip("no kernels on this machine")
    return kernel_calls.Caller(str(library()))


def normalized(x, gamma, beta, epsilon):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon) * gamma + beta


def attention(query, keys, values, heads):
    """Softmax over the given keys [C, H] of one query [H]."""
    split = [each.reshape(*each.shape[:-1], heads, -1) for each in (query, keys, values)]
    scores = np.einsum("nd,cnd->nc", split[0], split[1]) / np.sqrt(split[0].shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("nc,cnd->nd", weights / weights.sum(-1, keepdims=True), split[2]).ravel()


def defined(given):
    """The caches and the output, in float64."""
    keys, values, x = (each.astype(np.float64) for each in given[:3])
    places, heads, epsilon = given[3], given[4].size, float(given[5][0])
    norms, linears = given[6:10], [*zip(given[10:22:2], given[11:22:2], strict=True)]
    (wq, bq), (wk, bk), (wv, bv), (wo, bo), (wu, bu), (wd, bd) = linears
    normed = normalized(x, *norms[:2], epsilon)
    query = (given[22] if len(given) > 22 else normed) @ wq.T + bq
    for i, (row, slot, start) in enumerate(places):
        keys[row, slot], values[row, slot] = wk @ normed[i] + bk, wv @ normed[i] + bv
        visible = slice(start, slot + 1)
        query[i] = attention(query[i], keys[row, visible], values[row, visible], heads)
    x = x + query @ wo.T + bo
    up = normalized(x, *norms[2:], epsilon) @ wu.T + bu
    gate = 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
    return keys, values, x + (up * gate) @ wd.T + bd


def run(call, given):
    """The caches after a call of the kernel, and its output; the given ones stay as they are."""
    given = [call.array(each) for each in given]
    (out,) = call("CachedLayer", given, [given[2].shape])
    return given[0], given[1], out


@pytest.mark.parametrize("asks_itself", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_layer_is_what_its_operators_compute(call, shape, asks_itself):
    given = kernel_calls.layer_arguments(call, shape, asks_itself)
    for found, expected in zip(run(call, given), defined(given), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(3, 4, 9, 3, 5, 60), (8, 9, 33, 3, 80, 96), (16, 18, 20, 2, 16, 130)])
def test_a_row_does_not_depend_on_the_others(call, shape):
    given = kernel_calls.layer_arguments(call, shape)
    keys, values, out = run(call, given)
    for i, (row, slot, _) in enumerate(given[3]):
        one = [*given[:2], given[2][i : i + 1], given[3][i : i + 1], *given[4:]]
        alone = run(call, one)
        assert (alone[2][0] == out[i]).all()
        assert (alone[0][row, slot] == keys[row, slot]).all()
        assert (alone[1][row, slot] == values[row, slot]).all()


def test_only_visible_slots_are_read_and_only_new_ones_written(call):
    given = kernel_calls.layer_arguments(call, (8, 9, 33, 3, 80, 96))
    expected = run(call, given)
    read, written = (np.zeros(given[0].shape[:2], bool) for _ in range(2))
    for row, slot, start in given[3]:
        read[row, start : slot + 1] = written[row, slot] = True
    for cache in given[:2]:
        cache[~read] = np.nan
        cache[written] = np.nan
    found = run(call, given)
    assert (found[2] == expected[2]).all()
    for before, after in zip(given[:2], found[:2], strict=True):
        np.testing.assert_array_equal(after[~written], before[~written])
        assert np.isfinite(after[written]).all()


@pytest.mark.parametrize("shape", [(1, 2, 70, 2, 64, 512), (5, 5, 40, 1, 128, 200)])
def test_where_weights_lie_changes_no_bit(call, shape):
    """Vectors begin where cache lines do, so other lanes hold other terms."""
    given = kernel_calls.layer_arguments(call, shape)
    expected = run(call, given)
    for offset in range(1, 16):
        call.offset = offset
        found = run(call, given)
        call.offset = 0
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("place", [(-1, 0, 0), (4, 0, 0), (0, 9, 0), (0, 3, 4), (0, 3, -1)])
def test_a_place_outside_the_cache_is_an_error_and_nothing_is_written(call, place):
    given = kernel_calls.layer_arguments(call, (3, 4, 9, 3, 5, 60))
    given[3][1] = place
    before = given[0].copy()
    with pytest.raises(AssertionError, match=r"\('CachedLayer', 1\)"):
        call("CachedLayer", given, [given[2].shape])
    assert (given[0] == before).all()


@pytest.mark.parametrize("inputs", [1, 15, 16, 70, 1024, 1100])
def test_a_row_of_a_product_does_not_depend_on_how_many_there_are(call, inputs):
    x, weight, bias = call.normal(8, inputs), call.normal(45, inputs), call.normal(45)
    (alone,) = zip(*(call("Affine", [x[i : i + 1], weight, bias], [(1, 45)]) for i in range(8)), strict=True)
    exact = x.astype(np.float64) @ weight.T + bias
    np.testing.assert_allclose(np.concatenate(alone), exact, rtol=0, atol=2e-6 * np.abs(exact).max())
    for rows in range(2, 9):
        (found,) = call("Affine", [call.array(x[:rows]), weight, bias], [(rows, 45)])
        np.testing.assert_array_equal(found, np.concatenate(alone)[:rows])


def test_the_device_has_the_cell_only_where_it_computes_the_network(call):
    config = ModelConfig(vocab_size=70, hidden_size=24, num_layers=2, num_heads=2, seq_length=12)
    fast = ModelConfig(70, 24, 2, 2, 12, activation="fast_gelu")
    made = operators_for(config, "CPU").fused_block(config, 0)
    assert made.step_at_once(16) and not made.step_at_once(17)
    for other, device in ((fast, "CPU"), (config, "plain"), (config, "Ascend")):
        assert operators_for(other, device).fused_block is None
