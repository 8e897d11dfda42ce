from __future__ import annotations

import dataclasses
import random
import re

import numpy as np
import pytest

from pangu_alpha.corpus.rules import Normalising, normalise, profile
from pangu_alpha.corpus.rules import code_points as cp
from pangu_alpha.corpus.rules.normalise import SPECIAL
from pangu_alpha.text.characters import HAN, INVISIBLE, LINE_END, NOT_HAN, SPACES

LONG = "这一段话足够长，重复出现时应当只留下第一次。"
OFF = profile("none").normalise


def only(**settings):
    return dataclasses.replace(OFF, **settings)


@pytest.mark.parametrize(
    ("text", "setting", "out", "removed"),
    [
        ("\ufeff汉\u200b朝\0天", "invisible", "汉朝天", {"invisible": 3}),
        ("二○○八年★你好😀\ue000─→①", "special", "二○○八年你好→①", {"special": 4}),
        (" 话说　 天下 \n\t大势", "spaces", "话说 天下\n大势", {"spaces": 4}),
        ("\n甲\n\n\n乙\n", "blank_lines", "甲\n乙", {"blank_lines": 4}),
        (f"{LONG}\n又\n{LONG}\n又", "paragraphs", f"{LONG}\n又\n又", {"paragraphs": len(LONG) + 1}),
        ("首页 | 新闻 | 体育\n正文在这里。", "navigation", "正文在这里。", {"navigation": 13}),
        ("首页\n联系我们", "navigation", "", {"navigation": 7}),
        ("甲\r\n乙\u2028丙", "spaces", "甲\n乙\n丙", {"line_ends": 1}),
    ],
)
def test_each_setting_removes_and_counts_its_characters(text, setting, out, removed):
    found = normalise(text, only(**{setting: True}))
    assert (found.text, found.removed) == (out, removed)
    assert len(text) == len(out) + sum(removed.values())


def test_nothing_is_changed_by_the_profile_none():
    text = "\ufeff 首页\n\n漢字★ 13812345678 \n"
    assert normalise(text, OFF).text == text


def test_every_character_is_accounted_for_in_random_texts():
    dice = random.Random(2)
    pieces = [*"汉漢著乾 \t\u3000\n\n\r\x0b\u2028\0\u200b★😀。，|", LONG, "首页", "更多", "\r\n",
              "13812345678",
              "a@b.cn", "短行", "\n短行\n"]  # fmt: skip
    names = [field.name for field in dataclasses.fields(Normalising) if field.type == "bool"]
    for _ in range(400):
        text = "".join(dice.choices(pieces, k=dice.randint(0, 60)))
        settings = dataclasses.replace(Normalising(), **{name: dice.random() < 0.7 for name in names})
        found = normalise(text, settings)  # asserts the sum itself
        assert len(text) == len(found.text) + sum(found.removed.values())
        again = normalise(found.text, settings)
        if settings.invisible and settings.spaces and settings.blank_lines and not settings.navigation:
            assert again.text == found.text  # a second time changes nothing


def test_the_table_of_classes_agrees_with_the_regular_expressions():
    """The expressions do the work and the table tells whether there is any, for all of Unicode."""
    table = cp.class_table()
    everything = "".join(map(chr, range(0x110000)))
    for pattern, classes in (
        (INVISIBLE, [cp.INVISIBLE]),
        (SPECIAL, [cp.SPECIAL]),
        (SPACES, [cp.SPACE]),
        (LINE_END, [cp.LINE_BREAK]),
        (re.compile(f"[{HAN}]"), [cp.COMMON_HAN, cp.RARE_HAN]),
    ):
        found = {ord(each) for match in pattern.findall(everything) for each in match}
        assert found - {ord("\n")} == set(np.flatnonzero(np.isin(table, classes)).tolist())
    assert not re.search(f"[{HAN}]", "".join(NOT_HAN.findall(everything)))


@pytest.mark.parametrize(
    "line",
    ["首页", "更多>>", "上一页 1 2 3 下一页", "Copyright © 2020 某公司 All Rights Reserved",
     "京ICP备12345678号",
     "当前位置：首页 > 新闻 > 国内", "首页 | 新闻 | 体育 | 娱乐", "登录 注册", "5页", "23页",
     "(C) 2019 某公司",
     "【返回顶部】 【打印本页】 【关闭窗口】"],
)  # fmt: skip
def test_lines_of_navigation_go(line):
    assert normalise(f"{line}\n{LONG}", only(navigation=True)).text == LONG


@pytest.mark.parametrize(
    "line",
    ["新闻学是一门学科", "他回到首页，又看了一遍。", "床前明月光", "A/B/C 三种方案各有优劣，应当分别讨论。",
     "1 2 3",
     "鲁迅 著", "第一章 总则", "更多的人来到这里", "(C) 广州", "第三节" + "." * 38 + " 12页 目录"],
)  # fmt: skip
def test_lines_of_text_stay(line):
    assert normalise(f"{line}\n{LONG}", only(navigation=True)).text == f"{line}\n{LONG}"


def test_a_run_of_short_lines_is_a_menu_and_a_poem_is_none():
    menu = "\n".join(f"栏目{number}" for number in "一二三四五六七八九十")
    assert normalise(f"{menu}\n{LONG}", only(navigation=True)).text == LONG
    poem = "床前明月光，\n疑是地上霜。\n举头望明月，\n低头思故乡。"
    assert normalise("\n".join([poem] * 3), only(navigation=True)).text == "\n".join([poem] * 3)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("這裡有人看著我", "这里有人看着我"),
        ("乾隆年間，天氣乾燥，他們喝乾了酒", "乾隆年间，天气干燥，他们喝干了酒"),
        ("呼吸這裡的空氣，猛烈的風", "呼吸这里的空气，猛烈的风"),
        ("這本原著的編著者寫著一本名著", "这本原著的编著者写着一本名著"),
        ("頭髮與發展，皇后在後面", "头发与发展，皇后在后面"),
    ],
)
def test_traditional_becomes_simplified(before, after):
    found = normalise(before, only(simplify=True))
    assert (found.text, found.converted) == (after, True)


@pytest.mark.parametrize("text", ["乾隆皇帝著书立说", "他看著我", "於是", "呼吸猛烈", "瞭望台", "藉贯"])
def test_simplified_text_is_never_touched(text):
    found = normalise(text, only(simplify=True))
    assert (found.text, found.converted) == (text, False)


def test_in_a_simplified_text_only_the_lines_with_traditional_characters_are_converted():
    text = "乾隆年间的著作说：这样写着。\n國\n这里还有很多简体字，对吗？"
    assert normalise(text, only(simplify=True)).text == text.replace("國", "国")
