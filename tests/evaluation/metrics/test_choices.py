"""Accuracy, CMRC2019's assignment and figures, and the cloze rules, by worked values."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from pangu_alpha.evaluation.metrics import METRICS, metric
from pangu_alpha.evaluation.metrics.choices import one_to_one
from pangu_alpha.evaluation.metrics.cloze import begins_with


def test_accuracy():
    found = metric("accuracy").figures(predictions=[0, 1, 2, 2], references=[0, 1, 1, 2])
    assert [each.key for each in found] == ["acc,none"]
    assert found[0].value == 0.75 and found[0].per_item.tolist() == [1, 1, 0, 1] and found[0].is_binary


def test_one_candidate_for_each_blank():
    costs = [[1.0, 1.2, 3.0], [0.9, 2.0, 2.5]]
    assert np.argmin(costs, 1).tolist() == [0, 0]  # alone, both blanks would take candidate 0
    assert one_to_one(costs) == [1, 0]
    gold = [(1, 0)]
    before = metric("cmrc2019").compute(predictions=[(0, 0)], references=gold)
    after = metric("cmrc2019").compute(predictions=[one_to_one(costs)], references=gold)
    assert before == {"qac,none": 0.5, "pac,none": 0.0} and after == {"qac,none": 1.0, "pac,none": 1.0}


def test_the_assignment_is_the_cheapest_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        costs = rng.random((3, 5))
        best = min(permutations(range(5), 3), key=lambda order: costs[range(3), order].sum())
        assert one_to_one(costs) == list(best)


@pytest.mark.parametrize("costs", [[[1.0], [2.0]], [[1.0, float("nan")]], [[1.0, float("inf")]], []])
def test_costs_that_cannot_be_assigned_are_refused(costs):
    with pytest.raises(ValueError, match="a candidate of its own and finite costs"):
        one_to_one(costs)


def test_missing_answers_are_subtracted():
    golds = [(0, 1, 2, 3), (0, 1), (0, 1)]
    found = metric("cmrc2019").per_item(predictions=[(0, 1, 2), (None, 1), (1,)], references=golds)
    assert found["qac,none"].tolist() == [0.5, 0, 0]  # 3 - 1 of 4; 1 - 1 of 2; 0 - 1 is not below 0
    whole = metric("cmrc2019").compute(predictions=[(0, 1, 2), (None, 1), (1,)], references=golds)
    assert whole == {"qac,none": 2 / 8, "pac,none": 0.0}  # blanks together, not the mean of passages
    with pytest.raises(ValueError, match="3 answers for a passage of 2 blanks"):
        metric("cmrc2019").compute(predictions=[(0, 1, 2)], references=[(0, 1)])


@pytest.mark.parametrize(
    ("given", "gold", "right"),
    [("老虎。他说", "老虎", True), ("“啄木鸟”每天", "啄木鸟", True), ("大苹果", "苹果", False),
     ("", "鱼", False), ("鱼", "鱼", True), ("( 鱼 )", "鱼", True)],
)  # fmt: skip
def test_the_word_of_cmrc2017(given, gold, right):
    assert begins_with(given, gold) is right
    found = metric("cloze").compute(predictions=[given], references=[gold])
    assert found == {"acc,word": float(right), "acc,equal": float(given == gold)}


def test_equal_words_may_differ_in_width_and_blanks():
    """The vocabulary folds widths, so that a generated １０ is always 10."""
    found = metric("cloze").compute(predictions=["10 ", "10个"], references=["１０", "10"])
    assert found == {"acc,word": 1.0, "acc,equal": 0.5}


def test_perplexity_is_over_all_tokens():
    found = metric("perplexity").figures(predictions=[3.0, 1.0], references=[1, 3])[0]
    assert found.value == pytest.approx(np.e) and not found.higher_is_better and not found.is_binary


def test_every_metric_refuses_lists_that_do_not_pair():
    for each in METRICS.values():
        with pytest.raises(ValueError, match=f"{each.name}: 2 predictions, but 1 references"):
            each.compute(predictions=["a", "b"], references=["a"])
        with pytest.raises(ValueError, match="there is no prediction"):
            each.compute(predictions=[], references=[])
    with pytest.raises(ValueError, match="'acuracy' is not known; known are accuracy"):
        metric("acuracy")
