from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.corpus.rules import (
    RULE_NAMES,
    RULES,
    Context,
    WordList,
    broken_rules,
    measures,
    profile,
    verdict,
)

sys.path.insert(0, str(Path(__file__).parent))
from references import REFERENCES

WORDS = WordList({"性": "a", "苹果": "b", "苹果派": "b", "ab": "c"}, frozenset({"性别", "苹果树"}))
CONTEXT = Context(WORDS, WordList({"立即购买": "shop"}), {"mobile": "drop", "email": "drop"})
PROSE = "天下大势，分久必合，合久必分。\n周末七国分争，并入于秦。及秦灭之后，楚、汉分争，又并入于汉。\n"
# The pieces of random texts: every class of characters, words of the lists, and repetitions.
PIECES = [
    *"的一是了汉漢龘㐂𠀀豈あアｱ한zZéЖ09９。！？!?…，、；：“”（）《》#$*/_=|·•●",
    *" \t\n\n\n\u3000\xa0\u200b\ue000★😀",
    PROSE, "苹果派", "苹果树", "性别", "AB", "ＡＢ", "立即购买", "13812345678", "a@b.cn", "。。。", "...",
]  # fmt: skip


def referenced(text: str, context: Context = CONTEXT, title: str = "") -> np.ndarray:
    return np.array([REFERENCES[name](text, context, title) for name in RULE_NAMES], np.float32)


def test_every_rule_has_a_reference_in_the_order_of_the_table():
    assert list(REFERENCES) == list(RULE_NAMES)
    assert len(set(RULE_NAMES)) == len(RULES) <= 63


@pytest.mark.parametrize(
    ("text", "title"),
    [("", ""), ("\n \n", ""), ("题", ""), ("题", "题"), ("题\n正文。", "题"), ("正文。", ""), (PROSE, ""),
     (PROSE * 5, ""), ("甲乙丙丁" * 30, ""), ("甲乙丙丁" * 3, ""), ("甲" * 13, ""), ("甲" * 12 + "乙", "")],
)  # fmt: skip
def test_measures_equal_the_references(text, title):
    np.testing.assert_array_equal(measures(text, CONTEXT, title), referenced(text, CONTEXT, title))


def test_measures_equal_the_references_on_random_texts():
    dice = random.Random(1)
    for _ in range(300):
        pieces = dice.sample(PIECES, dice.randint(1, 12))
        text = "".join(dice.choices(pieces, k=dice.randint(1, 120)))
        np.testing.assert_array_equal(measures(text, CONTEXT), referenced(text), err_msg=repr(text))


def test_an_exception_frees_the_shorter_word_and_the_longest_match_counts():
    assert WORDS.found("苹果派和苹果，苹果树，性别与性，ＡＢ") == ["苹果派", "苹果", "性", "ab"]


def test_the_verdict_is_the_first_failing_rule_and_the_mask_has_all():
    bounds = profile("strict").bounds_of("common_crawl")
    mask, reason = verdict(measures("Only English is written here. " * 4, CONTEXT), bounds)
    assert reason == "han_share"
    assert {"han_share", "characters"} <= set(broken_rules(mask))
    assert broken_rules(mask)[0] == reason
    assert verdict(measures(PROSE, CONTEXT), np.full(len(RULES), np.nan, np.float32)) == (0, None)


@pytest.mark.parametrize("rule", RULES, ids=RULE_NAMES)
def test_a_bound_drops_on_its_own_side_only(rule):
    place = RULE_NAMES.index(rule.name)
    measured = np.zeros(len(RULES), np.float32)
    bounds = np.full(len(RULES), np.nan, np.float32)
    measured[place] = bounds[place] = 0.5
    assert verdict(measured, bounds) == (0, None)
    measured[place] += 0.1 if rule.direction == "at_most" else -0.1
    assert verdict(measured, bounds) == (1 << place, rule.name)


def test_kana_drops_japanese_although_its_share_of_han_passes():
    text = (
        "東京都知事選挙候補者記者会見開催予定日時決定発表" * 10
        + "についてのニュースがありますのでおしらせ" * 2
    )
    measured = dict(zip(RULE_NAMES, measures(text, Context()), strict=True))
    assert measured["han_share"] > 0.6
    assert (
        verdict(measures(text, Context()), profile("pangu-alpha").bounds_of("common_crawl"))[1]
        == "kana_share"
    )


def test_text_in_a_wrong_encoding_has_rare_han_although_it_passes_as_chinese():
    garbled = (PROSE * 3).encode("utf-8").decode("gb18030", "ignore")
    measured = dict(zip(RULE_NAMES, measures(garbled, Context()), strict=True))
    assert measured["han_share"] > 0.6
    assert measured["rare_han_share"] > 0.5
    assert dict(zip(RULE_NAMES, measures(PROSE, Context()), strict=True))["rare_han_share"] == 0
