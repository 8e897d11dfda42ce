"""What a plan is by default, what follows from it, and what it refuses."""

from __future__ import annotations

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan, misfits, plan_section, unpartitionable
from pangu_alpha.config.run import build_train_config
from pangu_alpha.config.schema import ConfigError, build

MODEL = ModelConfig(64, 32, 5, 4, seq_length=6)


def test_the_default_is_one_device():
    plan = ParallelPlan()
    assert plan.devices == 1 and plan.stage_layers(5) == (5,)
    assert not [*misfits(plan, MODEL), *unpartitionable(plan)]


def test_layers_are_spread_evenly_or_as_given():
    assert ParallelPlan(pp=3, micro_batches=3).stage_layers(5) == (2, 2, 1)
    plan = ParallelPlan(pp=2, micro_batches=2, layers_per_stage=(1, 4))
    assert [plan.stage_of_layer(layer, 5) for layer in range(5)] == [0, 1, 1, 1, 1]


def test_recompute_is_one_word_or_one_for_each_layer():
    assert ParallelPlan(recompute="full").recompute_of_layer(3) == "full"
    plan = build(ParallelPlan, {"recompute": ["none", "full", "none", "none", "selective"]})
    assert plan.recompute_of_layer(4) == "selective" and not list(misfits(plan, MODEL))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"dp": 0}, "dp: 0 must be at least 1"),
        ({"pp": 4}, "micro_batches: 1 cannot fill 4 stages; use at least pp = 4"),
        ({"recompute": "half"}, "'half' is not one of none, selective, full"),
        ({"recompute": 3}, "recompute: expected a text or a list"),
        ({"pp": 2, "micro_batches": 2, "layers_per_stage": [1, 2, 2]}, "3 numbers for pp = 2 stages"),
        ({"layers_per_stage": [0]}, "layers_per_stage: 0 must be at least 1"),
        ({"layers_per_stage": "many"}, "layers_per_stage: expected a list"),
        ({"optimizer_parallel": "level1"}, "nothing to shard over with dp = 1"),
        ({"optimizer_parallel": "zero"}, "'zero' is not one of"),
        ({"sequence_parallel": True}, "nothing to split over with tp = 1"),
        ({"gradient_fusion": -1}, "gradient_fusion: -1 must not be negative"),
        ({"tensor": 2}, "tensor: unknown key"),
    ],
)
def test_bad_plans_are_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        build(ParallelPlan, values)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (ParallelPlan(tp=3), "tp: 3 does not divide the model's 4 heads"),
        (ParallelPlan(tp=4, sequence_parallel=True), "tp = 4 does not divide seq_length 6"),
        (ParallelPlan(pp=6, micro_batches=6), "6 stages for 5 layers"),
        (ParallelPlan(layers_per_stage=(4,)), "the sum is 4, the model has 5"),
        (ParallelPlan(recompute=("full", "none")), "2 words for 5 layers"),
    ],
)
def test_plans_that_do_not_fit_the_model_say_why(plan, words):
    assert any(words in problem for problem in misfits(plan, MODEL))


def test_a_run_reports_what_does_not_fit_with_everything_else():
    values = {"model": "tiny", "data": {"train": {}}, "run": {"output": "x", "steps": 0}}
    with pytest.raises(ConfigError) as caught:
        build_train_config(values | {"parallel": {"tp": 3}})
    assert "parallel.tp: 3 does not divide" in str(caught.value) and "run.steps: 0" in str(caught.value)


def test_numbers_of_devices_the_partitioner_takes():
    assert not [p for n in (1, 2, 4, 8, 24) for p in unpartitionable(ParallelPlan(dp=n))]
    assert "are 12 devices" in next(unpartitionable(ParallelPlan(dp=12)))


def test_what_ends_the_compiler_is_refused():
    level3 = {"dp": 2, "micro_batches": 2, "optimizer_parallel": "level3"}
    for values in ({"recompute": "full"}, {"pp": 2}):
        assert "ends MindSpore 2.9's compiler" in next(unpartitionable(ParallelPlan(**level3 | values)))
    for values in ({"recompute": "selective"}, {"micro_batches": 1, "recompute": "full"}):
        assert not list(unpartitionable(ParallelPlan(**level3 | values)))


def test_what_a_yaml_says_of_the_plan():
    assert plan_section({"dp": 2}) == {"dp": 2}
    assert plan_section({"parallel": {"tp": 2}, "model": "tiny"}) == {"tp": 2}
    assert plan_section({"parallel": None}) is None
    assert plan_section({"model": "tiny", "data": {}}) == plan_section({}) == {}
