"""Modelled collectives of a block against those of MindSpore's compiler, call by call."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.parallel.sharding import Split
from pangu_alpha.planner.operators.block import FREE, MINDSPORE, block
from pangu_alpha.planner.operators.patterns import megatron, patterns
from pangu_alpha.planner.operators.strategies import Choice, best_block, cheapest, evaluate
from pangu_alpha.planner.operators.verify import block_calls, compare, lines_text, splits, verify
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


def test_a_strategy_becomes_rows_of_the_sharding_table():
    rows = splits(best_block(MODEL, 4, 2))
    # 2 x 2: sums over two devices, scattered by rows, columns on the other two
    assert rows["Affine output"]["matmul"] == Split((("1", "2"), ("2", "2")), ("2", "2"))
    assert rows["Affine up"] == {
        "matmul": Split((("1", "1"), ("4", "1")), ("1", "4")),
        "add": Split((("1", "4"), ("4",))),
    }
    assert rows["Normalize attention_norm"]["norm"] == Split((("2", None), (None,), (None,)))
    assert rows["Block"]["add"] == Split((("2", None), ("2", None)))


def test_what_one_operator_cannot_be_is_refused():
    sliced = best_block(MODEL, 2, 64, limit=12 * 12 * 64**2 / 2)
    with pytest.raises(ValueError, match="limit: matrices kept in slices are not compiled here"):
        splits(sliced)
    grid = block(MODEL, 2, 2, FREE)
    choices = dict(cheapest(grid).choices)
    choices["feed_forward_sum"] = Choice((grid.operators["feed_forward_sum"].role("b"),))
    with pytest.raises(ValueError, match="one operator of the network is both"):
        splits(evaluate(grid, choices))
