from __future__ import annotations

import logging
import os
import random
import sys

import jieba
import pytest

from pangu_alpha.text import segment
from pangu_alpha.text.corpora import default_directory, documents, fetch_all, find_corpus
from pangu_alpha.text.segment import absent_character, cut, cut_joined

PROSE = """滚滚长江东逝水，浪花淘尽英雄。是非成败转头空。
话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。及秦灭之后，楚、汉分争，又并入于汉。
第一条 为了保护专利权人的合法权益，鼓励发明创造，推动发明创造的应用，制定本法。
１２月３１日，江泽民发表１９９８年新年讲话《迈向充满希望的新世纪》。
这款iPhone6s手机，屏幕4.7英寸，3.5-4.0GHz，打8.5折，好评99.5%！！！www.example.com/a_b-c?x=1&y=2
我用C++和C#写过AT&T的B超、卡拉OK、T恤、A股、3Q、c++11和U盘程序，30-40人，50%-60%，1.2.3.4，a+b=c。
小明硕士毕业于中国科学院计算所，后在日本京都大学深造，他来到了网易杭研大厦。
乒乓球拍卖完了，南京市长江大桥欢迎你，工信处女干事每月经过下属科室都要亲口交代24口交换机等技术性器件的安装工作。"""

POOLS = {
    "ascii runs": "abcXYZ019+#&._%- ",
    "ascii": [chr(code) for code in range(128)],
    "full width": "Ａｂ１２．％－　，。！？＜＞",
    "white": [" ", "\t", "\r", "\n", "\r\n", "\u3000", "\xa0", "\u2028", "\x85", "\0", "\x1c", "\u200b"],
    "rare": [
        chr(c)
        for first in (0x9FCE, 0x3400, 0xF900, 0x20000, 0x2A700, 0x30000)
        for c in range(first, first + 16)
    ],
    "scripts": "〇々アあ가⺀⼀ñßжעاกह",
    "surrogates": "\ud800\udfff\ud83d",
    "emoji": "😀👍🏽🇨🇳❤️",
    "marks": "▁▂▃\ue000\ue001①²½٣०",
    "han": [chr(code) for code in range(0x4E00, 0x9FD6, 7)],
    "words": [
        "C++",
        "c#",
        "AT&T",
        "T恤",
        "B超",
        "卡拉OK",
        "3.14",
        "50%",
        "30-40",
        "A股",
        "1998年",
        "<eod>",
        "中国",
    ],
}


@pytest.fixture(scope="module", autouse=True)
def _quiet_jieba() -> None:
    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()


def reference(text: str) -> list[str]:
    return list(jieba.cut(text, cut_all=False, HMM=True))


def random_text(draw: random.Random) -> str:
    parts = []
    for _ in range(draw.randint(1, 12)):
        if draw.random() < 0.4:
            start = draw.randrange(len(PROSE))
            parts.append(PROSE[start : start + draw.randint(1, 12)])
        else:
            pool = draw.choice(list(POOLS.values()))
            parts.append("".join(draw.choice(pool) for _ in range(draw.randint(1, 5))))
    return "".join(parts)


def test_prose_is_cut_as_jieba_cuts_it():
    assert cut(PROSE) == reference(PROSE)
    for line in PROSE.splitlines():
        assert cut(line) == reference(line)


def test_random_texts_are_cut_as_jieba_cuts_them():
    draw = random.Random(0)
    for _ in range(4000):
        text = random_text(draw)
        assert cut(text) == reference(text), repr(text)


def test_every_character_beside_han_and_letters_is_cut_as_jieba_cuts_it():
    codes = [
        *range(0xD800, 0xF900, 97),
        *range(0, 0x3000, 7),
        *range(0x9FA0, 0xA010),
        *range(0x10000, 0x32000, 977),
    ]
    for code in codes:
        text = f"中a{chr(code) * 2}a国"
        assert cut(text) == reference(text), hex(code)


def test_nothing_gives_no_words():
    assert cut("") == []
    assert cut_joined("", " ") == ""


def test_joined_form_equals_the_list():
    text = PROSE.replace(" ", "")
    assert cut_joined(text, " ").split(" ") == cut(text)


def test_absent_character_is_absent_or_refused():
    assert absent_character("\ue000\ue002") == "\ue001"
    with pytest.raises(ValueError, match="private-use"):
        absent_character("".join(map(chr, segment.PRIVATE_USE)))


def test_words_added_to_the_shared_dictionary_do_not_move_the_cuts():
    import rjieba

    text = "鑫淼焱垚犇测试词语"
    before = cut(text)
    rjieba.add_word("垚犇测试", 1000, "n")
    assert cut(text) == before


def test_without_rjieba_jieba_is_used_and_said_once(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "rjieba", None)
    segment._cutter.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "pangu_alpha"):
            assert cut(PROSE) == reference(PROSE)
            assert cut("㐀㐀中国30-40") == reference("㐀㐀中国30-40")
        assert [record.name for record in caplog.records] == ["pangu_alpha.text.segment"]
    finally:
        segment._cutter.cache_clear()


@pytest.mark.corpus
def test_thirty_thousand_lines_of_the_named_corpora_are_cut_as_jieba_cuts_them():
    names = ("sanguo", "peoples_daily", "reviews_positive", "reviews_negative", "statutes", "idioms")
    there = all((default_directory() / find_corpus(name).file).is_file() for name in names)
    if not there and "PANGU_CORPORA" not in os.environ:
        pytest.skip("set PANGU_CORPORA to a directory to fetch the corpora into, or fetch them beforehand")
    paths = fetch_all(names)
    checked = 0
    for name, path in paths.items():
        lines = {line: None for text in documents(name, path) for line in text.split("\n") if line}
        sample = random.Random(name).sample(list(lines), min(6000, len(lines)))
        different = [line for line in sample if cut(line) != reference(line)]
        assert not different, (name, different[:3])
        checked += len(sample)
    assert checked >= 30_000
