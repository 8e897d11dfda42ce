"""The table of chip families: what is asked of it, and that it knows the chips of cluster.chips."""

from __future__ import annotations

import pytest

from pangu_alpha.cluster.chips import CHIPS
from pangu_alpha.config.families import (
    FAMILIES,
    chip_of,
    compute_type,
    has_flash_attention,
    unsupported,
)
from pangu_alpha.config.model import ModelConfig


def model(**fields):
    return ModelConfig(64, 8, 2, 2, seq_length=16, **fields)


def test_families_are_chips_of_servers():
    assert set(FAMILIES) <= set(CHIPS)
    assert {chip.partition("-")[0] for chip in CHIPS} == set(FAMILIES)


@pytest.mark.parametrize("chip", FAMILIES)
@pytest.mark.parametrize("dtype", ["auto", "float16", "bfloat16", "float32"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_flash_attention_is_for_half_precision_without_dropout_where_there_is_a_kernel(chip, dtype, dropout):
    expected = chip != "910A" and dtype != "float32" and dropout == 0.0
    assert has_flash_attention(model(compute_dtype=dtype, dropout=dropout), chip) == expected


def test_a_910a_multiplies_in_float16_only():
    half, single = model(compute_dtype="bfloat16"), model(compute_dtype="float32")
    assert unsupported(half, "910A") == (
        "model.compute_dtype: bfloat16, but a 910A (Atlas training products) has no bfloat16 matrix "
        "products; take float16"
    )
    assert "has no float32 matrix products; take float16" in unsupported(single, "910A")
    assert unsupported(half, "910B") is None and unsupported(single, "910B") is None
    assert unsupported(model(), "910A") is None


def test_auto_is_float16_on_all():
    assert {compute_type(model(), chip) for chip in FAMILIES} == {"float16"}
    assert compute_type(model(compute_dtype="float32"), "910A") == "float32"


def test_mindspore_s_names_are_not_the_chips_own():
    """MindSpore says "ascend910" of a chip that calls itself Ascend910B, and "ascend910b" of Ascend910B2."""
    assert chip_of("ascend910") == "910A"
    assert chip_of("ascend910b") == "910B"
    assert chip_of("ascend910_93") == "910C"
    assert chip_of("ascend950") is None and chip_of("") is None
