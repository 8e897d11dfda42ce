"""Kernels that compute several operators at once give the bits of the separate ones, gradients included."""

from __future__ import annotations

import dataclasses
import importlib.util
from functools import partial
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor, nn, ops

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.data.hashing import column_numbers, salted
from pangu_alpha.model.operators import dropout as positional
from pangu_alpha.model.operators import operators_for, plain
from pangu_alpha.model.operators.native import fused
from pangu_alpha.model.operators.native.library import library, missing_bfloat16
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.training.loss import TokenLoss

RATE, SALT = 0.25, 5
SMALL = ModelConfig(vocab_size=70, hidden_size=24, num_layers=3, num_heads=2, seq_length=12, dropout=0.0)
FUSED = ("projections", "feed_forward", "fork", "residual")
_SPEC = importlib.util.spec_from_file_location("kernel_calls", Path(__file__).parent / "kernel_calls.py")
kernel_calls = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(kernel_calls)


@pytest.fixture(scope="module")
def call(cpu):
    """Calls a kernel of the library."""
    if library() is None:
        pytest.skip("no kernels on this machine")
    return kernel_calls.Caller(str(library()))


@pytest.fixture(params=["", "Medium"])
def precision(call, request):
    """The end of the names of kernels."""
    if request.param and (problem := missing_bfloat16()):
        pytest.skip(problem)
    return request.param


def assert_same_bits(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rows, inputs, outputs", kernel_calls.PROJECTIONS)
def test_projections_are_linear_layers(call, precision, rows, inputs, outputs):
    x = call.normal(rows, inputs)
    weights = [call.normal(each, inputs) for each in outputs]
    biases, dys = [call.normal(each) for each in outputs], [call.normal(rows, each) for each in outputs]
    shapes = [each.shape for each in dys]
    found = call(f"Projections{precision}", [x, *weights, *biases], shapes)
    layers = zip(weights, biases, shapes, strict=True)
    assert_same_bits(found, [call(f"Affine{precision}", [x, w, b], [s])[0] for w, b, s in layers])

    name, shapes = f"AffineGradient{precision}", [each.shape for each in (x, *weights, *biases, x)]
    found = call(name.replace("Affine", "Projections"), [x, *weights, *dys], shapes)
    separate = [
        call(name, [x, w, dy], [x.shape, w.shape, w.shape[:1]]) for w, dy in zip(weights, dys, strict=True)
    ]
    dx = separate[0][0]
    for each in separate[1:]:
        dx = dx + each[0]
    expected = [dx, *(each[1] for each in separate), *(each[2] for each in separate)]
    assert_same_bits(found, [*expected, separate[-1][0]])


@pytest.mark.parametrize("rows, hidden, wide, outputs", kernel_calls.FEED_FORWARD)
def test_feed_forward_is_two_layers_and_gelu(call, precision, rows, hidden, wide, outputs):
    x, dy = call.normal(rows, hidden), call.normal(rows, outputs)
    up, down = call.normal(wide, hidden), call.normal(outputs, wide)
    up_bias, down_bias, between = call.normal(wide), call.normal(outputs), (rows, wide)
    found = call(f"FeedForward{precision}", [x, up, up_bias, down, down_bias], [dy.shape, between, between])
    (before,) = call(f"Affine{precision}", [x, up, up_bias], [between])
    (after,) = call("Gelu", [before], [between])
    (y,) = call(f"Affine{precision}", [after, down, down_bias], [dy.shape])
    assert_same_bits(found, [y, before, after])

    shapes = [x.shape, up.shape, up_bias.shape, down.shape, down_bias.shape, between]
    found = call(f"FeedForwardGradient{precision}", [x, up, down, before, after, dy], shapes)
    name = f"AffineGradient{precision}"
    dafter, ddown, ddown_bias = call(name, [after, down, dy], [between, down.shape, down_bias.shape])
    (dbefore,) = call("GeluGradient", [before, dafter], [between])
    dx, dup, dup_bias = call(name, [x, up, dbefore], [x.shape, up.shape, up_bias.shape])
    assert_same_bits(found, [dx, dup, dup_bias, ddown, ddown_bias, dbefore])


@pytest.mark.parametrize("rows, columns", kernel_calls.COLUMNS)
def test_ends_of_a_branch_are_norm_dropout_and_sums(call, rows, columns):
    x, y, gamma = call.normal(rows, columns), call.normal(rows, columns), call.normal(columns)
    given = [x, gamma, call.normal(rows), call.normal(rows), call.normal(rows, columns)]
    shapes = [x.shape, gamma.shape, gamma.shape]
    dx, dgamma, dbeta = call("LayerNormGradient", given, shapes)
    assert_same_bits(call("LayerNormGradient", [*given, y], shapes), [dx + y, dgamma, dbeta])

    assert_same_bits(call("Residual", [x, y], [x.shape]), [x + y])
    numbers = call.array(salted(column_numbers(columns), SALT).astype(np.int32))
    drop = [call.words(1, rows), numbers, call.scalar(-(2**30), np.int32), call.scalar(4 / 3)]
    (dropped,) = call("Dropout", [y, *drop], [x.shape])
    assert_same_bits(call("Residual", [x, y, *drop], [x.shape]), [x + dropped])


@pytest.mark.parametrize("places, columns, words", kernel_calls.EMBEDDING)
def test_gradient_of_a_shared_table_adds_words_in_their_order(call, places, columns, words):
    ids = call.array(call.random.integers(0, words, (1, places)).astype(np.int32))
    drows, dtable = call.normal(places, columns), call.normal(words, columns)
    sums = np.zeros_like(dtable)
    for word, row in zip(ids[0], drows, strict=True):
        sums[word] += row
    assert_same_bits(call("EmbeddingGradient", [ids, drows, dtable], [dtable.shape]), [dtable + sums])


def test_an_id_that_is_no_word_adds_nothing(call):
    drows, dtable = call.normal(3, 2), call.normal(5, 2)
    ids = call.array(np.array([[-1, 5, 2**31 - 1]], np.int32))
    assert_same_bits(call("EmbeddingGradient", [ids, drows, dtable], [dtable.shape]), [dtable])


class Sum(nn.Cell):
    """A scalar whose gradient by each of an operator's outputs is different everywhere."""

    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def construct(self, *inputs):
        total = 0.0
        for out in self.operator(*inputs):
            total += (out * ops.sin(ops.range(0, out.size, 1).astype(out.dtype)).reshape(out.shape)).sum()
        return total


class Separate(nn.Cell):
    """The four operators by the plain ones, or by the kernels; each returns a tuple."""

    def __init__(self, name, by_kernels):
        super().__init__()
        self.name, self.affine, self.gelu = name, plain.Affine(), plain.Gelu()
        self.norm, self.dropout = plain.Normalize(24, 1e-5), positional.Dropout(RATE, SALT)
        make = {
            "projections": fused.Projections,
            "feed_forward": fused.FeedForward,
            "fork": partial(fused.Fork, 1e-5),
            "residual": partial(fused.Residual, RATE, SALT),
        }[name]
        self.fused = make() if by_kernels else None

    def construct(self, *given):
        if self.name == "projections":
            x, a, b, c, d, e, f = given
            if self.fused is not None:
                return self.fused(x, (a, b, c), (d, e, f)) + self.fused(x, (b, a), (e, d))
            first = self.affine(x, a, d), self.affine(x, b, e), self.affine(x, c, f)
            return first + (first[1], first[0])
        if self.name == "feed_forward":
            if self.fused is not None:
                return (self.fused(*given),)
            x, up, up_bias, down, down_bias = given
            return (self.affine(self.gelu(self.affine(x, up, up_bias)), down, down_bias),)
        if self.name == "fork":
            return self.fused(*given) if self.fused is not None else (self.norm(*given), given[0])
        if self.fused is not None:
            return self.fused(*given), self.fused(given[0], given[1])
        return given[0] + self.dropout(given[1], given[2]), given[0] + given[1]


def normal(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def inputs_of(name):
    x = normal(33, 24)
    if name == "projections":
        return [x, *(normal(17, 24, seed=i) for i in (1, 2, 3)), *(normal(17, seed=i) for i in (4, 5, 6))]
    if name == "feed_forward":
        return [x, normal(96, 24, seed=1), normal(96, seed=2), normal(24, 96, seed=3), normal(24, seed=4)]
    if name == "fork":
        return [x, normal(24, seed=1), normal(24, seed=2)]
    words = np.random.default_rng(8).integers(-(2**31), 2**31 - 1, (3, 11)).astype(np.int32) | np.int32(1)
    return [x, normal(33, 24, seed=1), Tensor(words)]


@pytest.mark.parametrize("name", FUSED)
def test_cells_equal_the_plain_operators(call, name):
    given = inputs_of(name)
    places = tuple(i for i, each in enumerate(given) if each.dtype == ms.float32)
    found, expected = Separate(name, True), Separate(name, False)
    pairs = [
        *zip(found(*given), expected(*given), strict=True),
        *zip(ops.grad(Sum(found), places)(*given), ops.grad(Sum(expected), places)(*given), strict=True),
    ]
    for one, other in pairs:
        one, other = one.asnumpy(), other.asnumpy()
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


class Total(nn.Cell):
    """The sum of a network's losses."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def construct(self, *fields):
        return self.loss(*fields).sum()


def losses_and_gradients(operators, config, dropout_rows):
    """Of a small network with the initial values of seed 3."""
    loss = TokenLoss(PanguAlpha(config, seed=3, operators=operators))
    random = np.random.default_rng(0)
    ids = random.integers(0, config.vocab_size, (2, 2, config.seq_length)).astype(np.int32)
    places = np.tile(np.arange(config.seq_length, dtype=np.int32), (2, 1))
    given = [Tensor(ids[0]), Tensor(ids[1]), Tensor(places), Tensor(np.zeros_like(places)), dropout_rows]
    parameters = ParameterTuple(loss.trainable_params())
    step = ops.value_and_grad(Total(loss), None, parameters)
    value, gradients = step(*given)
    return [value.asnumpy(), *(each.asnumpy() for each in gradients)]


@pytest.mark.parametrize("rate", [0.0, RATE])
@pytest.mark.parametrize("norm_order", ["norm_then_query", "query_then_norm"])
def test_a_network_has_the_gradients_of_separate_operators(call, rate, norm_order):
    """Bit for bit: fusing changes where intermediate results lie, not what is added to what."""
    config = dataclasses.replace(SMALL, dropout=rate, norm_order=norm_order)
    operators = operators_for(config)
    assert operators.fused_block is fused.BlockKernels
    words = np.random.default_rng(8).integers(-(2**31), 2**31 - 1, (2, 12)).astype(np.int32) | np.int32(1)
    rows = Tensor(words) if rate else None
    separate = dataclasses.replace(operators, fused_block=None, shared_embedding=None)
    found, expected = (losses_and_gradients(each, config, rows) for each in (operators, separate))
    assert len(found) == 1 + 3 * 16 + 5 and all(each.any() for each in found)
    assert_same_bits(found, expected)


def test_only_kernels_are_fused(call):
    for device in ("plain", "Ascend"):
        operators = operators_for(SMALL, device)
        assert operators.fused_block is None and operators.shared_embedding is None
    fast = dataclasses.replace(SMALL, activation="fast_gelu")
    assert operators_for(fast, "CPU").fused_block is None  # the kernel has the tanh form inside
    assert operators_for(SMALL, "CPU").fused_block is fused.BlockKernels
