"""plan.py operators --out writes a table that plans take; what does not fit is refused in a sentence."""

from __future__ import annotations

import pytest

from pangu_alpha.cli.plan import main
from pangu_alpha.cli.plan.command import plan_of
from pangu_alpha.cli.plan.options import plan_parser
from pangu_alpha.config.operator_table import FoundTable
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.planner.operators.found_table import found_table
from pangu_alpha.planner.operators.strategies import best_block


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.yaml"
    assert main(["operators", "--model", "2_6b", "--devices", "4", "--out", str(path)]) == 0
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
        "--out",
        table,
    )
    assert "limit: matrices kept in slices are in no table of operators" in refused(*limit)
    assert not table.exists()
