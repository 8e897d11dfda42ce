"""Dropout masks are a pure function of seed, salt and place, and look random."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from pangu_alpha.model.operators import ascend
from pangu_alpha.model.operators.plain import Dropout

SHAPE = (512, 384)


@pytest.fixture(scope="module")
def kept(cpu):
    """(rate, salt, seed) -> which elements stay, bool [512, 384]."""
    cells = {}

    def mask(rate, salt, seed):
        cell = cells.setdefault((rate, salt), Dropout(rate, salt))
        out = cell(Tensor(np.ones(SHAPE, np.float32)), Tensor(seed, ms.int32)).asnumpy()
        assert set(np.unique(out)) <= {np.float32(0.0), np.float32(1.0 / (1.0 - rate))}
        return out > 0

    return mask


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate(kept, rate):
    mask = kept(rate, 1, 12345)
    deviation = np.sqrt(rate * (1 - rate))
    assert abs(1 - rate - mask.mean()) < 5 * deviation / np.sqrt(mask.size)
    for axis, length in ((0, SHAPE[0]), (1, SHAPE[1])):  # no row and no column stands out
        assert np.abs(mask.mean(axis) - (1 - rate)).max() < 6 * deviation / np.sqrt(length)


def test_it_repeats_and_depends_on_seed_and_salt(kept):
    base = kept(0.5, 1, 7)
    assert np.array_equal(base, kept(0.5, 1, 7))
    expected, slack = 0.5, 5 * 0.5 / np.sqrt(base.size)
    for other in (kept(0.5, 1, 8), kept(0.5, 2, 7), kept(0.5, 1, -7), kept(0.5, 1, 7 + 2**16)):
        assert abs((base == other).mean() - expected) < slack


def test_neighbours_are_independent(kept):
    mask = kept(0.5, 3, 99) * 2.0 - 1.0
    slack = 5 / np.sqrt(mask.size)
    for shift, axis in ((1, 0), (1, 1), (2, 0), (2, 1), (16, 0), (16, 1), (64, 1)):
        assert abs((mask * np.roll(mask, shift, axis)).mean()) < slack
    corners = mask * np.roll(mask, 1, 0) * np.roll(mask, 1, 1) * np.roll(mask, (1, 1), (0, 1))
    assert abs(corners.mean()) < slack  # a mask that is row xor column alone would fail here


@pytest.mark.parametrize("kind", [Dropout, ascend.Dropout])
def test_off_without_seed_or_rate(cpu, kind):
    x = Tensor(np.ones(SHAPE, np.float32))
    assert kind(0.5, 1)(x) is x or np.array_equal(kind(0.5, 1)(x).asnumpy(), x.asnumpy())
    assert np.array_equal(kind(0.0, 1)(x, Tensor(1, ms.int32)).asnumpy(), x.asnumpy())


@pytest.mark.parametrize("kind", [Dropout, ascend.Dropout])
@pytest.mark.parametrize("training", [False, True])
def test_the_seed_alone_switches_it_on(cpu, kind, training):
    x, cell = Tensor(np.ones(SHAPE, np.float32)), kind(0.5, 1).set_train(training)
    assert np.array_equal(cell(x).asnumpy(), x.asnumpy())
    assert (cell(x, Tensor(1, ms.int32)).asnumpy() == 0.0).mean() == pytest.approx(0.5, abs=0.01)
