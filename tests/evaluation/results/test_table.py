"""What the Markdown page and the picture show."""

from __future__ import annotations

import dataclasses

import pytest

from pangu_alpha.evaluation.results.picture import _rows, draw_results
from pangu_alpha.evaluation.results.table import markdown, markdown_table


def test_the_page_shows_what_a_figure_is_to_be_compared_with(made):
    result, _ = made.choice([0, 1, 2, 0, 0, 0, 0, 1])
    page = markdown("m", [result])
    row = next(line for line in page.splitlines() if line.startswith("| OCNLI"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["OCNLI", "paper", "exact", "0", "0", "8", "acc", "none", "62.50", "30.57 to 86.32",
                     "33.33", "50.00", "42.61", "41.53"]  # fmt: skip
    assert "- ocnli_paper_0shot_seed0: 1 ties\n" in page and "cut left" not in page
    assert "- OCNLI: a rerun by others with all labels reached chance (.31)" in page
    assert "no check of the training corpus" in page
    assert "## Over seeds" not in page


def test_seeds_are_put_together(made):
    results = [made.choice([0] * right + [9] * (8 - right), seed=right)[0] for right in (1, 4, 4)]
    results.append(made.choice([0] * 8, task="cmnli")[0])
    page = markdown("m", results)
    spread = page.partition("## Over seeds")[2].partition("##")[0]
    assert "| OCNLI | paper | 0 | 3 | acc | 20.83 | 12.50 | 25.00 |" in spread
    assert "CMNLI" not in spread


def test_the_papers_figure_stands_beside_its_own_rule_only(made):
    page = markdown("m", [made.answer(["甲"], [["甲"]], "cmrc", "cmrc2018")[0]])
    rows = [line for line in page.splitlines() if line.startswith("| cmrc2018")]
    assert [row.count("1.21") + row.count("16.65") for row in rows] == [1, 1, 0, 0]


def test_cells_cannot_break_the_table():
    assert markdown_table(["a", "b"], [["x|y\nz", ""]], [1]) == "| a | b |\n| --- | ---: |\n| x\\|y z |  |"


def test_rows_of_the_picture(made, tmp_path):
    cmrc = made.answer(["甲", "乙"], [["甲"], ["丙"]], "cmrc", "cmrc2018")[0]
    wplc = made.answer([3.0], [1], "perplexity", "wplc")[0]
    choice = made.choice([0] * 8)[0]
    rows = [*_rows([choice, cmrc, wplc])]
    assert [each.label for each in rows] == [
        "OCNLI\nacc, 0-shot, seed 0", "cmrc2018\nexact_match, 0-shot, seed 0", "cmrc2018\nf1, 0-shot, seed 0"
    ]  # fmt: skip
    assert rows[0].marks == (1 / 3, 0.5, 0.4261, 0.4153)
    assert rows[2].marks == (None, None, pytest.approx(0.1665), pytest.approx(0.1928))
    draw_results([choice, cmrc, wplc], tmp_path / "r.png", "a $ name_ of mine")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    draw_results([wplc], tmp_path / "none.png", "m")
    assert not (tmp_path / "none.png").exists()


def test_names_of_results_tell_all_that_differs(made):
    result = made.choice([0] * 8)[0]
    changes = [{"ways": 4}, {"shots": 1}, {"seed": 1}, {"template": "released"}, {"task": "x"}]
    names = {dataclasses.replace(result, **change).name for change in ({}, *changes)}
    assert len(names) == 6 and "ocnli_paper_4way_0shot_seed0" in names
