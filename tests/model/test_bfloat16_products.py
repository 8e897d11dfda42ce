"""Kernels of medium precision round factors to bfloat16 and add up in float32; elsewhere they are refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops
from weighted_sum import WeightedSum

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.model import operators as operators_module
from pangu_alpha.model.operators import operators_for
from pangu_alpha.model.operators.native import library as library_module
from pangu_alpha.model.operators.native.library import library, missing_bfloat16

UNIT = 2.0**-24  # largest relative error of a float32 operation
ODD = [  # rows, inputs, outputs
    *(
        (rows, inputs, outputs)
        for rows in range(1, 10)
        for inputs, outputs in ((1, 1), (2, 5), (7, 3), (33, 50))
    ),
    (17, 1025, 50),
    (64, 512, 129),
    (65, 2049, 200),
    (70, 64, 97),
    (129, 1030, 71),
    (300, 40, 33),
    (8, 5000, 49),
]
MODEL = ModelConfig(vocab_size=64, hidden_size=8, num_layers=2, num_heads=2, seq_length=16)

_SPEC = importlib.util.spec_from_file_location("kernel_calls", Path(__file__).parent / "kernel_calls.py")
kernel_calls = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(kernel_calls)


@pytest.fixture(scope="module")
def native(cpu):
    """The compiled library, on a processor that multiplies in bfloat16."""
    if problem := missing_bfloat16():
        pytest.skip(problem)
    return str(library())


def rounded(x):
    """The nearest bfloat16 of each finite number, and of two the even one; float64."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32).astype(np.float64)


def bound(a, b):
    """Largest error of a b with exact products, each of which is added with one rounding: n u |a| |b|.

    Blocks of the sum add one more rounding each, and underflow at most the smallest normal number each time.
    """
    terms = a.shape[1]
    roundings = terms + terms // 1024 + 2
    return roundings * UNIT / (1 - roundings * UNIT) * (np.abs(a) @ np.abs(b)) + terms * 2.0**-126


def assert_product(found, a, b):
    """`found` is the product of rounded factors, and not that of the factors as they are."""
    exact = rounded(a) @ rounded(b)
    errors = np.abs(found - exact)
    np.testing.assert_array_less(errors, bound(rounded(a), rounded(b)))
    if a.shape[1] >= 33:
        unrounded = np.abs(found - a.astype(np.float64) @ b.astype(np.float64))
        assert errors.max() < unrounded.max() / 8


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("rows, inputs, outputs", ODD)
def test_products_of_rounded_factors(native, rows, inputs, outputs, offset):
    call = kernel_calls.Caller(native, offset)
    x, weight, dy = call.normal(rows, inputs), call.normal(outputs, inputs), call.normal(rows, outputs)
    zero = call.array(np.zeros(outputs, np.float32))
    (y,) = call("AffineMedium", [x, weight, zero], [dy.shape])
    assert_product(y, x, weight.T)
    (linear,) = call("LinearMedium", [x, weight], [dy.shape])
    np.testing.assert_array_equal(linear, y)
    shapes = [x.shape, weight.shape, zero.shape]
    dx, dweight, dbias = call("AffineGradientMedium", [x, weight, dy], shapes)
    assert_product(dx, dy, weight)
    assert_product(dweight, np.ascontiguousarray(dy.T), x)
    np.testing.assert_array_equal(dbias, call("AffineGradient", [x, weight, dy], shapes)[2])


@pytest.mark.parametrize("rows, inputs, outputs", ODD)
def test_small_integers_are_exact(native, rows, inputs, outputs):
    call = kernel_calls.Caller(native)
    x, weight, dy = (
        call.array(call.random.integers(-9, 10, shape).astype(np.float32))
        for shape in ((rows, inputs), (outputs, inputs), (rows, outputs))
    )
    bias = call.array(np.arange(outputs, dtype=np.float32))
    np.testing.assert_array_equal(call("AffineMedium", [x, weight, bias], [dy.shape])[0], x @ weight.T + bias)
    shapes = [x.shape, weight.shape, bias.shape]
    expected = dy @ weight, dy.T @ x, dy.sum(0)
    for found, wanted in zip(call("AffineGradientMedium", [x, weight, dy], shapes), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "factor, expected",
    [
        (1 + 2.0**-8, 1.0),  # half way between two: the even one
        (1 + 3 * 2.0**-8, 1 + 2.0**-6),
        (1 + 2.0**-8 + 2.0**-20, 1 + 2.0**-7),
        (-(1 + 2.0**-8), -1.0),
        (np.float32(3.4e38), np.inf),  # beyond the largest bfloat16
        (2.0**-126, 2.0**-126),
        (2.0**-127, 0.0),  # what is below the smallest normal number counts as 0
        (np.inf, np.inf),
        (-np.inf, -np.inf),
        (np.nan, np.nan),
        (np.array([0x7F800001], np.uint32).view(np.float32)[0], np.nan),  # not infinite once it is cut
    ],
)
def test_how_one_factor_is_rounded(native, factor, expected):
    call = kernel_calls.Caller(native)
    given, one, shape = call.scalar(factor).reshape(1, 1), call.array(np.ones((1, 1), np.float32)), [(1, 1)]
    for x, weight in ((given, one), (one, given)):
        np.testing.assert_array_equal(call("LinearMedium", [x, weight], shape)[0], [[np.float32(expected)]])


def test_results_below_the_smallest_normal_number_are_zero(native):
    call = kernel_calls.Caller(native)
    x, weight = (call.array(np.full((1, 3), value, np.float32)) for value in (2.0**-100, 2.0**-27))
    assert call("LinearMedium", [x, weight], [(1, 1)])[0] == 0.0  # 3 * 2^-127 after it was 2^-127
    assert call("Linear", [x, weight], [(1, 1)])[0] == 3 * 2.0**-127


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 1, 98])
def test_what_is_not_finite_stays_in_its_row(native, bad, column):
    call = kernel_calls.Caller(native)
    x, weight = call.normal(37, 99), call.normal(50, 99)
    x[5, column] = bad
    (y,) = call("LinearMedium", [x, weight], [(37, 50)])
    assert not np.isfinite(y[5]).any() and np.isfinite(np.delete(y, 5, 0)).all()
    dy = call.normal(37, 50)
    dx, dweight, _ = call("AffineGradientMedium", [x, weight, dy], [x.shape, weight.shape, (50,)])
    assert np.isfinite(dx).all() and not np.isfinite(dweight[:, column]).any()
    assert np.isfinite(np.delete(dweight, column, 1)).all()


def loss_of(call, x, table, labels, upstream):
    rows, words = x.shape[0], table.shape[0]
    nats, probabilities = call("CrossEntropyMedium", [x, table, labels], [(rows,), (rows, words)])
    given = [x, table, labels, probabilities, upstream]
    return nats, probabilities, *call("CrossEntropyGradientMedium", given, [x.shape, table.shape])


@pytest.mark.parametrize("rows, hidden, words", [(1, 5, 3), (32, 24, 50), (65, 41, 601)])
@pytest.mark.parametrize("sure", [0.0, 40.0])
def test_the_loss_and_its_gradients(native, rows, hidden, words, sure):
    """Probabilities are rounded for the gradients' products, but what is p - 1 for the label is not."""
    call = kernel_calls.Caller(native)
    labels = call.array(call.random.integers(0, words, rows).astype(np.int32))
    table = call.normal(words, hidden)
    towards = table[labels] / (table[labels] ** 2).sum(1, keepdims=True)
    x, upstream = call.array(call.normal(rows, hidden) * 0.1 + sure * towards), call.normal(rows)
    nats, p, dx, dtable = loss_of(call, x, table, labels, upstream)
    scores = rounded(x) @ rounded(table).T
    error = 2 * bound(rounded(x), rounded(table).T).max() + 1e-6
    exact = np.exp(scores - scores.max(1, keepdims=True))
    exact /= exact.sum(1, keepdims=True)
    np.testing.assert_array_less(np.abs(p - exact), error)
    place = np.arange(rows), labels
    np.testing.assert_allclose(nats, -np.log(p[place].astype(np.float64) + 1e-24), rtol=1e-6, atol=1e-7)
    gradient = rounded(p)
    gradient[place] = p[place].astype(np.float64) - 1.0
    wide, scaled = rounded(table), rounded(x * upstream[:, None])
    for found, a, b in (
        (dx, gradient * upstream[:, None], wide),
        (dtable, np.ascontiguousarray(gradient.T), scaled),
    ):
        whole = np.abs(a)
        if found is dx:  # the label's product is added with p and taken away with 1 + p - p
            whole[place] = 3 * np.abs(upstream)
        else:
            whole[labels, np.arange(rows)] = 3
        slack = (a.shape[1] + 8) * UNIT * (whole @ np.abs(b)) + 1e-30
        np.testing.assert_array_less(np.abs(found - a @ b), 2 * slack)


def test_a_label_that_is_no_word_gives_nan_and_leaves_the_rest(native):
    call = kernel_calls.Caller(native)
    labels = call.array(np.arange(32, dtype=np.int32))
    labels[3], labels[4] = -1, 2**31 - 1
    nats, _, dx, dtable = loss_of(call, call.normal(32, 24), call.normal(50, 24), labels, call.normal(32))
    for each in (nats, dx):
        assert np.isnan(each[3:5]).all() and np.isfinite(np.delete(each, [3, 4], 0)).all()
    assert dtable.shape == (50, 24)


@pytest.mark.parametrize("name", ["affine", "cross_entropy"])
def test_the_cells_of_a_network_call_them(native, name):
    """Gradients of medium precision are near those of float32, and not equal."""
    random = np.random.default_rng(3)
    x, weight, bias = (
        Tensor(random.standard_normal(shape).astype(np.float32)) for shape in ((40, 64), (50, 64), (50,))
    )
    third = bias if name == "affine" else Tensor(np.arange(40, dtype=np.int32))
    made = [
        getattr(operators_for(MODEL, "CPU", precision=precision), name)(*([50] if name != "affine" else []))
        for precision in ("highest", "medium")
    ]
    for function in (lambda cell: cell, lambda cell: ops.grad(WeightedSum(cell), (0, 1))):
        results = [function(cell)(x, weight, third) for cell in made]
        pairs = zip(*results, strict=True) if isinstance(results[0], tuple) else [results]
        for highest, medium in pairs:
            error = np.abs(highest.asnumpy() - medium.asnumpy()).max() / np.abs(highest.asnumpy()).max()
            assert 1e-5 < error < 2e-2


def test_which_operators_have_medium_precision(native):
    medium, highest = operators_for(MODEL, "CPU", precision="medium"), operators_for(MODEL, "CPU")
    x, weight = Tensor(np.full((1, 1), 1 + 2.0**-8, np.float32)), Tensor(np.ones((1, 1), np.float32))
    assert medium.linear()(x, weight).asnumpy() == 1.0 and highest.linear()(x, weight).asnumpy() != 1.0
    changed = {name for name in vars(medium) if getattr(medium, name) != getattr(highest, name)}
    assert changed == {"affine", "linear", "cross_entropy", "fused_block"}
    assert medium.compute_dtype == ms.float32


@pytest.mark.parametrize("device", ["Ascend", "plain"])
def test_other_devices_refuse_it(cpu, device):
    with pytest.raises(
        ValueError, match="'medium' is for CPUs only; leave it out, because on Ascend model.com"
    ):
        operators_for(MODEL, device, chip="910B", precision="medium")


def why_refused(monkeypatch):
    """The refusal on a machine where the library has not been looked for yet."""
    monkeypatch.setattr(library_module, "library", library_module.library.__wrapped__)
    monkeypatch.setattr(operators_module, "library", library_module.library)
    with pytest.raises(ValueError) as refusal:
        operators_for(MODEL, "CPU", precision="medium")
    message = str(refusal.value)
    assert message.startswith("run.float32_matmul_precision: 'medium' multiplies in bfloat16, but ")
    return message


def test_kernels_that_are_turned_off_are_a_refusal(cpu, monkeypatch):
    monkeypatch.setenv("PANGU_KERNELS", "off")
    assert "turned off by PANGU_KERNELS=off; leave one of the two out" in why_refused(monkeypatch)


@pytest.mark.filterwarnings("ignore:no kernels of our own")
def test_a_missing_compiler_is_a_refusal_that_names_it(cpu, monkeypatch):
    monkeypatch.delenv("PANGU_KERNELS", raising=False)
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    message = why_refused(monkeypatch)
    assert "its kernels are missing: the compiler /nonexistent/c++ is not installed" in message
    assert message.endswith("; mend that, or leave the key out")


def test_a_processor_without_the_instruction_is_a_refusal(monkeypatch, kernels_of):
    narrow = kernels_of(8)  # for processors with AVX2
    monkeypatch.setattr(library_module, "_load", lambda: narrow)
    monkeypatch.delenv("PANGU_KERNELS", raising=False)
    call, one = kernel_calls.Caller(str(narrow)), np.ones((1, 1), np.float32)
    with pytest.raises(AssertionError):  # an error code, for whoever calls the kernel all the same
        call("LinearMedium", [one, one], [(1, 1)])
    message = why_refused(monkeypatch)
    assert "this processor has no AVX512-BF16" in message and "leave the key out, or train on" in message
