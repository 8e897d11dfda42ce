"""A found way as a table of operators and back: axes, layouts, slices, what a table must say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mindspore import nn, ops

from pangu_alpha.checkpoint.foreign.mindspore.strategy_file import strategy_of as strategy_file_of
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.operator_table import OperatorSplit
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import ConfigError
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.model.operators import operators_for
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.parallel.apply import operators, shard
from pangu_alpha.parallel.layout import layouts, slice_writers
from pangu_alpha.parallel.sharding import BLOCK, DERIVED, SHARDING, table_of
from pangu_alpha.parallel.table_fit import unfit
from pangu_alpha.planner.operators.block import FREE, MINDSPORE, block
from pangu_alpha.planner.operators.found_table import found_table, strategy_of
from pangu_alpha.planner.operators.patterns import megatron
from pangu_alpha.planner.operators.strategies import Choice, best_block, cheapest, evaluate
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.training.loss import MicroBatchLoss, TokenLoss

MODEL = ModelConfig(192, 64, 2, 8, seq_length=16, dropout=0.0)
LARGE = load_model_config("2_6b")


def found(devices, batch, model=MODEL):
    return found_table(best_block(model, devices, batch), model, "m")


def test_a_strategy_becomes_rows_of_the_table():
    cells = found(4, 2).cells
    # 2 x 2: sums over two devices, scattered by rows, columns on the other two
    assert cells["Affine output"]["matmul"] == OperatorSplit(
        (("dp", "tp0"), ("tp1", "tp0")), ("dp+tp0", "tp1")
    )
    assert cells["Affine up"] == {
        "matmul": OperatorSplit((("dp", None), ("tp", None)), ("dp", "tp")),
        "add": OperatorSplit((("dp", "tp"), ("tp",))),
    }
    assert cells["Normalize attention_norm"]["norm"] == OperatorSplit((("dp+tp0", None), (None,), (None,)))
    assert cells["Block"]["add"] == OperatorSplit((("dp+tp0", None), ("dp+tp0", None)))


@pytest.mark.parametrize(
    ("model", "devices", "batch"),
    [(MODEL, 2, 2), (MODEL, 4, 2), (MODEL, 4, 16), (MODEL, 4, 64), (MODEL, 8, 8), (LARGE, 4, 1),
     (LARGE, 8, 1)],
)  # fmt: skip
def test_a_table_says_the_way_that_it_was_made_of(model, devices, batch):
    way = best_block(model, devices, batch)
    table = found_table(way, model, "m")
    assert table_of(ParallelPlan(tp=devices, table=table)).rows.keys() == {*SHARDING, *BLOCK}
    assert strategy_of(table, model, batch).transfers == way.transfers


def test_megatrons_pattern_is_the_hand_made_table():
    grid = block(MODEL, 4, 2, MINDSPORE)
    table = found_table(evaluate(grid, megatron(grid)), MODEL, "m")
    placed = {
        name: layouts(MODEL, ParallelPlan(tp=4, **changes))
        for name, changes in {"found": {"table": table}, "hand-made": {}}.items()
    }
    for name, layout in placed["hand-made"].items():
        assert placed["found"][name] == layout, name
    cells = {"Affine query": "Affine column", "Affine down": "Affine row", "AttentionCore": "AttentionCore"}
    for cell, usual in cells.items():
        assert {n: each.inputs for n, each in table.cells[cell].items()} == {
            n: tuple(tuple("dp" if axis == "sp" else axis for axis in axes) for axes in each.inputs)
            for n, each in SHARDING[usual].items()
        }


@pytest.mark.parametrize("plan", [{}, {"dp": 2}, {"dp": 2, "pp": 2, "micro_batches": 2}])
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("batch", [2, 16])
def test_slices_cover_every_parameter_once(plan, sharded, batch):
    if sharded and "dp" not in plan:
        pytest.skip("nothing to shard over")
    more = {"optimizer_parallel": "level1", "optimizer_threshold": 0} if sharded else {}
    plan = ParallelPlan(tp=4, table=found(4, batch), **plan, **more)
    placed = layouts(MODEL, plan)
    for name, writers in slice_writers(placed, plan).items():
        layout = placed[name]
        counts = np.zeros(layout.shape, int)
        for begin in writers:
            counts[tuple(slice(a, a + n) for a, n in zip(begin, layout.slice_shape, strict=True))] += 1
        assert (counts == 1).all(), name
        holders = plan.dp * plan.tp / len(writers)
        assert layout.share(plan) == 1 / holders
        cut = strategy_file_of(placed, plan)[layout.stage][name]
        for place in range(plan.dp * plan.tp):
            start = layout.start(plan, layout.stage * plan.dp * plan.tp + place)
            assert cut.box(place, layout.slice_shape).start == start, name


def test_a_weight_cut_both_ways_lies_by_its_axes():
    plan = ParallelPlan(dp=2, tp=4, table=found(4, 2))
    layout = layouts(MODEL, plan)["blocks.0.attention.output.weight"]
    assert (layout.axes, layout.parts, layout.slice_shape) == (("tp1", "tp0"), (2, 2), (32, 32))
    starts = [layout.start(plan, rank) for rank in range(8)]
    assert starts == [(0, 0), (32, 0), (0, 32), (32, 32)] * 2


def test_what_one_operator_cannot_be_is_refused():
    sliced = best_block(MODEL, 2, 64, limit=12 * 12 * 64**2 / 2)
    with pytest.raises(ValueError, match="limit: matrices kept in slices are in no table"):
        found_table(sliced, MODEL, "m")
    grid = block(MODEL, 2, 2, FREE)
    choices = dict(cheapest(grid).choices)
    choices["feed_forward_sum"] = Choice((grid.operators["feed_forward_sum"].role("b"),))
    with pytest.raises(ValueError, match="one operator of the network is both"):
        found_table(evaluate(grid, choices), MODEL, "m")


@pytest.mark.parametrize(("device", "chip"), [("plain", "auto"), ("Ascend", "910A"), ("Ascend", "910B")])
@pytest.mark.parametrize("activation", ["gelu", "fast_gelu"])
def test_every_operator_of_a_network_has_an_entry(cpu, device, chip, activation):
    model = replace(MODEL, num_layers=3, compute_dtype="float16", dropout=0.1, activation=activation)
    table = table_of(ParallelPlan(tp=4, table=found(4, 2)))
    network = PanguAlpha(model, None, operators_for(model, device, chip=chip))
    loss = MicroBatchLoss(TokenLoss(network))
    seen = [(cell, name) for cell, name, each in operators(loss, table) if each.name not in DERIVED]
    assert len(seen) > 100
    assert not {(cell, name) for cell, name in seen if name not in table.rows.get(cell, {})}
    of_blocks = {
        cell for cell, name, each in operators(nn.CellList([*network.blocks, network.query_layer]), table)
    }
    assert of_blocks <= BLOCK.keys()
    shard(loss, ParallelPlan(dp=2, tp=4, table=found(4, 2)), table)
    output = network.query_layer.attention.output.affine.matmul.attrs
    assert (output["in_strategy"], output["out_strategy"]) == (((2, 2), (2, 2)), ((4, 2),))
    assert network.final_norm.normalize.norm.attrs["in_strategy"] == ((2, 1), (1,), (1,))


def test_an_operator_that_no_table_has_is_named(cpu):
    table = table_of(ParallelPlan(tp=4, table=found(4, 2)))
    network = PanguAlpha(MODEL, None, operators_for(MODEL, "plain"))
    network.blocks[0].attention.query.affine.extra = ops.Mul()
    with pytest.raises(KeyError, match="Affine query.extra: no entry in the table of operators"):
        shard(network, ParallelPlan(tp=4, table=found(4, 2)), table)


def without(cells, cell, operator):
    return {**cells, cell: {name: each for name, each in cells[cell].items() if name != operator}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: {**c, "Affine qeury": {}}, "cells.Affine qeury: no cell of a block; .*'Affine query'"),
        (lambda c: {**c, "Block": {**c["Block"], "ad": c["Block"]["add"]}}, "Block.ad: no operator .*'add'"),
        (lambda c: without(c, "Gelu", "mul"), "cells.Gelu.mul: missing; a table says of every operator"),
        (
            lambda c: {**c, "Block": {"add": OperatorSplit((("dp",), ("dp", None)))}},
            "Block.add: inputs of \\[1, 2\\] dimensions, the operator's have \\[2, 2\\]",
        ),
    ],
)
def test_a_table_says_of_every_operator_of_a_block(change, said):
    table = found(4, 2)
    wrong = replace(table, cells=change(dict(table.cells)))
    with pytest.raises(ConfigError, match=said):
        table_of(ParallelPlan(tp=4, table=wrong))


def test_a_table_of_other_axes_is_not_modelled():
    grid = block(MODEL, 4, 2, MINDSPORE)
    table = found_table(evaluate(grid, megatron(grid)), MODEL, "m")  # names no axis but all of tp
    with pytest.raises(ValueError, match="only tables of such axes have a modelled traffic"):
        strategy_of(replace(table, axes={"tp0": 4}), MODEL, 2)


def job(batch_size=2, model=MODEL, cells=None, **plan):
    table = found(4, 2)
    table = table if cells is None else replace(table, cells={**table.cells, **cells(table.cells)})
    return Job(model, ParallelPlan(tp=4, table=table, **plan), batch_size=batch_size)


def test_a_found_table_fits_any_batch_that_it_divides():
    for batch_size, plan in ((2, {}), (1, {"dp": 2}), (4, {"dp": 2, "pp": 2, "micro_batches": 2})):
        assert job(batch_size, **plan).plan.table == found(4, 2)


def sequences_over_tp(cells):
    inputs = (("dp+tp", None, None, None),)
    return {"AttentionCore": {**cells["AttentionCore"], "softmax": OperatorSplit(inputs)}}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"batch_size": 2, "cells": sequences_over_tp},
            "table: cells.AttentionCore.softmax cuts sequences over dp\\+tp, which is 4 devices; 2 do not "
            "divide so: change the batch size",
        ),
        ({"batch_size": 2, "cells": lambda cells: {"Gelu": {}}}, "table: cells.Gelu.square: missing"),
    ],
)
def test_what_a_table_cannot_cut_is_refused(asked, said):
    with pytest.raises(ConfigError, match=said):
        job(**asked)


def test_heads_and_parameters_that_do_not_divide_are_named():
    """A table that was made one of six devices by hand; MindSpore would take no such plan at all."""
    table = found(4, 2)
    thirds = replace(table, devices=6, axes={"tp0": 2, "tp1": 3})
    said = list(unfit(ParallelPlan(tp=6, table=thirds), MODEL, 2))
    assert (
        "table: cells.AttentionCore.softmax cuts heads over tp, which is 6 devices; 8 do not divide so: "
        "change the table"
    ) in said
    assert (
        "table: cuts 64 of blocks.0.attention.query.weight over tp, which is 6 devices; change the table"
    ) in said
