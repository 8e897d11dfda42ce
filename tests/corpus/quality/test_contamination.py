"""Every planted item is found where it is, nothing else is, and an index that can find nothing is refused."""

from __future__ import annotations

import random

import pytest

from pangu_alpha.config.corpus import ContaminationSettings
from pangu_alpha.corpus.quality import ContaminationIndex, without_hits

QUESTION = "小明的妈妈买了三斤苹果和两斤香蕉，一共花了二十三元，苹果每斤多少钱？"
PASSAGE = "长江是中国第一大河，发源于青藏高原，流经十一个省区市，最后在上海注入东海。" * 3


def index(**settings):
    items = [("maths", "m1", QUESTION), ("maths", "m2", "短题"), ("reading", "r1", PASSAGE)]
    return ContaminationIndex.build(items, ContaminationSettings(**settings))


def noise(seed, count):
    rng = random.Random(seed)
    return "".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(count))


def test_planted_items_are_found_with_their_place_whatever_their_form():
    found = index()
    text = noise(0, 500) + QUESTION + noise(1, 300)
    [hit] = found.hits(text)
    # the last mark is no part of the folded text
    assert (hit.task, hit.item, hit.text, hit.start) == ("maths", "m1", QUESTION[:-1], 500)
    other = noise(0, 90) + "\n".join(QUESTION.replace("，", " , ")) + "。"
    [hit] = found.hits(other)
    assert hit.start == 90 and text[500] == other[90] and hit.item == "m1"
    hits = found.hits(noise(2, 50) + PASSAGE + noise(3, 50) + QUESTION)
    assert [(each.task, each.item) for each in hits] == [("reading", "r1"), ("maths", "m1")]


def test_a_gram_less_than_n_is_not_enough_and_one_is():
    found = index()
    letters = [each for each in QUESTION if each.isalnum()]
    assert found.hits(noise(0, 30) + "".join(letters[5:17]) + noise(1, 30)) == []
    [hit] = found.hits(noise(0, 30) + "".join(letters[5:18]) + noise(1, 30))
    assert (hit.start, hit.stop) == (30, 43)
    assert found.hits("") == [] and found.hits(noise(5, 5000)) == []


def test_n_follows_the_lengths_of_a_set():
    assert sorted(index()._tables) == [13, 20]
    items = [("t", str(n), noise(n, 16 + n)) for n in range(40)]
    assert [*ContaminationIndex.build(items)._tables] == [17]


def test_a_set_of_which_nothing_could_be_found_is_refused():
    with pytest.raises(ValueError, match="'short': its longest text has 2 letters and digits, fewer"):
        ContaminationIndex.build([("maths", "1", QUESTION), ("short", "1", "短题")])
    with pytest.raises(ValueError, match="no items to look for"):
        ContaminationIndex.build([])


def test_save_and_load_find_the_same(tmp_path):
    first = index(margin=7)
    first.save(tmp_path / "a.npz")
    loaded = ContaminationIndex.load(tmp_path / "a.npz")
    loaded.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert loaded.settings == first.settings and loaded.names == first.names
    assert loaded.tasks == ("maths", "reading")
    text = PASSAGE[10:60] + noise(0, 10) + QUESTION
    assert loaded.hits(text) == first.hits(text) and len(first.hits(text)) == 2


def test_hits_are_cut_out_with_their_margin():
    found = index(margin=20, least_left=50)
    before, behind = noise(0, 300), noise(1, 60)
    text = before + QUESTION + behind
    assert without_hits(text, found.hits(text), found.settings) == before[:280]
    assert without_hits(before, [], found.settings) == before
    assert without_hits(QUESTION, found.hits(QUESTION), found.settings) == ""
    both = before + QUESTION + noise(2, 10) + QUESTION + noise(3, 100)
    left = without_hits(both, found.hits(both), found.settings)
    assert left == before[:280] + "\n\n" + both[-81:]
