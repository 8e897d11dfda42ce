"""The C++ kernels equal the plain definitions, whatever the number of threads, and touch no other memory."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops
from weighted_sum import WeightedSum

from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.model.mask import DocumentMask
from pangu_alpha.model.operators import dropout as positional
from pangu_alpha.model.operators import plain
from pangu_alpha.model.operators.native import inputs
from pangu_alpha.model.operators.native import library as library_module
from pangu_alpha.model.operators.native import training as kernels
from pangu_alpha.model.operators.native.library import NoKernelsError, build, library, start
from pangu_alpha.model.operators.native.update import ClippedAdamW
from pangu_alpha.processes.cores import usable_cores
from pangu_alpha.training.optimizer import AdamW

SHAPES_OF_PRODUCTS = [
    (9, 1, 1),
    (9, 7, 3),
    (17, 50, 513),
    (70, 97, 64),
    (65, 200, 1100),
    (300, 33, 40),
    (129, 1030, 70),
]
CALLS = Path(__file__).parent / "kernel_calls.py"
RATE, SALT = 0.25, 5

_SPEC = importlib.util.spec_from_file_location("kernel_calls", CALLS)
kernel_calls = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(kernel_calls)


def normal(*shape, seed=0, scale=1.0):
    return Tensor((np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32))


def keys(*shape):
    """The dropout's key of each row, odd as those of training."""
    words = np.random.default_rng(8).integers(-(2**31), 2**31 - 1, shape)
    return Tensor(words.astype(np.int32) | np.int32(1))


@pytest.fixture(scope="module")
def native(cpu):
    """The compiled library."""
    if library() is None:
        pytest.skip("no kernels on this machine")
    return library()


def assert_equal(found, expected, tolerance):
    found, expected = found.asnumpy(), expected.asnumpy()
    assert found.shape == expected.shape
    np.testing.assert_array_less(np.abs(found - expected), tolerance * np.abs(expected).max() + 1e-30)


def assert_same_function(found, expected, inputs, differentiated):
    assert_equal(found(*inputs), expected(*inputs), 1e-5)
    places = tuple(range(differentiated))
    for one, other in zip(
        ops.grad(WeightedSum(found), places)(*inputs),
        ops.grad(WeightedSum(expected), places)(*inputs),
        strict=True,
    ):
        assert_equal(one, other, 1e-4)


@pytest.mark.parametrize(
    "rows, inputs, outputs", [*((t, 3, 5) for t in range(1, 10)), (37, 100, 3), (65, 64, 129)]
)
def test_affine(native, rows, inputs, outputs):
    given = [normal(rows, inputs), normal(outputs, inputs, seed=1), normal(outputs, seed=2)]
    assert_same_function(kernels.Affine(), plain.Affine(), given, 3)


@pytest.mark.parametrize("rows, columns", [(1, 3), (9, 3), (37, 100), (33, 24)])
def test_normalize(native, rows, columns):
    given = [normal(rows, columns, scale=3.0), normal(columns, seed=1), normal(columns, seed=2)]
    assert_same_function(kernels.Normalize(columns, 1e-5), plain.Normalize(columns, 1e-5), given, 3)


@pytest.mark.parametrize("shape", [(1, 3), (37, 100), (170, 100)])
def test_gelu_and_dropout(native, shape):
    given = [normal(*shape, scale=3.0)]
    found, expected = kernels.Gelu(), plain.Gelu()
    assert_equal(found(*given), expected(*given), 1e-5)
    assert_equal(ops.grad(WeightedSum(found))(*given), ops.grad(WeightedSum(expected))(*given), 1e-4)
    given.append(keys(1, shape[0]))
    found, expected = kernels.Dropout(RATE, SALT), positional.Dropout(RATE, SALT)
    np.testing.assert_array_equal(found(*given).asnumpy(), expected(*given).asnumpy())
    np.testing.assert_array_equal(found(given[0]).asnumpy(), given[0].asnumpy())
    one, other = (ops.grad(WeightedSum(each), 0)(*given).asnumpy() for each in (found, expected))
    np.testing.assert_array_equal(one, other)


def test_gelu_is_the_tanh_form(native):
    x = np.linspace(-8, 8, 4001)
    expected = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    assert np.abs(kernels.Gelu()(Tensor(x.astype(np.float32))).asnumpy() - expected).max() <= 2e-6


class Attention(nn.Cell):
    """Attention of [B*S, H], from the mask to the joined heads."""

    def __init__(self, of, heads, size, dropout):
        super().__init__()
        self.mask, self.core = of.mask(heads), of.core(heads, size, dropout)
        self.split, self.join = of.split(heads), of.join(heads)

    def construct(self, query, key, value, may_attend, rows=None):
        batch = may_attend.shape[0]
        parts = self.split(query, batch), self.split(key, batch), self.split(value, batch)
        return self.join(self.core(*parts, self.mask(may_attend), rows))


class Plain:
    mask, core, split, join = plain.ScoreMask, plain.AttentionCore, plain.SplitHeads, plain.JoinHeads
    dropout = positional.AttentionDropout


class Native:
    mask, core = kernels.AllowedKeys, kernels.AttentionCore
    split, join, dropout = kernels.KeepColumns, kernels.KeepColumns, kernels.AttentionDropout


def packed(batch, length):
    """Documents of 50 tokens; a query of the second row and one of the third block may attend to nothing."""
    places = np.arange(length)
    mask = np.tril(np.ones((batch, length, length))) * (places[:, None] // 50 == places // 50)
    mask[1:, length // 2] = mask[:, 140:141] = 0
    return Tensor(mask.astype(np.float32))


@pytest.mark.parametrize("rate", [0.0, RATE])
@pytest.mark.parametrize("batch, heads, length, size", [(1, 1, 1, 4), (2, 3, 16, 8), (2, 2, 150, 12)])
def test_attention(native, rate, batch, heads, length, size):
    given = [*(normal(batch * length, heads * size, seed=i) for i in range(3)), packed(batch, length)]
    if rate:
        given.append(keys(batch, length))
    found, expected = (Attention(of, heads, size, of.dropout(rate, SALT, heads)) for of in (Native, Plain))
    if length > 1:
        return assert_same_function(found, expected, given, 3)
    assert_equal(found(*given), expected(*given), 1e-5)  # a query with one key: only the value matters
    dquery, dkey, dvalue = ops.grad(WeightedSum(found), (0, 1, 2))(*given)
    assert not dquery.asnumpy().any() and not dkey.asnumpy().any()
    assert_equal(dvalue, ops.grad(WeightedSum(expected), (0, 1, 2))(*given)[2], 1e-4)


@pytest.mark.parametrize("rate", [0.0, RATE])
def test_a_query_with_one_key_has_no_gradient(native, rate):
    given = [*(normal(32, 24, seed=i) for i in range(3)), Tensor(np.tril(np.ones((2, 16, 16), np.float32)))]
    given += [keys(2, 16)] if rate else []
    cell = Attention(Native, 3, 8, Native.dropout(rate, SALT, 3))
    gradient = ops.grad(WeightedSum(cell), 0)(*given).asnumpy().reshape(2, 16, 24)
    assert (gradient[:, 0] == 0.0).all() and (gradient[:, 1] != 0.0).any()


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_drops_the_same_weights(native, heads):
    """With values that are unit vectors the output is the weights."""
    length = 9
    query, key = normal(length, heads * length), normal(length, heads * length, seed=1)
    given = [query, key, Tensor(np.tile(np.eye(length, dtype=np.float32), (1, heads)))]
    given += [Tensor(np.ones((1, length, length), np.float32)), keys(1, length)]
    found, expected = (
        Attention(of, heads, length, of.dropout(RATE, SALT, heads))(*given).asnumpy()
        for of in (Native, Plain)
    )
    assert ((found == 0) == (expected == 0)).all() and 0 < (found == 0).mean() < 0.5


@pytest.mark.parametrize("rows, hidden, words", [(1, 5, 3), (32, 24, 50), (65, 40, 600)])
def test_cross_entropy(native, rows, hidden, words):
    labels = Tensor(np.random.default_rng(1).integers(0, words, rows).astype(np.int32))
    given = [normal(rows, hidden), normal(words, hidden, seed=1), labels]
    assert_same_function(kernels.TiedCrossEntropy(words), plain.TiedCrossEntropy(words), given, 2)


@pytest.mark.parametrize("label", [-1, 50, 2**31 - 1])
def test_a_label_that_is_no_word_gives_nan_and_leaves_the_rest(native, label):
    x, table, labels = normal(32, 24), normal(50, 24, seed=1), np.arange(32, dtype=np.int32)
    labels[3] = label
    cell = kernels.TiedCrossEntropy(50)
    nats = cell(x, table, Tensor(labels)).asnumpy()
    assert np.isnan(nats[3]) and np.isfinite(np.delete(nats, 3)).all()
    dx, dtable = ops.grad(WeightedSum(cell), (0, 1))(x, table, Tensor(labels))
    assert np.isnan(dx.asnumpy()[3]).all() and np.isfinite(np.delete(dx.asnumpy(), 3, 0)).all()
    assert dtable.shape == (50, 24)


class LookUp(nn.Cell):
    """A table that is looked up in by MindSpore, and used again."""

    def construct(self, table, ids):
        return ops.gather(table, ids, 0).reshape((ids.size, -1)), table


class Tied(nn.Cell):
    """Both uses of a table."""

    def __init__(self, look_up):
        super().__init__()
        self.look_up = look_up

    def construct(self, table, ids):
        rows, table = self.look_up(table, ids)
        return ops.concat((rows * 2.0, table * 3.0))


class Once(Tied):
    """The rows alone."""

    def construct(self, table, ids):
        return self.look_up(table, ids)[0]


@pytest.mark.parametrize("shape, count", [((2, 37), 50), ((1, 1), 3), ((3, 200), 40)])
def test_rows_of_a_table_and_its_gradients(native, shape, count):
    """Bit for bit those of Gather, whose gradient is added to that of the other use."""
    ids = Tensor(np.random.default_rng(0).integers(-count // 2, count // 2, shape).astype(np.int32))
    table, known = normal(count, 24), ops.maximum(ids, 0)
    for ours, other in ((inputs.LookUp(), Once(LookUp())), (Tied(inputs.ForkedLookUp()), Tied(LookUp()))):
        assert np.array_equal(ours(table, ids).asnumpy(), other(table, ids).asnumpy())
        found, expected = (ops.grad(WeightedSum(each), 0)(table, known).asnumpy() for each in (ours, other))
        assert np.array_equal(found, expected) and np.array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.parametrize("index", [5, -6])
def test_an_index_that_is_none_is_an_error(native, index, capfd):
    with pytest.raises(RuntimeError):
        inputs.LookUp()(normal(5, 3), Tensor(np.array([[0, index]], np.int32))).asnumpy()
    assert f"LookUp: index {index} is not one of a table of 5 rows" in capfd.readouterr().err


@pytest.mark.parametrize("batch, length", [(1, 1), (3, 37)])
def test_document_mask(native, batch, length):
    documents = np.cumsum(np.random.default_rng(0).random((batch, length)) < 0.2, 1).astype(np.int32)
    found = inputs.DocumentMask()(Tensor(documents)).asnumpy()
    assert np.array_equal(found, DocumentMask()(Tensor(documents)).asnumpy())


@pytest.mark.parametrize("count", [1, 3, 3700, 65537])
def test_square_sum(native, count):
    x = normal(count)
    exact = float((x.asnumpy().astype(np.float64) ** 2).sum())
    assert kernels.SquareSum()(x).asnumpy() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_passes_through(native, bad):
    """Each kernel's result must show it, because the norm's check sees nothing else."""
    x = normal(37, 100).asnumpy()
    x[5, 7] = bad
    x, weight, bias = Tensor(x), normal(100, 100, seed=1), normal(100, seed=2)
    assert not np.isfinite(kernels.SquareSum()(x).asnumpy())
    for cell, given, places in (
        (kernels.Affine(), [x, weight, bias], (0, 1, 2)),
        (kernels.Normalize(100, 1e-5), [x, bias, bias], (0, 1, 2)),
        (kernels.TiedCrossEntropy(100), [x, weight, Tensor(np.arange(37, dtype=np.int32))], (0, 1)),
        (kernels.Dropout(RATE, SALT), [x, keys(1, 37)], (0,)),
    ):
        name = type(cell).__name__
        out = cell(*given).asnumpy()
        assert not np.isfinite(out[5]).all() and np.isfinite(np.delete(out, 5, 0)).all(), name
        if name != "Dropout":  # it is linear
            gradients = ops.grad(WeightedSum(cell), places)(*given)
            assert any(not np.isfinite(each.asnumpy()).all() for each in gradients), name
    assert not np.isfinite(kernels.Gelu()(x).asnumpy()[5, 7])
    mask = Tensor(np.tril(np.ones((1, 37, 37), np.float32)))
    attention = Attention(Native, 4, 25, Native.dropout(0.0, SALT, 4))
    for place in range(3):
        given = [normal(37, 100, seed=3)] * place + [x] + [normal(37, 100, seed=4)] * (2 - place)
        assert not np.isfinite(attention(*given, mask).asnumpy()).all(), place


class Update(nn.Cell):
    """Updates parameters of several shapes by the kernel."""

    def __init__(self, *shapes):
        super().__init__()
        names = [f"x{i}.weight" for i in range(len(shapes))]
        parameters = tuple(
            Parameter(normal(*shape), name=name) for shape, name in zip(shapes, names, strict=True)
        )
        optimizer = AdamW(parameters, OptimConfig(), {name: name != "x1.weight" for name in names})
        self.update = ClippedAdamW(optimizer, 0.5)
        self.state = (*optimizer.parameters, *optimizer.moments1, *optimizer.moments2)
        for i, each in enumerate(self.state):
            each.set_data(Tensor(np.abs(normal(*each.shape, seed=i).asnumpy())))

    def values(self):
        return [each.asnumpy().copy() for each in self.state]

    def construct(self, weight, scale, largest, recipe, *gradients):
        return self.update(gradients, weight, scale, largest, recipe)


SHAPES = [(1,), (37, 5), (65537,), (2, 3, 4)]


def controls(largest=1e30):
    """Weight, scale, largest norm, and recipe: rate, epsilon, decay."""
    return [
        *(Tensor(each, ms.float32) for each in (3.0, 4.0, largest)),
        Tensor([1e-2, 1e-8, 0.1], ms.float32),
    ]


@pytest.mark.parametrize("size", [1e-6, 1.0])
def test_clipped_adamw(native, size):
    """With a norm below the largest one after clipping, and with one above it."""
    cell = Update(*SHAPES)
    gradients = [normal(*shape, seed=20 + i, scale=size) for i, shape in enumerate(SHAPES)]
    before = [each.astype(np.float64) for each in cell.values()]
    norm, applied = cell(*controls(), *gradients)
    unscale = 1 / (4.0 * (3.0 + 1e-5))
    exact = unscale * np.sqrt(sum((each.asnumpy().astype(np.float64) ** 2).sum() for each in gradients))
    assert norm.asnumpy() == pytest.approx(exact, rel=1e-6)
    assert norm.shape == applied.shape == () and applied.dtype == ms.bool_ and applied.asnumpy()
    assert (exact > 0.5) == (size == 1.0)
    count = len(SHAPES)
    for i, gradient in enumerate(gradients):
        p, m, v = before[i::count]
        g = gradient.asnumpy().astype(np.float64) * unscale / max(exact / 0.5, 1)
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        p = p - 1e-2 * (m / (np.sqrt(v) + 1e-8) + (0.0 if i == 1 else 0.1) * p)
        for found, expected in zip(cell.values()[i::count], (p, m, v), strict=True):
            assert_equal(Tensor(found), Tensor(expected.astype(np.float32)), 1e-5)


@pytest.mark.parametrize("bad", [0.5, np.nan, np.inf])
def test_an_update_that_is_not_applied_changes_no_bit(native, bad):
    cell = Update(*SHAPES)
    before = cell.values()
    gradients = [normal(*shape) for shape in SHAPES]
    gradients[1] = Tensor(np.full((37, 5), bad, np.float32))
    norm, applied = cell(*controls(1e-3 if bad == 0.5 else 3e38), *gradients)
    assert not applied.asnumpy() and np.isfinite(norm.asnumpy()) == (bad == 0.5)
    assert all(np.array_equal(one, other) for one, other in zip(cell.values(), before, strict=True))


def test_squares_below_the_smallest_normal_number_are_0(native):
    """Whichever thread MindSpore or the kernel computes a piece with: their modes differ."""
    cell = Update((3,), (70000,))
    for each in cell.state:
        each.set_data(Tensor(np.zeros(each.shape, np.float32)))
    gradients = [Tensor(np.full(shape, 1e-20, np.float32)) for shape in ((3,), (70000,))]
    for _ in range(3):
        cell(*controls(), *gradients)[0].asnumpy()
        first, second = cell.values()[4:]
        assert not first.any() and not second.any()


def test_what_precedes_an_update_sees_everything_unchanged(native):
    cell, seen = Update(*SHAPES), []
    before, gradients = cell.values(), [normal(*shape) for shape in SHAPES]
    with cell.update.preceded_by(lambda: seen.append(cell.values())):
        cell(*controls(), *gradients)[0].asnumpy()
    (values,) = seen
    assert all(np.array_equal(one, other) for one, other in zip(values, before, strict=True))
    assert not any(np.array_equal(one, other) for one, other in zip(cell.values(), before, strict=True))
    cell(*controls(), *gradients)[0].asnumpy()
    assert len(seen) == 1


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_an_error_before_an_update_prevents_it_and_is_raised(native, kind):
    cell, gradients = Update(*SHAPES), [normal(*shape) for shape in SHAPES]
    before = cell.values()

    def fail():
        raise kind("no space")

    with pytest.raises(kind, match="no space"), cell.update.preceded_by(fail):
        assert not cell(*controls(), *gradients)[1].asnumpy()
    assert all(np.array_equal(one, other) for one, other in zip(cell.values(), before, strict=True))
    assert cell(*controls(), *gradients)[1].asnumpy()


def call_all(path, threads=2, precision="highest", **variables):
    """What kernel_calls.py prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(CALLS), str(path), str(threads), precision],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def needs_bfloat16(precision):
    if precision == "medium" and (problem := library_module.missing_bfloat16()):
        pytest.skip(problem)


@pytest.mark.parametrize("precision, calls", [("highest", 100), ("medium", 70)])
def test_the_number_of_threads_changes_no_bit(native, precision, calls):
    needs_bfloat16(precision)
    first, *others = (call_all(native, threads, precision) for threads in (1, 2, 3, 8))
    assert len(first) > calls and len(set(first)) == len(first)
    for other in others:
        assert other == first


@pytest.mark.slow
def test_vectors_of_8_floats_compute_the_same_products(native, kernels_of):
    """Bit for bit, because both multiply and add in one instruction."""
    whole, half = call_all(native), call_all(kernels_of(8), 3)
    assert [line for line in half if line.startswith("Affine")] == [
        line for line in whole if line.startswith("Affine")
    ]


@pytest.mark.long  # for a library of its own, 20 s of the compiler; shorter than that, vectors of 8 floats
def test_vectors_of_4_floats_compute_all_that_wider_ones_do(native, kernels_of):
    whole, quarter = call_all(native), call_all(kernels_of(4), 2)
    assert [line.split(":")[0] for line in quarter] == [line.split(":")[0] for line in whole]


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [pytest.param(4, marks=pytest.mark.long), 8, 16])
@pytest.mark.parametrize("shape", SHAPES_OF_PRODUCTS)
def test_products_of_any_vectors(kernels_of, lanes, shape):
    rows, columns, inner = shape
    random = np.random.default_rng(rows)
    shapes = (rows, inner), (columns, inner), (columns,)
    x, weight, bias = (random.standard_normal(each).astype(np.float32) for each in shapes)
    call = kernel_calls.Caller(str(kernels_of(lanes)))
    (y,) = call("Affine", [x, weight, bias], [(rows, columns)])
    np.testing.assert_allclose(y, x.astype(np.float64) @ weight.T + bias, rtol=0, atol=2e-6 * inner**0.5 * 4)
    dx, dweight, dbias = call("AffineGradient", [x, weight, y], [x.shape, weight.shape, bias.shape])
    wide = y.astype(np.float64)
    for found, expected in ((dx, wide @ weight), (dweight, wide.T @ x), (dbias, wide.sum(0))):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max() + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_no_kernel_touches_memory_that_is_not_its_own(native, tmp_path, precision):
    needs_bfloat16(precision)
    compiler = os.environ.get("CXX") or "g++"
    checker = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True
    ).stdout.strip()
    if not os.path.isabs(checker):
        pytest.skip("this compiler has no address sanitizer")
    path = build(tmp_path, ("-fsanitize=address", "-g1", "-O1"))  # nothing that is wrong is optimised away
    given = {"LD_PRELOAD": checker, "ASAN_OPTIONS": "detect_leaks=0"}
    assert [line.split(":")[0] for line in call_all(path, precision=precision, **given)] == [
        line.split(":")[0] for line in call_all(native, precision=precision)
    ]


THREADS = (
    "from pangu_alpha.model.operators.native.library import library; import ctypes; import mindspore as ms; \
print(library() and (ms.ops.ones(3) + 1).sum().asnumpy(), ctypes.CDLL(str(library())).pangu_threads())"
)


@pytest.mark.parametrize("wish", [None, "3"])
def test_all_cores_compute_unless_somebody_says_how_many(native, wish):
    """MindSpore sets OMP_NUM_THREADS to half the cores in the process, which is nobody's wish."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"OMP_NUM_THREADS": wish} if wish else {}
    done = subprocess.run([sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["6.0", wish or str(usable_cores())], done.stderr[-2000:]


def why_none(monkeypatch):
    """The one warning of a machine that has no kernels."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert library_module.library.__wrapped__() is None
    (warning,) = caught
    return str(warning.message)


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A home without a library."""
    for name in ("PANGU_KERNELS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_no_compiler_is_one_warning_that_names_it(home, monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent/c++ -m64")
    assert "MindSpore's operators compute: the compiler /nonexistent/c++ is not installed" in why_none(
        monkeypatch
    )


def test_an_error_of_the_compiler_is_named(home, monkeypatch, tmp_path):
    sources = tmp_path / "source"
    sources.mkdir()
    (sources / "wrong.cc").write_text("int number = nonsense;\n")
    monkeypatch.setattr(library_module, "SOURCES", sources)
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert "g++ failed: " in (message := why_none(monkeypatch)) and "error: 'nonsense' was not" in message


def test_a_library_without_kernels_is_named(home, monkeypatch, tmp_path):
    sources = tmp_path / "source"
    sources.mkdir()
    (sources / "empty.cc").write_text("int number = 1;\n")
    monkeypatch.setattr(library_module, "SOURCES", sources)
    assert "undefined symbol: pangu_use_threads" in why_none(monkeypatch)


def test_a_cache_that_cannot_be_written_is_named(home, monkeypatch):
    (home / ".cache").write_text("a file, not a folder")
    message = why_none(monkeypatch)
    assert f"cannot write {home}/.cache/pangu_alpha/kernels/" in message
    assert "name a folder that can be written in the environment variable XDG_CACHE_HOME" in message


def test_the_switch(home, monkeypatch):
    monkeypatch.setenv("PANGU_KERNELS", "off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert library_module.library.__wrapped__() is None
    monkeypatch.setenv("PANGU_KERNELS", "yes")
    with pytest.raises(ValueError, match="PANGU_KERNELS=yes: say on or off"):
        library_module.library.__wrapped__()


@pytest.fixture
def small_sources(monkeypatch, tmp_path):
    """Sources that compile in no time."""
    sources = tmp_path / "source"
    sources.mkdir()
    (sources / "one.cc").write_text('extern "C" void pangu_use_threads(int) {}\n')
    monkeypatch.setattr(library_module, "SOURCES", sources)
    return sources


def test_a_library_is_compiled_once(small_sources, monkeypatch, tmp_path):
    path = build(tmp_path)
    start(path)
    before = path.stat().st_mtime_ns
    monkeypatch.setattr(library_module, "_compile", lambda command: pytest.fail("compiles again"))
    assert build(tmp_path) == path and path.stat().st_mtime_ns == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_other_sources_and_flags_are_other_libraries(small_sources, tmp_path):
    first = build(tmp_path)
    other = build(tmp_path, ("-DANOTHER",))
    with (small_sources / "one.cc").open("a") as file:
        file.write("int more = 1;\n")
    assert len({first, other, build(tmp_path)}) == 3


def test_several_can_build_at_once(small_sources, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        paths = [*pool.map(lambda _: build(tmp_path), range(4))]
    assert len({*paths}) == 1 and [each.name for each in paths[0].parent.iterdir()] == [paths[0].name]
    start(paths[0])


def test_a_compiler_that_fails_leaves_no_library(small_sources, tmp_path):
    (small_sources / "one.cc").write_text("nonsense")
    with pytest.raises(NoKernelsError, match="failed: .*error"):
        build(tmp_path)
    assert not [*tmp_path.rglob("*.so")]
