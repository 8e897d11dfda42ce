"""Every device's variant of an operator equals its plain definition, gradients included."""

from __future__ import annotations

import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from weighted_sum import WeightedSum

from pangu_alpha.config.families import FAMILIES, compute_type, has_flash_attention
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.model import chip as chip_module
from pangu_alpha.model import operators as operators_module
from pangu_alpha.model.operators import ascend, operators_for, plain
from pangu_alpha.model.operators import cpu as cpu_operators
from pangu_alpha.model.operators.dropout import AttentionDropout
from pangu_alpha.model.operators.native.update import ClippedAdamW

B, N, S, D, T, H, V = 2, 3, 16, 8, 32, 24, 50


def normal(*shape, scale=1.0, seed=0):
    return Tensor((np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32))


def labels():
    return Tensor(np.random.default_rng(1).integers(0, V, T).astype(np.int32))


def may_attend():
    return Tensor(np.tril(np.ones((B, S, S), np.float32)))


class Attention(nn.Cell):
    """Mask and core of one device as one function of (query, key, value)."""

    def __init__(self, device):
        super().__init__()
        self.mask = device.ScoreMask(N)
        self.core = device.AttentionCore(N, D, AttentionDropout(0.0, 0, N))

    def construct(self, query, key, value, attention_mask):
        return self.core(query, key, value, self.mask(attention_mask))


CASES = {
    "affine": (lambda device: device.Affine(), [normal(T, H), normal(V, H, seed=1), normal(V, seed=2)], 3),
    "normalize": (
        lambda device: device.Normalize(H, 1e-5),
        [normal(T, H, scale=3.0), normal(H, seed=1), normal(H, seed=2)],
        3,
    ),
    "gelu": (lambda device: device.Gelu(), [normal(T, H, scale=3.0)], 1),
    "attention": (Attention, [normal(B, N, S, D, seed=i) for i in range(3)] + [may_attend()], 3),
    "square_sum": (lambda device: device.SquareSum(), [normal(T, H)], 1),
    "cross_entropy": (
        lambda device: device.TiedCrossEntropy(V),
        [normal(T, H), normal(V, H, seed=1), labels()],
        2,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_cpu_variant_equals_plain(cpu, name):

    assert_equal_to_plain(name, cpu_operators)


def test_ascend_gelu_equals_plain(cpu):
    assert_equal_to_plain("gelu", ascend)


def test_ascend_mask_blocks_what_the_plain_mask_lowers(cpu):
    blocked = ascend.BlockedMask(N)(may_attend()).asnumpy()
    lowered = plain.ScoreMask(N)(may_attend()).asnumpy()
    assert blocked.dtype == np.uint8 and (blocked * plain.MASKED_SCORE == lowered).all()


def assert_equal_to_plain(name, device):
    make, inputs, differentiated = CASES[name]
    expected, found = make(plain)(*inputs), make(device)(*inputs)
    scale = np.abs(expected.asnumpy()).max()
    assert np.abs(found.asnumpy() - expected.asnumpy()).max() <= 1e-5 * scale
    places = tuple(range(differentiated))
    expected = ops.grad(WeightedSum(make(plain)), places)(*inputs)
    found = ops.grad(WeightedSum(make(device)), places)(*inputs)
    for one, other in zip(found, expected, strict=True) if differentiated > 1 else [(found, expected)]:
        scale = np.abs(other.asnumpy()).max()
        assert np.abs(one.asnumpy() - other.asnumpy()).max() <= 1e-4 * scale


def test_keep_if_removes_what_is_not_finite(cpu):
    x = Tensor(np.array([[1.5, np.nan], [np.inf, -2.0]], np.float32))
    for device in (plain, cpu_operators):
        keep = device.KeepIf()
        np.testing.assert_array_equal(keep(Tensor(True), x).asnumpy(), x.asnumpy())
        np.testing.assert_array_equal(keep(Tensor(False), x).asnumpy(), np.zeros((2, 2), np.float32))


def test_gelu_is_the_tanh_form(cpu):
    x = np.linspace(-8, 8, 4001)
    expected = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    for gelu in (
        cpu_operators.Gelu(),
        ascend.Gelu(),
    ):  # plain.Gelu rests on Tanh, whose CPU kernel is off by 1e-4
        assert np.abs(gelu(Tensor(x.astype(np.float32))).asnumpy() - expected).max() <= 2e-6


def test_a_query_with_one_key_has_no_gradient(cpu):

    inputs = CASES["attention"][1]
    gradient = ops.grad(WeightedSum(Attention(cpu_operators)), 0)(*inputs).asnumpy()
    assert (gradient[:, :, 0] == 0.0).all() and (gradient[:, :, 1] != 0.0).any()


def test_affine_for_decoding(cpu):
    inputs = CASES["affine"][1]
    expected, found = plain.Affine()(*inputs), cpu_operators.DenseAffine()(*inputs)
    assert np.abs(found.asnumpy() - expected.asnumpy()).max() <= 1e-5 * np.abs(expected.asnumpy()).max()


def small(**shape):
    return ModelConfig(vocab_size=64, hidden_size=8, num_layers=2, num_heads=2, seq_length=16, **shape)


@pytest.mark.parametrize("room", ["cpu", "native.training"])
def test_which_operators_serve_which_use(cpu, monkeypatch, room):
    compiled = None if room == "cpu" else "a compiled library"
    monkeypatch.setattr(operators_module, "library", lambda: compiled)
    fast = sys.modules[f"pangu_alpha.model.operators.{room}"]

    def chosen(device, decoding=False, **shape):
        return operators_for(small(**shape), device, decoding, chip="910B" if device == "Ascend" else "auto")

    whole, token = chosen("CPU"), chosen("CPU", decoding=True)
    assert (whole.affine, token.affine) == (
        fast.Affine,
        cpu_operators.DenseAffine if compiled is None else fast.Affine,
    )
    for name in ("layer_norm", "activation", "mask", "split_heads", "join_heads", "attention"):
        assert getattr(whole, name).__module__ == fast.__name__, name
        own = plain.__name__ if compiled is None else fast.__name__
        assert getattr(token, name).__module__ == own, name
    assert whole.cross_entropy is fast.TiedCrossEntropy
    assert whole.update is (None if compiled is None else ClippedAdamW)
    assert chosen("CPU", compute_dtype="float16").affine is plain.Affine
    assert chosen("Ascend", dropout=0.0).attention is ascend.FlashAttention
    assert chosen("Ascend", decoding=True, dropout=0.0).attention is plain.AttentionCore


@pytest.mark.parametrize("chip", FAMILIES)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["auto", "float16", "bfloat16", "float32"])
@pytest.mark.parametrize("decoding", [False, True])
def test_operators_are_what_the_family_has(cpu, chip, dropout, dtype, decoding):
    config, family = small(dropout=dropout, compute_dtype=dtype), FAMILIES[chip]
    if chip == "910A" and dtype in ("bfloat16", "float32"):
        with pytest.raises(ValueError, match=f"a 910A .* has no {dtype} matrix products; take float16$"):
            operators_for(config, "Ascend", decoding, chip)
        return
    found = operators_for(config, "Ascend", decoding, chip)
    flash = has_flash_attention(config, chip) and not decoding
    assert (found.attention is ascend.FlashAttention) == flash
    assert (found.mask is ascend.BlockedMask) == flash
    assert found.float_status is (ascend.FloatStatus if family.saturates else None)
    assert found.compute_dtype == getattr(ms, compute_type(config, chip))


def test_plain_operators_tell_of_overflow_as_the_chip_does(cpu):
    assert operators_for(small(), "plain", chip="910A").float_status is ascend.FloatStatus
    assert operators_for(small(), "plain", chip="910B").float_status is None
    assert operators_for(small(), "plain").float_status is None
    assert operators_for(small(), "CPU", chip="910A").float_status is None
    assert operators_for(small(), "plain", chip="910A").compute_dtype == ms.float32


def test_a_chip_that_mindspore_finds_is_taken(cpu, monkeypatch):
    monkeypatch.setattr(chip_module, "soc_version", lambda: "ascend910")
    assert operators_for(small(dropout=0.0), "Ascend").float_status is ascend.FloatStatus
    monkeypatch.setattr(chip_module, "soc_version", lambda: "ascend910_93")
    assert operators_for(small(dropout=0.0), "Ascend").attention is ascend.FlashAttention


def test_an_unknown_chip_gets_operators_that_all_have(cpu, monkeypatch):
    for module in (chip_module, operators_module):
        monkeypatch.setattr(module, "soc_version", lambda: "ascend950")
    with pytest.warns(UserWarning, match="'ascend950', which is not known here"):
        found = operators_for(small(dropout=0.0), "Ascend")
    assert found.attention is plain.AttentionCore and found.float_status is None
