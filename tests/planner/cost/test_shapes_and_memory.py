"""Counts against the model's own, against published totals, and against published activation sizes."""

from __future__ import annotations

import dataclasses
import math

import pytest

from pangu_alpha import load_model_config
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import ConfigError
from pangu_alpha.network.parameters import parameter_table
from pangu_alpha.planner.cost.hardware import load_device, load_stack
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.cost.kept import layer_activations
from pangu_alpha.planner.cost.memory import fits, in_flight, memory, state_bytes
from pangu_alpha.planner.cost.shapes import Shape

OURS = dataclasses.replace(load_stack("pangu-alpha"), fused_attention=False)  # with dropout, or on a 910A
GPT3 = Shape.gpt(96, 12288, 96, 51200, 2048)


@pytest.mark.parametrize("name", ["tiny", "350m", "2_6b", "13b", "200b"])
def test_pangu_counts_are_the_models_own(name):
    model = load_model_config(name)
    shape = Shape.of(model)
    assert shape.parameters == model.parameter_count
    assert shape.flops(1) == model.flops_per_token


@pytest.mark.parametrize("name", ["tiny", "13b", "200b"])
def test_pangu_counts_are_those_of_the_table_of_parameters(name):
    model = load_model_config(name)
    shape, specs = Shape.of(model), parameter_table(model).values()
    for layer in (0, model.num_layers - 1):
        own = [spec.shape for spec in specs if spec.layer == layer]
        assert sum(map(math.prod, own)) == shape.layer_parameters
        assert sum(math.prod(each) for each in own if len(each) == 2) == shape.layer_matrices
    rest = sum(math.prod(spec.shape) for spec in specs if spec.layer is None)
    assert rest == shape.first_parameters + shape.last_parameters
    assert shape.tied == any(spec.tied for spec in specs)


def test_llama_counts():
    seven = Shape.llama(32, 4096, 32, 32, 11008, 32000, 4096)
    assert seven.parameters == 6_738_415_616
    eight = Shape.llama(32, 4096, 32, 8, 14336, 128256, 8192)
    assert eight.parameters == 8_030_261_248


def test_gpt_flops_are_narayanans():
    b, s, layers, h, v = 3, 2048, 96, 12288, 51200
    published = 72 * b * s * layers * h**2 * (1 + s / (6 * h) + v / (12 * layers * h))
    assert GPT3.flops(b * s) == pytest.approx(published, rel=1e-12)


def test_broken_shapes_are_refused():
    with pytest.raises(ConfigError, match="kv_heads: 3 does not divide"):
        Shape.llama(2, 64, 8, 3, 128, 100, 32)


def test_job_of_a_plan():
    plan = ParallelPlan(dp=2, tp=2, pp=3, micro_batches=6, recompute="full")
    job = Job.of(Shape.gpt(7, 64, 4, 100, 32), plan, 24)
    assert (job.devices, job.micro_batch, job.batch, job.layers) == (12, 2, 24, (3, 2, 2))
    assert [job.stride(axis) for axis in ("tp", "dp", "pp")] == [1, 2, 4]
    with pytest.raises(ValueError, match="the next that is: 36"):
        Job.of(job.shape, plan, 25)


def test_recompute_per_layer_is_counted_by_stage():
    words = ("full", "full", "none", "selective")
    job = Job(Shape.gpt(4, 64, 4, 100, 32), pp=2, micro_batches=2, recompute=words)
    assert [dict(counts) for counts in job.recomputed()] == [{"full": 2}, {"none": 1, "selective": 1}]


def test_stage_parameters_add_up():
    job = Job(GPT3, tp=8, pp=12, micro_batches=12)
    table = GPT3.vocab * GPT3.hidden  # the tied table stands on the first and on the last stage
    assert sum(job.stage_parameters()) * 8 == pytest.approx(GPT3.parameters + table, rel=1e-6)


def test_activations_of_korthikanti():
    job = Job(GPT3, micro_batch=1, tp=8, micro_batches=1)
    unit = 2048 * 12288
    scores = 5 * 96 * 2048 / 12288
    fused, unfused = load_stack("mindspore"), load_stack("mindspore-unfused")
    none = layer_activations(job, "none", unfused)
    assert none == pytest.approx(unit * (10 + 24 / 8 + scores / 8), rel=0.01)
    assert layer_activations(job, "selective", fused) == pytest.approx(unit * (10 + 24 / 8), rel=0.01)
    assert layer_activations(job, "full", fused) == 2 * unit
    split = Job(GPT3, tp=8, sequence_parallel=True)
    assert layer_activations(split, "selective", fused) == pytest.approx(unit * 34 / 8, rel=0.01)


def test_first_stage_holds_most_micro_batches():
    job = Job(GPT3, pp=4, micro_batches=8)
    assert [in_flight(job, stage) for stage in range(4)] == [4, 3, 2, 1]
    assert in_flight(Job(GPT3, pp=4, micro_batches=8, schedule="gpipe"), 3) == 8
    assert in_flight(Job(GPT3, pp=4, micro_batches=8, chunks=2), 0) == pytest.approx(5.5)


def test_what_sharding_saves():
    def parts(sharding):
        return memory(Job(GPT3, dp=4, sharding=sharding), load_device("910B2"), OURS)[0]

    none, first, third = parts("none"), parts("level1"), parts("level3")
    assert first.optimizer == pytest.approx(none.optimizer / 4)
    table = 4 * GPT3.vocab * GPT3.hidden  # level3 cannot cut the tied table
    assert first.gradients == none.gradients
    assert third.gradients == pytest.approx((none.gradients - table) / 4 + table)
    assert none.optimizer == 8 * GPT3.parameters
    assert none.total > first.total > third.total


def test_published_200b_plan_fits_and_one_device_does_not():
    shape = Shape.of(load_model_config("200b"))
    published = Job(shape, 1, 16, 8, 16, 16, sharding="level1", recompute="full")
    assert fits(published, load_device("910A"), OURS)
    assert not fits(Job(shape, recompute="full"), load_device("910A"), OURS)


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("2_6b", ParallelPlan(dp=64, tp=8, optimizer_parallel="level1")),
        ("13b", ParallelPlan(dp=16, tp=8, pp=8, micro_batches=8, optimizer_parallel="level2")),
        ("200b", ParallelPlan(dp=16, tp=8, pp=16, micro_batches=32, optimizer_parallel="level1")),
        ("200b", ParallelPlan(dp=16, tp=8, pp=16, micro_batches=32)),
    ],
)
def test_weights_and_moments_are_near_the_exact_ones(name, plan):
    model = load_model_config(name)
    job = Job.of(Shape.of(model), plan, plan.dp * plan.micro_batches)
    device = load_device("910A")
    for stage, part in enumerate(memory(job, device, OURS)):
        weights, moments = state_bytes(model, plan, stage)
        # The model shares out norms and small biases, too.
        assert part.weights == pytest.approx(weights, rel=0.04)
        if plan.optimizer_parallel != "none":
            assert part.optimizer == pytest.approx(moments, rel=0.04)
