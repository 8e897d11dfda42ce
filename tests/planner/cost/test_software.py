"""Attention is fused in the planner exactly where training takes the fused operator."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from pangu_alpha.config.families import FAMILIES
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.planner.cost.hardware import device_names, load_cluster, load_device, load_stack
from pangu_alpha.planner.cost.software import software_of
from pangu_alpha.planner.search.search import Question

OURS = load_stack("pangu-alpha")
MODEL = ModelConfig(512, 256, 2, 4, seq_length=128)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(
    ("chip", "dtype"),
    [(chip, dtype) for chip, each in FAMILIES.items() for dtype in ("auto", *each.compute_types)],
)
def test_as_the_operators_of_training(chip, dropout, dtype):
    from pangu_alpha.model.operators import ascend, operators_for

    model = dataclasses.replace(MODEL, dropout=dropout, compute_dtype=dtype)
    taken = operators_for(model, "Ascend", chip=chip).attention is ascend.FlashAttention
    assert software_of(OURS, model, chip).fused_attention == taken


def test_a_stack_that_decides_itself_and_devices_without_kernels():
    model = dataclasses.replace(MODEL, dropout=0.0)
    assert OURS.fused_attention is None
    assert not software_of(OURS, model, "").fused_attention
    assert software_of(load_stack("mindspore"), MODEL, "910A").fused_attention
    assert {load_device(name).family for name in device_names()} == {"", *FAMILIES}


def test_a_question_asks_for_its_own_model_and_device():
    fused = {
        (cluster, dropout): Question(
            dataclasses.replace(MODEL, dropout=dropout), load_cluster(cluster), OURS, 8
        ).software.fused_attention
        for cluster, dropout in itertools.product(("910a-8", "910b-8", "910c-16"), (0.0, 0.1))
    }
    assert {key for key, value in fused.items() if value} == {("910b-8", 0.0), ("910c-16", 0.0)}


def test_a_type_that_the_device_does_not_have_is_refused():
    model = dataclasses.replace(MODEL, compute_dtype="bfloat16")
    with pytest.raises(ValueError, match=r"model.compute_dtype: bfloat16, but a 910A .* has no bfloat16"):
        Question(model, load_cluster("910a-8"), OURS, 8)
