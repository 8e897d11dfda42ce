"""A found table as a file and as a part of a plan: read, refused in words, saved as content."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.operator_table import FoundTable, OperatorSplit, joined, table_text
from pangu_alpha.config.parallel import ParallelPlan, misfits
from pangu_alpha.config.run import load_train_config
from pangu_alpha.config.schema import ConfigError, build, to_mapping

MODEL = ModelConfig(64, 32, 2, 4, seq_length=8, dropout=0.0)
VALUES = {
    "model": "tiny",
    "block": {"hidden_size": 32, "num_heads": 4, "ffn_size": 128, "seq_length": 8},
    "devices": 4,
    "batch_size": 2,
    "axes": {"tp0": 2, "tp1": 2},
    "cells": {
        "Affine output": {
            "matmul": {"inputs": [["dp", "tp0"], ["tp1", "tp0"]], "output": ["dp+tp0", "tp1"]},
            "add": {"inputs": [["dp+tp0", None], [None]]},
        }
    },
}


def table(**changes):
    return build(FoundTable, VALUES | changes)


def cells(*inputs, output=None, operator="matmul"):
    split = {"inputs": list(inputs)} | ({"output": output} if output else {})
    return {"cells": {"Affine output": {operator: split}}}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text(table_text(table(model="my model: 1"), "found\nby hand"), encoding="utf-8")
    assert path.read_text("utf-8").splitlines()[:3] == ["# found", "# by hand", 'model: "my model: 1"']
    assert "    add: {inputs: [[dp+tp0, null], [null]]}" in path.read_text("utf-8")
    assert FoundTable.read(str(path)) == table(model="my model: 1")


def test_a_plan_reads_the_file_and_keeps_the_content(tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text(table_text(table()), encoding="utf-8")
    plan = build(ParallelPlan, {"tp": 4, "table": str(path)})
    assert plan == ParallelPlan(tp=4, table=table()) and hash(plan) == hash(ParallelPlan(tp=4, table=table()))
    saved = json.loads(json.dumps(to_mapping(plan)))
    assert saved["table"]["cells"]["Affine output"]["add"] == {"inputs": [["dp+tp0", None], [None]]}
    path.unlink()
    assert build(ParallelPlan, saved) == plan


def test_a_plan_without_a_table_is_saved_as_it_was():
    assert to_mapping(ParallelPlan(dp=2)) == {
        "dp": 2, "tp": 1, "pp": 1, "micro_batches": 1, "schedule": "1f1b", "layers_per_stage": [],
        "optimizer_parallel": "none", "optimizer_threshold": 64, "recompute": "none",
        "sequence_parallel": False, "vocab_parallel": True, "gradient_fusion": 0,
    }  # fmt: skip


def test_a_run_names_the_file(tmp_path):
    (tmp_path / "table.yaml").write_text(table_text(table()), encoding="utf-8")
    run = tmp_path / "run.yaml"
    run.write_text(
        "model: {vocab_size: 64, hidden_size: 32, num_layers: 2, num_heads: 4, seq_length: 8}\n"
        "data: {train: {a: {records: a}}}\nrun: {output: out, steps: 1}\n"
        f"parallel: {{tp: 4, table: {tmp_path / 'table.yaml'}}}\n"
    )
    assert load_train_config(str(run)).parallel.table == table()
    with pytest.raises(ConfigError, match="parallel.table: was found for 4 devices, but tp is 2; give tp 4"):
        load_train_config(str(run), ["parallel.tp=2"])
    for value, said in (
        ("none.yaml", "parallel.table: none.yaml: .*give the path of a YAML file"),
        ("$NO_SUCH_VARIABLE_HERE", "parallel.table: .*has no value"),
        ("3", "parallel.table: expected a path or a mapping of keys, found 3"),
        (str(run), "parallel.table: .*run.yaml: data: unknown key; known are: model, block"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_train_config(str(run), [f"parallel.table={value}"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"axis": {}}, "axis: unknown key; did you mean 'axes'?"),
        ({"devices": 8}, "devices: 8, but the axes have 2 \\* 2 = 4"),
        ({"axes": {"tp": 4}}, "axes.tp: give another name"),
        ({"axes": {"tp0": 4, "tp1": 1}}, "axes.tp1: 1 must be at least 2"),
        ({"batch_size": 0}, "batch_size: 0 must be at least 1"),
        ({"block": {"hidden_size": 32, "head": 1}}, "block.head: unknown key; .*num_heads"),
        ({"block": {}}, "block: hidden_size is missing; a table says the shape it was found for"),
        ({"cells": []}, "cells: expected a mapping"),
        (cells(["dp", "tp5"], ["tp1", None]), "output.matmul: axis 'tp5' is not known; did you mean 'tp"),
        (cells(["dp", "tp0"], ["tp1", "tp0"], output=["dp+tp1", "tp1"]), "axis 'tp1' cuts two dimensions"),
        (cells(["dp", "tp"], [None, "tp+tp0"]), "axis 'tp0' cuts two dimensions of one tensor"),
        (cells(["dp", "tp1"], ["tp0", "tp1"]), "the axes are in the order dp, tp1, tp0, but MindSpore gives"),
        (cells(["dp", 3], [None, None]), "inputs.*expected a text"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        table(**changes)


def test_casts_follow_their_neighbours_in_any_order():
    cast = table(**cells(["tp1", "tp0"], operator="cast_weight"))
    assert cast.cells["Affine output"]["cast_weight"] == OperatorSplit((("tp1", "tp0"),))


@pytest.mark.parametrize(
    ("plan", "model", "said"),
    [
        ({"tp": 2}, {}, "table: was found for 4 devices, but tp is 2; give tp 4"),
        ({}, {"num_heads": 8}, "table: was found for num_heads 4, the model has 8; find one for it"),
        ({}, {"hidden_size": 64}, "table: was found for hidden_size 32, the model has 64"),
        ({}, {"seq_length": 16}, "table: was found for seq_length 8, the model has 16"),
    ],
)
def test_a_table_must_fit_plan_and_model(plan, model, said):
    found = list(misfits(ParallelPlan(**{"tp": 4, "table": table()} | plan), replace(MODEL, **model)))
    assert found[0].startswith(said)
    assert list(misfits(ParallelPlan(tp=4, table=table()), MODEL)) == []


def test_a_table_says_itself_how_norms_and_residuals_are_split():
    with pytest.raises(ConfigError, match="sequence_parallel: true .*leave one of them out"):
        ParallelPlan(tp=4, table=table(), sequence_parallel=True)


def test_all_axes_together_are_tp():
    axes = ("tp0", "tp1")
    assert joined(["dp", "tp0", "tp1"], axes) == "dp+tp"
    assert joined(["tp1"], axes) == "tp1"
    assert joined([], axes) is None
