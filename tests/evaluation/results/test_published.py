"""The paper's figures: cells of every row, known shares of whole items, and the caveats."""

from __future__ import annotations

from collections import Counter

import pytest

from pangu_alpha.evaluation.results.published import general_caveats, known_tasks, published


def cell(task, column, model, table=None):
    found = [
        each.values
        for each in published(task)
        if (each.column, each.model) == (column, model) and table in (None, each.table)
    ]
    assert len(found) == 1, (task, column, model)
    return [round(100 * value, 3) for value in found[0]]


@pytest.mark.parametrize(
    ("task", "column", "model", "values"),
    [
        ("cmrc2018", "few", "13B", [9.76, 29.23]), ("drcd", "zero", "CPM", [0, 4.62]),
        ("dureader", "one", "2.6B", [20.18]), ("pd", "zero", "13B", [43.86]), ("cft", "zero", "13B", [46.6]),
        ("pd", "few", "CPM", [32.03]), ("cft", "few", "CPM", [39.84]), ("cmrc2017", "zero", "13B", [38.9]),
        ("chid", "few", "13B", [70.91]), ("cmnli", "one", "CPM", [47.56]), ("ocnli", "few", "2.6B", [46.78]),
        ("tnews", "zero", "2.6B", [60.95]), ("iflytek", "few", "13B", [80.34]),
        ("afqmc", "few", "2.6B", [69.0]),
        ("csl", "few", "13B", [55.7]), ("cluewsc2020", "zero", "CPM", [73.684]),
        ("c3", "zero", "13B", [54.47]),
    ],
)  # fmt: skip
def test_cells(task, column, model, values):
    assert cell(task, column, model) == values


def test_tables_that_contradict_each_other_both_stand():
    assert cell("webqa", "few", "2.6B", "9") == [24, 33.94]
    assert cell("webqa", "few", "2.6B", "10") == [23.71, 33.81]
    assert cell("cmrc2019", "zero", "2.6B", "9") == [61.93] and cell("cmrc2019", "zero", "2.6B", "10") == [
        68.22
    ]


def test_every_row_is_there():
    assert len(known_tasks()) == 18
    counts = Counter(each.column for task in known_tasks() for each in published(task))
    # 16 tasks with three models a column, WebQA and CMRC2019 with two in each of two tables, WPLC with two
    assert counts == {"zero": 15 * 3 + 2 * 4 + 2, "one": 15 * 3 + 2 * 4, "few": 15 * 3 + 2 * 4}
    assert [each.values for each in published("wplc")] == [(16.70,), (19.18,)]
    assert all(len(each.names) == len(each.values) for task in known_tasks() for each in published(task))


@pytest.mark.parametrize(
    ("n", "task"), [(1000, "csl"), (304, "cluewsc2020"), (1825, "c3"), (3000, "cmrc2017")]
)
def test_figures_are_shares_of_whole_items(n, task):
    """Each figure of these rows is k / n, rounded or cut to its digits: a misprint of ours would show."""
    for each in published(task):
        if each.model != "CPM":
            right = each.values[0] * n
            nearest = min((round(right), int(right) + 1), key=lambda k: abs(k - right))
            assert abs(nearest / n - each.values[0]) < 1e-4, each


def test_the_number_of_examples_chooses_the_column():
    assert {each.column for each in published("tnews", 0)} == {"zero"}
    assert {each.column for each in published("tnews", 1)} == {"one"}
    assert {(each.column, each.shots) for each in published("cmnli", 12)} == {("few", "6,12")}
    assert published("bustm") == ()


def test_caveats():
    assert any("2,978 of 4,316" in text for text in published("afqmc")[0].caveats)
    assert any("DuReader in the training corpus" in text for text in published("dureader")[0].caveats)
    fewclue = published("fewclue_tnews", 0)
    assert fewclue[0].caveats[0] == "of the paper's own set tnews, which has other items"
    assert fewclue[0].values == published("tnews", 0)[0].values
    assert len(general_caveats()) == 3
