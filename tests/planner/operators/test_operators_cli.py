"""plan.py operators --output writes a table that plans take; what does not fit is refused in a sentence."""

from __future__ import annotations

import json

import pytest

from pangu_alpha.cli.plan import main
from pangu_alpha.cli.plan.jobs import plan_of
from pangu_alpha.cli.plan.options import plan_parser
from pangu_alpha.config.operator_table import FoundTable
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.planner.operators.found_table import found_table
from pangu_alpha.planner.operators.strategies import best_block


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.yaml"
    assert main(["operators", "--model", "2_6b", "--devices", "4", "--output", str(path)]) == 0
    return path


def refused(*words):
    """The sentence that the command ends with."""
    with pytest.raises(ValueError) as error:
        main(list(map(str, words)))
    return str(error.value)


def test_what_is_found_is_written(capsys, table):
    assert f"parallel.tp=4 parallel.table={table}" in capsys.readouterr().out
    assert "#   plan.py operators --model 2_6b --devices 4 --batch-size 1" in table.read_text("utf-8")
    model = load_model_config("2_6b")
    assert FoundTable.read(str(table)) == found_table(best_block(model, 4, 1), model, "2_6b")


@pytest.mark.parametrize("option", ["--table", "--plan"])
def test_a_plan_takes_it(table, option, tmp_path):
    (tmp_path / "plan.yaml").write_text(f"parallel: {{tp: 4, table: {table}}}\n", "utf-8")
    given = (
        ["--tp", "4", "--table", str(table)] if option == "--table" else [option, str(tmp_path / "plan.yaml")]
    )
    plan = plan_of(plan_parser().parse_args(["dry-run", "--model", "2_6b", *map(str, given)]))
    assert (plan.tp, plan.table) == (4, FoundTable.read(str(table)))


def test_what_does_not_fit_is_refused(table):
    plan = ("dry-run", "--model", "2_6b", "--table", table)
    assert "table: was found for 4 devices, but tp is 2; give tp 4" in refused(*plan, "--tp", 2)
    said = refused("dry-run", "--model", "13b", "--table", table, "--tp", 4)
    assert "table: was found for hidden_size 2560, the model has 5120" in said
    assert "leave one of them out" in refused(*plan, "--tp", 4, "--sequence-parallel")
    table.write_text(table.read_text("utf-8").replace("Affine query", "Affine qeury"), "utf-8")
    said = refused(*plan, "--tp", 4)
    assert "table: cells.Affine qeury: no cell of a block; did you mean 'Affine query'?" in said
    assert "cells.Affine query.matmul: missing" in said
    table.write_text("model: 2_6b\n", "utf-8")
    assert "cells: missing" in refused(*plan, "--tp", 4)
    table.unlink()
    assert "table.yaml: " in refused(*plan, "--tp", 4)
    limit = (
        "operators",
        "--model",
        "2_6b",
        "--devices",
        4,
        "--batch-size",
        16,
        "--limit",
        3e8,
        "--output",
        table,
    )
    assert "limit: matrices kept in slices are in no table of operators" in refused(*limit)
    assert not table.exists()


@pytest.mark.long
def test_a_dry_run_checks_placements_and_a_block_of_a_plan_with_a_table(tmp_path, capsys):
    model = tmp_path / "small.yaml"
    shape = "{vocab_size: 192, hidden_size: 64, num_layers: 2, num_heads: 8, seq_length: 16, dropout: 0.1}"
    model.write_text(f"model: {shape}\n", "utf-8")
    given = ["--model", str(model), "--batch-size", "2"]
    table = tmp_path / "table.yaml"
    assert main(["operators", *given, "--devices", "4", "--output", str(table)]) == 0
    plan = ["--dp", "2", "--tp", "4", "--table", str(table), "--output", str(tmp_path / "out")]
    assert main(["dry-run", *given, *plan, "--ranks", "0,6"]) == 0
    found = json.loads((tmp_path / "out/report.json").read_text("utf-8"))
    assert found["job"]["plan"]["table"]["axes"] == {"tp0": 2, "tp1": 2}
    for rank in found["ranks"]:
        assert rank["agrees"] and not rank["dropout_faults"]
        (output,) = [
            each for each in rank["placements"] if each["name"] == "blocks.*.attention.output.weight"
        ]
        assert (output["axes"], output["slice_shape"], output["problem"]) == (["tp1", "tp0"], [32, 32], "")
        layers = [line for line in rank["lines"] if line["what"].startswith("layers: as the found table")]
        assert {line["operation"] for line in layers} == {"AllGather", "ReduceScatter"}
    assert len(found["block"]) == 8 and all(line["equal"] for line in found["block"])
    assert "Collectives of a block, as modelled" in capsys.readouterr().out
