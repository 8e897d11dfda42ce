"""ROUGE-L and BLEU: values worked out by hand, a plain table as oracle, and NLTK's BLEU of whole sets."""

from __future__ import annotations

import random
import warnings

import pytest

from pangu_alpha.evaluation.metrics import metric
from pangu_alpha.evaluation.metrics.dureader import _longest_subsequence, rouge_l

GIVEN = ["第一季很好看", "南宁属于广西", "不会咬人"]
REFERENCES = [["第一季相当精彩", "很好看"], ["南宁属于广西省"], ["壁虎一般不会咬人", "会咬人"]]


def test_the_worked_values():
    found = metric("dureader").compute(predictions=GIVEN, references=REFERENCES)
    wanted = {"rouge_l": 0.8733, "bleu_1": 0.9394, "bleu_2": 0.9026, "bleu_3": 0.8491, "bleu_4": 0.7571}
    assert {key.partition(",")[0]: round(value, 4) for key, value in found.items()} == wanted
    items = metric("dureader").per_item(predictions=GIVEN, references=REFERENCES)
    assert [round(value, 4) for value in items["rouge_l,official"]] == [0.7093, 0.9104, 1]
    assert round(items["bleu_4,official"][1], 4) == 0.8465


def test_precision_and_recall_may_come_from_different_references():
    assert rouge_l("第一季很好看", ["第一季相当精彩", "很好看"]) == pytest.approx(
        2.44 * 0.5 / (1 + 1.44 * 0.5)
    )


def test_blanks_count_nothing_and_an_empty_answer_is_0():
    spaced = metric("dureader").compute(predictions=["南 宁\n属于"], references=[["南宁属于"]])
    assert spaced["rouge_l,official"] == spaced["bleu_4,official"] == 1
    empty = metric("dureader").compute(predictions=[""], references=[["南宁"]])
    assert set(empty.values()) == {0.0}


def plain_subsequence(first, second):
    row = [0] * (len(second) + 1)
    for one in first:
        before, row = row, [0]
        for place, other in enumerate(second):
            row.append(before[place] + 1 if one == other else max(before[place + 1], row[-1]))
    return row[-1]


def test_the_longest_subsequence_is_that_of_the_plain_table():
    rng = random.Random(3)
    for _ in range(300):
        first, second = ("".join(rng.choices("甲乙丙丁戊", k=rng.randrange(90))) for _ in range(2))
        assert _longest_subsequence(first, second) == plain_subsequence(first, second)


def test_bleu_of_a_set_is_nltks():
    from nltk.translate.bleu_score import corpus_bleu

    rng = random.Random(5)
    for _ in range(30):
        references = [
            ["".join(rng.choices("甲乙丙", k=rng.randrange(3, 15))) for _ in range(rng.randrange(1, 4))]
            for _ in range(8)
        ]
        given = ["".join(rng.choices("甲乙丙", k=rng.randrange(4, 15))) for _ in range(8)]
        found = metric("dureader").compute(predictions=given, references=references)
        for order in range(1, 5):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NLTK warns where no n-gram is right
                wanted = corpus_bleu(references, given, weights=[1 / order] * order)
            assert found[f"bleu_{order},official"] == pytest.approx(wanted, abs=1e-9)
