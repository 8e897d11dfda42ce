"""The operators of a layer: what each takes, and what a software stack adds to or spares them."""

from __future__ import annotations

import dataclasses

import pytest

from pangu_alpha.planner.cost.cost import CostModel, Step
from pangu_alpha.planner.cost.hardware import load_cluster, load_stack
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.cost.layer import Layer, Pass, Rates
from pangu_alpha.planner.cost.shapes import Shape

GPT = Shape.gpt(16, 4096, 32, 40000, 1024)
LLAMA = Shape.llama(16, 4096, 32, 8, 11008, 32000, 1024)
DEVICE = load_cluster("a100-80-8").device.with_constants(matmul=0.5, kernel=0.0, memory=0.8, host=0.0)
RATE, BANDWIDTH = 0.5 * DEVICE.peak, 0.8 * DEVICE.bandwidth


def layer(job, stack="megatron", **changes):
    return Layer(Rates(DEVICE, dataclasses.replace(load_stack(stack), **changes)), job)


def test_each_pass_of_a_product_pays_for_the_length_of_its_own_sums():
    found = layer(Job(GPT, 4, tp=8))._products
    tokens, wide, narrow = 4096, 16384 / 8, 4096
    ideal = 2 * tokens * wide * narrow / RATE
    # Up is split by columns, down by rows: forward, the input's gradient, the weight's gradient.
    lengths = {"up": (narrow, wide, tokens), "down": (wide, narrow, tokens)}
    for name, inner in lengths.items():
        assert found[name] == pytest.approx([ideal * (1 + 200 / each) for each in inner])


def test_a_product_of_few_rows_takes_the_time_of_its_weights():
    found = layer(Job(dataclasses.replace(GPT, seq=8), 1))._products["up"][0]
    assert found == pytest.approx(2 * (8 * (4096 + 16384) + 4096 * 16384) / BANDWIDTH)


def test_attention_sums_over_head_columns_and_over_positions():
    found = layer(Job(GPT, 4))
    ideal = 2 * 4096 * 1024 * 4096 / RATE  # scores, or weighted values
    columns, positions = ideal * (1 + 200 / 128), ideal * (1 + 200 / 1024)
    assert found._attention.compute == pytest.approx(columns + positions)
    assert found._attention_backward.compute == pytest.approx(columns + 3 * positions)


def test_full_recompute_spares_the_product_that_no_derivative_needs():
    job = Job(GPT, 4, recompute="full")
    again = {
        stack: layer(job, stack, fused_attention=False).backward("full").compute
        - layer(job, stack, fused_attention=False).backward("none").compute
        for stack in ("megatron", "fsdp", "mindspore", "pangu-alpha")
    }
    one = layer(job)
    assert again["megatron"] == pytest.approx(one.forward.compute)
    for stack in ("fsdp", "mindspore", "pangu-alpha"):
        assert again[stack] == pytest.approx(one.forward.compute - one._products["down"][0]), stack


def test_gradient_sums_cost_nothing_where_a_product_adds_to_them():
    job = Job(GPT, 4)
    assert layer(job).accumulated(10**9).memory == pytest.approx(6e9 / BANDWIDTH)
    assert layer(job, "deepspeed-bf16").accumulated(10**9).memory == pytest.approx(20e9 / BANDWIDTH)
    assert layer(job, "megatron-2022").accumulated(10**9) == Pass()


@pytest.mark.parametrize("mode", ["none", "full"])
def test_sums_of_the_backward_pass_hide_behind_weight_gradients(mode):
    cluster = dataclasses.replace(load_cluster("a100-80-8"), device=DEVICE)

    def steps(hidden):
        job = Job(Shape.gpt(16, hidden, 16, 40000, 1024), 4, tp=8, recompute=mode)
        return (Step(CostModel(cluster, load_stack(name)), job) for name in ("megatron", "megatron-2022"))

    shown, hidden = steps(4096)
    sums = shown.exchange.backward_layer("none")
    repeated = shown.exchange.backward_layer(mode) - sums  # what recompute repeats is never hidden
    assert 0 < sums < hidden.layer.behind
    assert shown.backward_layer(mode).traffic == pytest.approx(sums + repeated)
    assert hidden.backward_layer(mode).traffic == pytest.approx(repeated)
    shown, hidden = steps(1024)  # products too short to hide the sums
    spared = shown.backward_layer(mode).traffic - hidden.backward_layer(mode).traffic
    assert spared == pytest.approx(hidden.layer.behind) and spared < shown.exchange.backward_layer("none")


def test_rotary_positions_and_gates_cost_more_where_each_operator_is_a_kernel():
    def moved(shape, stack):
        return layer(Job(shape, 4), stack)._elementwise().memory * BANDWIDTH / 4096

    assert moved(LLAMA, "mindspore") - moved(LLAMA, "fsdp") == pytest.approx(4 * 11008 + 44 * 40 * 128)
    assert moved(GPT, "mindspore") == moved(GPT, "fsdp")  # neither
