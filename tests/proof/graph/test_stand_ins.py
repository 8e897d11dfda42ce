"""Ascend's operators and their gradients, as a rewritten graph computes them on CPU."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from pangu_alpha.model.operators import ascend, plain
from pangu_alpha.model.operators.dropout import AttentionDropout


class WithGradient(nn.Cell):
    """Outputs of a cell, and gradients by its first inputs; the last input is the outputs' gradient."""

    def __init__(self, cell, differentiated):
        super().__init__()
        self.cell = cell
        self.by = differentiated
        self.gradient = ops.GradOperation(get_all=True, sens_param=True)

    def construct(self, *inputs):
        return self.cell(*inputs[:-1]), *self.gradient(self.cell)(*inputs)[: self.by]


class Attention(nn.Cell):
    """An attention core with its mask."""

    def __init__(self, module, heads, size, **settings):
        super().__init__()
        flash = module is ascend
        self.mask = (ascend.BlockedMask if flash else plain.ScoreMask)(heads)
        self.core = (ascend.FlashAttention if flash else plain.AttentionCore)(
            heads, size, AttentionDropout(0.0, 0, heads)
        )
        for name, value in settings.items():
            setattr(self.core.flash_attention, name, value)

    def construct(self, query, key, value, mask):
        return self.core(query, key, value, self.mask(mask))


class Dropped(nn.Cell):
    """The device's dropout, with a seed for every call."""

    def __init__(self, keep=0.75):
        super().__init__()
        self.dropout = ops.Dropout(keep, 3, 1)

    def construct(self, x):
        return self.dropout(x)[0]


def numbers(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def slope_of_gelu(x):
    u = plain.GELU_LINEAR * x + plain.GELU_CUBIC * x**3
    inner = plain.GELU_LINEAR + 3 * plain.GELU_CUBIC * x**2
    return 0.5 * (1 + np.tanh(u)) + 0.5 * x * (1 - np.tanh(u) ** 2) * inner


def test_gelu_is_the_tanh_form_and_so_is_its_gradient(rewritten):
    x, upstream = np.linspace(-6, 6, 1001).astype(np.float32), numbers(1001)
    value, gradient = rewritten(WithGradient(ascend.Gelu(), 1), Tensor(x), Tensor(upstream))
    wide = x.astype(np.float64)
    expected = 0.5 * wide * (1 + np.tanh(plain.GELU_LINEAR * wide + plain.GELU_CUBIC * wide**3))
    np.testing.assert_allclose(value, expected, atol=1e-6)
    np.testing.assert_allclose(gradient, upstream * slope_of_gelu(wide), atol=3e-6)


def test_gelu_in_float16_is_rounded_once(rewritten):
    x = np.linspace(-6, 6, 301).astype(np.float16)
    (value,) = rewritten(ascend.Gelu(), Tensor(x))
    wide = x.astype(np.float64)
    expected = 0.5 * wide * (1 + np.tanh(plain.GELU_LINEAR * wide + plain.GELU_CUBIC * wide**3))
    assert value.dtype == np.float16
    np.testing.assert_allclose(value, expected, rtol=6e-4, atol=1e-7)


def test_flash_attention_and_its_gradients_are_those_of_the_plain_core(rewritten):
    query, key, value, upstream = (numbers(2, 3, 6, 8, dtype=np.float16, seed=i) for i in range(4))
    mask = Tensor(np.tril(np.ones((2, 6, 6), np.float32)))
    half = [Tensor(each) for each in (query, key, value)]
    found = rewritten(WithGradient(Attention(ascend, 3, 8), 3), *half, mask, Tensor(upstream))
    wide = [Tensor(each.astype(np.float32)) for each in (query, key, value)]
    expected = WithGradient(Attention(plain, 3, 8), 3)(*wide, mask, Tensor(upstream.astype(np.float32)))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.float16
        np.testing.assert_allclose(ours, theirs.asnumpy(), rtol=1e-3, atol=1e-3)


def test_flash_attention_with_settings_that_training_does_not_use_is_refused(rewritten):
    half = [Tensor(numbers(1, 2, 4, 8, dtype=np.float16))] * 3
    mask = Tensor(np.tril(np.ones((1, 4, 4), np.float32)))
    with pytest.raises(ValueError, match=r"replay computes FlashAttentionScore of heads.* not \(2, 1.0, \[3"):
        rewritten(Attention(ascend, 2, 8, pre_tokens=3), *half, mask)


def test_dropout_repeats_its_mask_in_the_backward_pass_and_each_rank_has_its_own(rewritten):
    x, ones = Tensor(np.full((64, 64), 3, np.float32)), Tensor(np.ones((64, 64), np.float32))
    masks = []
    for rank in (0, 0, 1):
        value, gradient = rewritten(WithGradient(Dropped(), 1), x, ones, rank=rank)
        assert set(np.unique(value)) == {0, 4} and abs((value > 0).mean() - 0.75) < 0.03
        np.testing.assert_allclose(gradient, value / 3, rtol=1e-6)
        masks.append(value > 0)
    assert np.array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).mean() > 0.3


def test_dropout_in_float16_is_rounded_once(rewritten):
    x = numbers(64, 64, dtype=np.float16)
    (value,) = rewritten(Dropped(0.9), Tensor(x))
    kept = value != 0
    assert value.dtype == np.float16 and abs(kept.mean() - 0.9) < 0.03
    assert np.array_equal(value[kept], (x[kept].astype(np.float32) / np.float32(0.9)).astype(np.float16))


def test_an_operator_without_kernel_and_stand_in_is_refused_by_name(rewritten):
    with pytest.raises(ValueError, match="replay knows no kernel of CPU for CumSum"):
        rewritten(Summed(), Tensor(numbers(4)))


class Summed(nn.Cell):
    def construct(self, x):
        return ops.cumsum(x, 0)


def test_a_rewritten_graph_without_collectives_gives_what_stands_for_its_result(rewritten):
    (value,) = rewritten(ascend.Gelu(), Tensor(np.zeros(3), ms.float32))
    assert value.tolist() == [0, 0, 0]
