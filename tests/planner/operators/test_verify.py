"""Modelled collectives of a block against those of MindSpore's compiler, call by call."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.planner.operators.block import MINDSPORE, block
from pangu_alpha.planner.operators.found_table import found_table
from pangu_alpha.planner.operators.patterns import megatron, patterns
from pangu_alpha.planner.operators.strategies import Choice, best_block, evaluate
from pangu_alpha.planner.operators.verify import block_calls, compare, lines_text, verify, verify_job
from pangu_alpha.proof.dry_run.job import Job

MODEL = ModelConfig(192, 64, 2, 8, seq_length=16, dropout=0.0)
# Two compilations each, 10 to 30 s: only one case belongs to every run of the tests.
all_of_them = pytest.mark.skipif(
    "PANGU_DRY_RUNS" not in os.environ, reason="set PANGU_DRY_RUNS=1 to compile all cases"
)


def unequal(lines):
    assert len(lines) >= 3
    return [line for line in lines if not line.equal]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "devices", "batch", "micro_batches"),
    [
        (MODEL, 4, 2, 1),  # the output product 2 x 2, which sends less than Megatron's pattern
        pytest.param(MODEL, 2, 2, 1, marks=all_of_them),  # Megatron's
        pytest.param(MODEL, 2, 2, 2, marks=all_of_them),
        pytest.param(MODEL, 8, 2, 1, marks=all_of_them),  # 4 x 2
        pytest.param(replace(MODEL, dropout=0.1), 8, 1, 1, marks=all_of_them),
        pytest.param(MODEL, 4, 16, 1, marks=all_of_them),  # attention dp 2 x tp 2, feed-forward tp 4
        pytest.param(MODEL, 8, 8, 1, marks=all_of_them),
        pytest.param(MODEL, 4, 64, 1, marks=all_of_them),  # data parallel
    ],
)
def test_what_is_found_sends_what_is_modelled(model, devices, batch, micro_batches, tmp_path):
    found = best_block(model, devices, batch, micro_batches)
    assert all(found.sent <= way.sent for way in patterns(found.block, micro_batches).values())
    assert unequal(verify(model, found, tmp_path)) == []


@all_of_them
@pytest.mark.parametrize(
    "plan",
    [
        {"dp": 2, "recompute": "full"},
        {"dp": 2, "micro_batches": 2, "optimizer_parallel": "level1", "optimizer_threshold": 0},
        {"pp": 2, "micro_batches": 2},
    ],
    ids=str,
)
def test_a_block_of_a_plan_with_a_table_sends_what_is_modelled(plan, tmp_path):
    found = found_table(best_block(MODEL, 4, 2), MODEL, "m")
    lines = verify_job(Job(MODEL, ParallelPlan(tp=4, table=found, **plan), batch_size=2), tmp_path)
    assert unequal(lines) == []
    assert {line.phase for line in lines} == {"forward", "backward"}
    assert sum(line.modelled for line in lines) == 14 * plan.get("micro_batches", 1)


@pytest.mark.long
@pytest.mark.parametrize(("devices", "sent"), [(4, 28_928_000), (8, 32_875_520)])
def test_the_found_table_of_the_2_6b_sends_what_is_modelled(devices, sent, tmp_path):
    model = load_model_config("2_6b")
    found = best_block(model, devices, 1)
    assert found.sent == sent < patterns(found.block)["Megatron, sequence parallel"].sent
    lines = verify(model, found, tmp_path)
    assert unequal(lines) == []
    rounds = {"AllReduce": 2}
    assert sent == sum(
        line.compiled * rounds.get(line.operation, 1) * (line.group - 1) * line.bytes // line.group
        for line in lines
    )


@all_of_them
@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_plans_of_the_table_send_what_megatrons_pattern_is_modelled_to(devices, sequence, tmp_path):
    grid = block(MODEL, devices, 2, MINDSPORE)
    plan = ParallelPlan(tp=devices, sequence_parallel=sequence)
    compiled = block_calls(Job(MODEL, plan, batch_size=2), tmp_path)
    assert unequal(compare(evaluate(grid, megatron(grid, sequence=sequence)), compiled)) == []
    # the check can fail
    assert len(unequal(compare(evaluate(grid, megatron(grid, sequence=not sequence)), compiled))) == 6


@all_of_them
@pytest.mark.parametrize("search", [None, "recursive_programming"])
def test_rows_on_all_devices_send_what_is_modelled(search, tmp_path):
    grid = block(MODEL, 4, 4, MINDSPORE)
    compiled = block_calls(Job(MODEL, ParallelPlan(dp=4), batch_size=1, search=search), tmp_path)
    lines = compare(evaluate(grid, megatron(grid, data=4)), compiled)
    assert {line.operation for line in lines} == {"AllReduce"}
    assert sum(not line.equal for line in lines) == 0


@all_of_them
def test_slices_are_gathered_and_scattered_as_modelled(tmp_path):
    grid = block(MODEL, 4, 4, MINDSPORE)
    rows = megatron(grid, data=4).items()
    choices = {name: Choice(choice.roles, 4 if grid.operators[name].product else 1) for name, choice in rows}
    plan = ParallelPlan(dp=4, micro_batches=2, optimizer_parallel="level3", optimizer_threshold=8)
    compiled = block_calls(Job(MODEL, plan, batch_size=1), tmp_path)
    assert unequal(compare(evaluate(grid, choices, 2), compiled)) == []


def test_a_difference_is_named():
    grid = block(MODEL, 2, 2, MINDSPORE)
    way = evaluate(grid, megatron(grid, sequence=True))
    compiled = {(*kind[:3], round(kind[3])): n for kind, n in _kinds(way).items()}
    assert unequal(compare(way, compiled)) == []
    compiled["forward", "AlltoAll", 2, 64] = compiled.pop(("forward", "AllGather", 2, 4096))
    wrong = unequal(compare(way, compiled))
    assert [(line.operation, line.modelled, line.compiled) for line in wrong] == [
        ("AllGather", 2, 0),
        ("AlltoAll", 0, 2),
    ]
    assert lines_text(wrong).splitlines()[2].split() == ["forward", "AllGather", "2", "4096", "2", "0", "no"]


def _kinds(way):
    kinds = {}
    for _, phase, step, times in way.transfers:
        kind = (phase, step.operation, step.group, step.bytes)
        kinds[kind] = kinds.get(kind, 0) + times
    return kinds
