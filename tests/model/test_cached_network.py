"""The kernel of a whole network for few rows equals its definition, and no row depends on the others."""

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
FIRST, TENSORS, VOCABULARY = kernel_calls.FIRST, kernel_calls.TENSORS, kernel_calls.VOCABULARY
ONE_LAYER = [(rows, 16, 5, 2, 8, 40, 1) for rows in (2, 4, 6, 7, 10, 11, 15)]
SHAPES = kernel_calls.NETWORKS + ONE_LAYER
ROWS, SEVERAL = (8, 9, 33, 3, 80, 96, 2), (3, 4, 9, 3, 5, 60, 3)


@pytest.fixture(scope="module")
def call(cpu):
    """Calls a kernel of the library."""
    if library() is None:
        pytest.skip("no kernels on this machine")
    return kernel_calls.Caller(str(library()))


def normalized(x, gamma, beta, epsilon):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon) * gamma + beta


def attention(query, keys, values):
    """Softmax over the given keys [N, C, d] of one query [H]."""
    split = query.reshape(len(keys), -1)
    scores = np.einsum("nd,ncd->nc", split, keys) / np.sqrt(split.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("nc,ncd->nd", weights / weights.sum(-1, keepdims=True), values).ravel()


def layer(given, x, asks, places, epsilon):
    """The caches and the output of a layer; `asks` is what the queries are made of, None its own input."""
    keys, values, *norms = given[:6]
    linears = [*zip(given[6::2], given[7::2], strict=True)]
    (wq, bq), (wk, bk), (wv, bv), (wo, bo), (wu, bu), (wd, bd) = linears
    normed = normalized(x, *norms[:2], epsilon)
    query = (normed if asks is None else asks) @ wq.T + bq
    for i, (row, slot, start) in enumerate(places):
        keys[row, :, slot] = (wk @ normed[i] + bk).reshape(len(keys[row]), -1)
        values[row, :, slot] = (wv @ normed[i] + bv).reshape(len(keys[row]), -1)
        visible = slice(start, slot + 1)
        query[i] = attention(query[i], keys[row, :, visible], values[row, :, visible])
    x = x + query @ wo.T + bo
    up = normalized(x, *norms[2:], epsilon) @ wu.T + bu
    gate = 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
    return keys, values, x + (up * gate) @ wd.T + bd


def defined(given):
    """The caches of all layers and the logits, in float64."""
    ids, places, epsilon, norm_first = given[:2] + [each.item() for each in given[2:4]]
    words, positions, queries, *norm = (each.astype(np.float64) for each in given[4:FIRST])
    position = places[:, 1] - places[:, 2]
    x, caches = words[ids] + positions[position], []
    for begin in range(FIRST, len(given), TENSORS):
        tensors = [each.astype(np.float64) for each in given[begin : begin + TENSORS]]
        last = begin + TENSORS == len(given)
        if last and norm_first:
            x = normalized(x, *norm, epsilon)
        keys, values, x = layer(tensors, x, queries[position] if last else None, places, epsilon)
        caches += [keys, values]
    return [*caches, (x if norm_first else normalized(x, *norm, epsilon)) @ words.T]


def run(call, given):
    """The caches after a call of the kernel, and the logits; the given ones stay as they are."""
    given = [call.array(each) for each in given]
    (out,) = call("CachedNetwork", given, [(len(given[0]), VOCABULARY)])
    return [*kernel_calls.caches_of(given), out]


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_network_is_what_its_operators_compute(call, shape, norm_first):
    given = kernel_calls.network_arguments(call, shape, norm_first)
    for found, expected in zip(run(call, given), defined(given), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [SEVERAL, ROWS, (16, 18, 20, 2, 16, 130, 2)])
def test_a_row_does_not_depend_on_the_others(call, shape):
    given = kernel_calls.network_arguments(call, shape)
    *caches, out = run(call, given)
    for i, (row, slot, _) in enumerate(given[1]):
        *others, alone = run(call, [given[0][i : i + 1], given[1][i : i + 1], *given[2:]])
        assert (alone[0] == out[i]).all()
        for one, all_rows in zip(others, caches, strict=True):
            assert (one[row, :, slot] == all_rows[row, :, slot]).all()


def test_only_visible_slots_are_read_and_only_new_ones_written(call):
    given = kernel_calls.network_arguments(call, ROWS)
    *_, expected = run(call, given)
    caches = kernel_calls.caches_of(given)
    rows, heads, slots, size = caches[0].shape
    read, written = (np.zeros((rows, heads, slots), bool) for _ in range(2))
    for row, slot, start in given[1]:
        read[row, :, start : slot + 1] = written[row, :, slot] = True
    for cache in caches:
        cache[~read] = np.nan
        cache[written] = np.nan
    *found, out = run(call, given)
    assert (out == expected).all()
    for before, after in zip(caches, found, strict=True):
        np.testing.assert_array_equal(after[~written], before[~written])
        assert np.isfinite(after[written]).all()


@pytest.mark.parametrize("shape", [(1, 2, 70, 2, 64, 512, 2), (5, 5, 40, 1, 128, 200, 2)])
def test_where_weights_lie_changes_no_bit(call, shape):
    """Vectors begin where cache lines do, so other lanes hold other terms."""
    given = kernel_calls.network_arguments(call, shape)
    expected = run(call, given)
    for offset in range(1, 16):
        call.offset = offset
        found = run(call, given)
        call.offset = 0
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "place", [(-1, 0, 0), (4, 0, 0), (0, 9, 0), (0, 3, 4), (0, 3, -1), "id", "word", "position"]
)
def test_a_place_or_id_that_does_not_exist_is_an_error_and_nothing_is_written(call, place):
    given = kernel_calls.network_arguments(call, SEVERAL)
    if place == "position":  # a table of positions that is shorter than the cache
        given[5] = given[5][:8]
        given[1][1] = 0, 8, 0
    elif isinstance(place, str):
        given[0][1] = {"id": -1, "word": VOCABULARY}[place]
    else:
        given[1][1] = place
    before = [each.copy() for each in kernel_calls.caches_of(given)]
    with pytest.raises(AssertionError, match=r"\('CachedNetwork', 1\)"):
        call("CachedNetwork", given, [(3, VOCABULARY)])
    for one, other in zip(kernel_calls.caches_of(given), before, strict=True):
        assert (one == other).all()


@pytest.mark.parametrize("inputs", [1, 15, 16, 70, 1024, 1100])
def test_a_row_of_a_product_does_not_depend_on_how_many_there_are(call, inputs):
    x, weight, bias = call.normal(8, inputs), call.normal(45, inputs), call.normal(45)
    (alone,) = zip(*(call("Affine", [x[i : i + 1], weight, bias], [(1, 45)]) for i in range(8)), strict=True)
    exact = x.astype(np.float64) @ weight.T + bias
    np.testing.assert_allclose(np.concatenate(alone), exact, rtol=0, atol=2e-6 * np.abs(exact).max())
    for rows in range(2, 9):
        (found,) = call("Affine", [call.array(x[:rows]), weight, bias], [(rows, 45)])
        np.testing.assert_array_equal(found, np.concatenate(alone)[:rows])


def test_the_device_has_the_kernel_only_where_it_computes_the_network(call):
    config = ModelConfig(vocab_size=70, hidden_size=24, num_layers=2, num_heads=2, seq_length=12)
    fast = ModelConfig(70, 24, 2, 2, 12, activation="fast_gelu")
    assert operators_for(config, "CPU").token_kernel is not None
    for other, device in ((fast, "CPU"), (config, "plain"), (config, "Ascend")):
        assert operators_for(other, device).token_kernel is None
