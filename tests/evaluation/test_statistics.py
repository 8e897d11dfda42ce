"""Intervals and tests: published values, enumeration of small cases, and what grouping must change."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pangu_alpha.evaluation.metrics import Figure, metric
from pangu_alpha.evaluation.statistics import (
    bootstrap,
    chance,
    difference,
    group_sums,
    holm,
    interval,
    majority_share,
    mcnemar,
    wilson,
)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(223, 304, 0.681, 0.780), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 4, 0.0456, 0.6994)],
)
def test_wilson(right, n, low, high):
    found = wilson(right, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))
    z, share = 1.959964, right / n  # Wilson's formula itself
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert (found.low, found.high) == (pytest.approx(middle - half), pytest.approx(middle + half))


def test_the_bootstrap_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(1).random(400)
    found = bootstrap(Figure.mean("f1", values), seed=3)
    wanted = values.std() / 20
    assert found.error == pytest.approx(wanted, rel=0.03)
    assert found.low == pytest.approx(values.mean() - 1.96 * wanted, abs=0.15 * wanted)
    assert found.high == pytest.approx(values.mean() + 1.96 * wanted, abs=0.15 * wanted)
    assert bootstrap(Figure.mean("f1", values), seed=3) == found
    assert bootstrap(Figure.mean("f1", values), seed=4) != found


def test_items_of_one_passage_go_together():
    """Ten copies of each item carry no more information than one."""
    values = np.random.default_rng(2).random(100)
    alone = bootstrap(Figure.mean("f1", values))
    copies = Figure.mean("f1", np.repeat(values, 10))
    grouped = bootstrap(copies, np.repeat(np.arange(100), 10).tolist())
    assert (grouped.low, grouped.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    assert bootstrap(copies).error < 0.4 * grouped.error


def test_the_interval_of_bleu_draws_sums_and_not_means_of_items():
    given = ["甲乙丙丁", "甲乙丙戊丁", "甲"] * 20
    figures = metric("dureader").figures(predictions=given, references=[["甲乙丙丁戊"]] * 60)
    bleu = next(each for each in figures if each.name == "bleu_4")
    found = interval(bleu)
    assert found.method == "bootstrap" and found.low < bleu.value < found.high
    assert abs(bleu.value - bleu.per_item.mean()) > 0.05


def test_which_interval_is_taken():
    share = metric("accuracy").figures(predictions=[0, 1, 1], references=[0, 1, 0])[0]
    assert interval(share).method == interval(share, ["a", "b", "c"]).method == "wilson"
    assert interval(share, ["a", "a", "b"]).method == "bootstrap"
    assert interval(Figure.mean("f1", [0.5, 1, 0])).method == "bootstrap"
    alone = interval(share, ["a", "a", "a"])
    assert alone.method == "none" and np.isnan(alone.error)
    with pytest.raises(ValueError, match="2 groups for 3 items"):
        interval(share, ["a", "b"])


def test_group_sums():
    sums = group_sums(np.array([[1.0, 1], [0, 1], [1, 1]]), ["x", "y", "x"])
    assert sums.tolist() == [[2, 2], [0, 1]]


@pytest.mark.parametrize(("one", "two", "p"), [(40, 22, 0.030), (12, 7, 0.36), (0, 0, 1.0), (5, 5, 1.0)])
def test_mcnemar(one, two, p):
    assert mcnemar(one, two) == pytest.approx(p, abs=5e-3)


def test_the_difference_of_two_models():
    first = metric("accuracy").figures(predictions=[1] * 40 + [0] * 22 + [1] * 38, references=[1] * 100)[0]
    second = metric("accuracy").figures(predictions=[0] * 40 + [1] * 22 + [1] * 38, references=[1] * 100)[0]
    found = difference(first, second)
    assert found.value == pytest.approx(-0.18) and found.discordant == (40, 22)
    assert found.test == "mcnemar" and found.p == pytest.approx(mcnemar(40, 22))
    error = np.sqrt((0.62 - 0.18**2) / 100)  # of a mean of 62 differences of +-1
    assert found.interval.error == pytest.approx(error, rel=0.03)
    assert found.interval.low < -0.18 < found.interval.high < 0
    same = difference(first, first)
    assert (same.value, same.p, same.interval.low, same.interval.high) == (0, 1, 0, 0)


def test_randomization_is_that_of_enumeration():
    first, second = np.array([0.1, 0.9, 0.4, 0.3, 0.8]), np.array([0.5, 0.7, 0.9, 0.6, 0.9])
    change = second - first
    seen = abs(change.mean())
    exact = np.mean([abs((change * signs).mean()) >= seen - 1e-12 for signs in product((-1, 1), repeat=5)])
    found = difference(Figure.mean("f1", first), Figure.mean("f1", second))
    assert found.test == "randomization" and found.discordant is None
    assert found.p == pytest.approx(exact, abs=0.015)


def test_grouped_answers_are_not_tested_as_if_they_were_independent():
    right = metric("accuracy").figures(predictions=[1] * 8, references=[1] * 8)[0]
    wrong = metric("accuracy").figures(predictions=[0] * 8, references=[1] * 8)[0]
    assert difference(wrong, right).p == pytest.approx(2 / 2**8)
    grouped = difference(wrong, right, ["a"] * 4 + ["b"] * 4)
    assert grouped.test == "randomization" and grouped.p == pytest.approx(0.5, abs=0.03)


def test_holm():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {
        "a": pytest.approx(0.03), "b": pytest.approx(0.06), "c": pytest.approx(0.06)
    }  # fmt: skip
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0} and holm({}) == {}


def test_guessing():
    assert chance([4, 4, 2]) == pytest.approx((0.25 + 0.25 + 0.5) / 3)
    assert majority_share(["0"] * 2978 + ["1"] * 1338) == pytest.approx(0.69, abs=1e-4)  # AFQMC's dev set
