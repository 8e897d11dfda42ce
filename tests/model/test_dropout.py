"""Dropout masks are a pure function of key, salt, head and column, and look random."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from pangu_alpha.data.hashing import cell_number, column_numbers, head_numbers
from pangu_alpha.model.operators import ascend, dropout
from pangu_alpha.model.operators import cpu as fast
from pangu_alpha.training.schedule import dropout_rows

T, H = 1024, 512  # 2 rows of 512 positions
B, N, S = 2, 4, 64


def keys(seed=1, step=0, rows=(0, 1), length=T // 2):
    return Tensor(dropout_rows(seed, step, rows, length))


@pytest.fixture(scope="module")
def kept(cpu):
    """(rate, salt, keys) -> which elements of [T, H] stay, bool."""
    cells = {}

    def mask(rate, salt, rows):
        cell = cells.setdefault((rate, salt), dropout.Dropout(rate, salt))
        out = cell(Tensor(np.ones((T, H), np.float32)), rows).asnumpy()
        assert set(np.unique(out)) <= {np.float32(0.0), np.float32(1.0 / (1.0 - rate))}
        return out > 0

    return mask


@pytest.fixture(scope="module")
def kept_weights(cpu):
    """(rate, salt, keys) -> which attention weights [B, N, S, S] stay, bool."""

    def mask(rate, salt, rows):
        cell = dropout.AttentionDropout(rate, salt, N)
        out = cell(Tensor(np.ones((B, N, S, S), np.float32)), rows).asnumpy()
        assert set(np.unique(out)) <= {0.0, 1.0}  # rescaled after the product with the values
        assert cell.factor == 1.0 / (1.0 - rate)
        return out > 0

    return mask


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate(kept, rate):
    mask = kept(rate, 1, keys(12345))
    deviation = np.sqrt(rate * (1 - rate))
    assert abs(1 - rate - mask.mean()) < 5 * deviation / np.sqrt(mask.size)
    for axis, length in ((0, T), (1, H)):  # no row and no column stands out
        assert np.abs(mask.mean(axis) - (1 - rate)).max() < 6 * deviation / np.sqrt(length)


def test_it_repeats_and_depends_on_seed_step_row_and_salt(kept):
    base = kept(0.5, 1, keys())
    assert np.array_equal(base, kept(0.5, 1, keys()))
    slack = 5 * 0.5 / np.sqrt(base.size)
    others = [kept(0.5, 1, keys(2)), kept(0.5, 1, keys(step=1)), kept(0.5, 2, keys())]
    others += [kept(0.5, 1, keys(rows=(2, 3))), kept(0.5, 1, keys(2**31 - 1)), kept(0.5, 1, keys(step=2**20))]
    for other in others:
        assert abs((base == other).mean() - 0.5) < slack
        for shift in (1, 2):  # not the same, moved
            assert abs((base == np.roll(other, shift, 1)).mean() - 0.5) < slack


def test_a_row_s_mask_depends_on_its_key_alone(kept):
    both, swapped = kept(0.5, 1, keys()), kept(0.5, 1, keys(rows=(1, 0)))
    assert np.array_equal(both[: T // 2], swapped[T // 2 :])
    assert np.array_equal(both[T // 2 :], swapped[: T // 2])


def test_neighbours_are_independent(kept):
    mask = kept(0.5, 3, keys(99)) * 2.0 - 1.0
    slack = 5 / np.sqrt(mask.size)
    for shift, axis in ((1, 0), (1, 1), (2, 0), (2, 1), (16, 0), (16, 1), (64, 1)):
        assert abs((mask * np.roll(mask, shift, axis)).mean()) < slack
    for right in (1, 2, 64):
        row, column = np.roll(mask, 1, 0), np.roll(mask, right, 1)
        corners = mask * row * column * np.roll(row, right, 1)
        assert abs(corners.mean()) < slack  # a mask that is row xor column alone would fail here
        assert abs((mask * column * np.roll(mask, 2 * right, 1)).mean()) < slack


def test_pairs_of_rows_and_columns_are_independent(kept):
    """The products of all pairs scatter as chance has it, and none far more."""
    mask = (kept(0.1, 3, keys(7)) - np.float32(0.9)) / np.float32(0.3)
    for lines, length in ((mask, H), (mask.T, T)):
        products = lines @ lines.T / np.sqrt(length)
        pairs = products[np.triu_indices(len(products), 1)]
        assert abs(pairs.std() - 1.0) < 0.01
        assert np.abs(pairs).max() < 9.0  # six deviations in 500,000 normal numbers; these are skewed


def test_heads_differ_and_attention_weights_drop_at_the_rate(kept_weights):
    mask = kept_weights(0.5, 1, keys(length=S))
    assert abs(mask.mean() - 0.5) < 5 * 0.5 / np.sqrt(mask.size)
    slack = 5 * 0.5 / np.sqrt(mask.size / N)
    for shift in range(1, N):
        assert abs((mask == np.roll(mask, shift, 1)).mean() - 0.5) < slack
    assert abs((mask[0] == mask[1]).mean() - 0.5) < 5 * 0.5 / np.sqrt(mask.size / B)
    other = kept_weights(0.5, 2, keys(length=S))
    assert abs((mask == other).mean() - 0.5) < slack


def test_a_device_whose_products_are_not_cut_to_32_bits_is_refused(cpu, monkeypatch):
    dropout.check_masks(0.1)

    def saturating():
        return lambda x, y: Tensor(
            np.clip(x.asnumpy().astype(np.int64) * y.asnumpy(), -(2**31), 2**31 - 1).astype(np.int32)
        )

    monkeypatch.setattr(dropout.ops, "Mul", saturating)
    with pytest.raises(ValueError, match="model.dropout: of 4096 products of int32 this device gave 4096"):
        dropout.check_masks(0.1)


def test_a_device_whose_comparisons_overflow_is_refused(cpu, monkeypatch):
    def by_a_difference():
        return lambda x, y: Tensor((x.asnumpy() - y.asnumpy()) >= 0)

    monkeypatch.setattr(dropout.ops, "GreaterEqual", by_a_difference)
    dropout.check_masks(0.5)  # from 0 no difference overflows
    with pytest.raises(ValueError, match=r"of 4096 comparisons of int32, .* gave 1[4-9]\d\d wrong"):
        dropout.check_masks(0.1)


@pytest.mark.parametrize("overflows", [0.0, 8.0])
def test_a_chip_that_takes_the_products_for_overflow_is_refused(cpu, overflows):
    calls = []

    class Status:
        @staticmethod
        def clear():
            calls.append("clear")

        def __call__(self, computed):
            calls.append(computed.shape)
            return Tensor(overflows, ms.float32)

    if overflows:
        with pytest.raises(ValueError, match="model.dropout: the products .* set this chip's float status"):
            dropout.check_masks(0.1, Status)
    else:
        dropout.check_masks(0.1, Status)
    assert calls == ["clear", (64, 64)]


@pytest.mark.parametrize("columns", [24, B * S])  # as many columns as rows, too
def test_masks_are_those_of_the_formula(cpu, columns):
    rows, least = keys(3, 1, length=S), int(0.3 * 2**32) - 2**31
    words = rows.asnumpy().astype(np.int64)
    number = [cell_number(5) * n for n in column_numbers(columns).astype(int).tolist()]
    kept = np.array([[wrapped(key * n) >= least for n in number] for key in words.ravel().tolist()])
    out = dropout.Dropout(0.3, 5)(Tensor(np.ones((B * S, columns), np.float32)), rows).asnumpy()
    assert np.array_equal(out > 0, kept)


@pytest.mark.parametrize("heads", [N, S])  # as many heads as columns, too
def test_masks_of_attention_weights_are_those_of_the_formula(cpu, heads):
    rows, least = keys(3, 1, length=S), int(0.3 * 2**32) - 2**31
    out = dropout.AttentionDropout(0.3, 5, heads)(Tensor(np.ones((B, heads, S, S), np.float32)), rows)
    weights = out.asnumpy()
    random = np.random.default_rng(0)
    for batch, head, query, column in random.integers(0, (B, heads, S, S), (500, 4)).tolist():
        key = int(rows.asnumpy()[batch, query])
        factors = cell_number(5) * int(head_numbers(heads)[head]) * int(column_numbers(S)[column])
        assert (weights[batch, head, query, column] > 0) == (wrapped(key * factors) >= least)


def wrapped(number):
    """The signed number of the lower 32 bits."""
    return (number + 2**31) % 2**32 - 2**31


@pytest.mark.parametrize("dtype", [ms.float32, ms.float16])
def test_variants_for_cpu_draw_the_same_masks(cpu, dtype):
    random = np.random.default_rng(0)
    x = Tensor(random.normal(size=(B * S, 24)), dtype)
    rows = keys(length=S)
    expected = dropout.Dropout(0.3, 5)(x, rows).asnumpy()
    assert np.array_equal(fast.Dropout(0.3, 5)(x, rows).asnumpy(), expected)
    weights = Tensor(random.random((B, N, S, S)), dtype)
    expected = dropout.AttentionDropout(0.3, 5, N)(weights, rows).asnumpy()
    assert np.array_equal(fast.AttentionDropout(0.3, 5, N)(weights, rows).asnumpy(), expected)


@pytest.mark.parametrize("kind", [dropout.Dropout, fast.Dropout])
@pytest.mark.parametrize("training", [False, True])
def test_the_rows_alone_switch_it_on(cpu, kind, training):
    x, cell = Tensor(np.ones((T, H), np.float32)), kind(0.5, 1).set_train(training)
    assert np.array_equal(cell(x).asnumpy(), x.asnumpy())
    assert (cell(x, keys()).asnumpy() == 0.0).mean() == pytest.approx(0.5, abs=0.01)
    assert np.array_equal(kind(0.0, 1)(x, keys()).asnumpy(), x.asnumpy())


@pytest.mark.parametrize("kind", [dropout.AttentionDropout, fast.AttentionDropout, ascend.AttentionDropout])
@pytest.mark.parametrize("training", [False, True])
def test_the_rows_alone_switch_it_on_for_attention_weights(cpu, kind, training):
    weights, rows = Tensor(np.ones((B, N, S, S), np.float32)), keys(length=S)
    cell = kind(0.5, 1, N).set_train(training)
    assert np.array_equal(cell(weights).asnumpy(), weights.asnumpy())
    assert (cell(weights, rows).asnumpy() == 0.0).mean() == pytest.approx(0.5, abs=0.02)
    assert np.array_equal(kind(0.0, 1, N)(weights, rows).asnumpy(), weights.asnumpy())
