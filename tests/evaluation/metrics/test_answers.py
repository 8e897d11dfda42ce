"""Exact match and F1: values worked out by hand for the official rules, and what those rules do not drop."""

from __future__ import annotations

import pytest

from pangu_alpha.evaluation.metrics import metric
from pangu_alpha.evaluation.metrics.answers import _longest_run


@pytest.mark.parametrize(
    ("given", "wanted", "exact", "f1"),
    [
        ("甲乙丙丁", "甲丙丁", 0, 4 / 7),  # the longest run is 丙丁; a subsequence would give 6 / 7
        ("北京市海淀区", "位于北京市海淀区。", 0, 12 / 14),
        ("2012年3月,5日", "2012年3月，5日", 0, 2 / 3),  # the half-width comma stays and joins ",5"
        ("《红楼梦》。", "红楼梦", 1, 1),
        ("‘红楼梦’", "红楼梦", 0, 6 / 7),  # of the two marks, only ’ is in the official list
        ("【红楼梦】", "红楼梦", 0, 6 / 8),
        ("ABC Motor 公司", "abc motor公司", 0, 1),  # exact match keeps blanks, words do not
        ("it's 1957年", "1957年", 0, 4 / 6),  # it, 's, 1957, 年
        ("", "甲", 0, 0),
        ("，。", "甲", 0, 0),
    ],
)
def test_the_rule_of_cmrc2018(given, wanted, exact, f1):
    found = metric("cmrc").compute(predictions=[given], references=[[wanted]])
    assert found["exact_match,official"] == exact
    assert found["f1,official"] == pytest.approx(f1, abs=1e-12)


def test_nfkc_folds_both_sides():
    found = metric("cmrc").compute(
        predictions=["2012年3月,5日(周一)"], references=[["2012年3月，5日（周一）"]]
    )
    assert found["exact_match,nfkc"] == found["f1,nfkc"] == 1
    assert found["exact_match,official"] == 0


def test_the_best_reference_counts_and_items_are_averaged():
    found = metric("cmrc").per_item(
        predictions=["57年", "不知道"], references=[["1957年", "57年"], ["1958年"]]
    )
    assert found["exact_match,official"].tolist() == [1, 0]
    assert found["f1,official"].tolist() == [1, 0]
    whole = metric("cmrc").compute(
        predictions=["57年", "不知道"], references=[["1957年", "57年"], ["1958年"]]
    )
    assert whole["f1,official"] == 0.5


@pytest.mark.parametrize(
    ("given", "wanted", "exact", "f1"),
    [
        ("台灣大學", "國立台灣大學", 0, 8 / 10),
        ("學大灣台", "台灣大學", 0, 1),  # a bag has no order
        ("《紅樓夢》，", "紅樓夢", 1, 1),
        ("甲甲乙", "甲乙乙", 0, 2 / 3),  # a multiset: one 甲 and one 乙
        ("The Apple", "apple", 1, 1),
    ],
)
def test_the_rule_of_drcd(given, wanted, exact, f1):
    found = metric("drcd").compute(predictions=[given], references=[[wanted]])
    assert found["exact_match,drcd"] == exact
    assert found["f1,drcd"] == pytest.approx(f1, abs=1e-12)


def test_answers_counts_by_both_rules():
    keys = [each.key for each in metric("answers").figures(predictions=["甲"], references=["甲"])]
    assert keys[0] == "exact_match,official" and keys[-1] == "f1,drcd"


def test_the_longest_run_is_contiguous():
    assert _longest_run("abcxdef", "abcydefg") == 3
    assert _longest_run("", "a") == _longest_run("a", "") == 0


@pytest.mark.parametrize("references", [[[]], [[None]], [[1]]])
def test_an_item_without_a_reference_is_refused(references):
    with pytest.raises(ValueError, match="at least one reference text"):
        metric("cmrc").compute(predictions=["甲"], references=references)
