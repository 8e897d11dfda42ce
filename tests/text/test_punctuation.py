"""Chinese punctuation between Chinese characters, whole or piece by piece, and nothing else touched."""

from __future__ import annotations

import random

import pytest

from pangu_alpha.text.punctuation import ChinesePunctuation, chinese_punctuation


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("你好,世界!好吗?好;好:好(笑)", "你好，世界！好吗？好；好：好（笑）"),
        ("他说:“你好!”(笑),走了。", "他说：“你好！”（笑），走了。"),
        ("真的?!", "真的？！"),
        ("《三国》(演义),【甲】:乙", "《三国》（演义），【甲】：乙"),
        ("我用Python,你用C", "我用Python，你用C"),  # before a Han character as well as after one
        ("增长50%,同比;另,《乙》", "增长50%，同比；另，《乙》"),
        ("好,English, yes", "好，English, yes"),
        ("㐀,𠀀,々,〇,x", "㐀，𠀀，々，〇，x"),
        # numbers, English, code of several kinds
        ("3,000人,12:30,3:2", "3,000人，12:30,3:2"),
        ("时间:12:30", "时间：12:30"),
        ("Hello, world! (yes); no?", "Hello, world! (yes); no?"),
        ('{"姓名":"张三","年龄":3}', '{"姓名":"张三","年龄":3}'),
        ("用`甲,乙`,好", "用`甲,乙`，好"),
        ("``甲,`乙``,好\n`甲,\n乙,好", "``甲,`乙``，好\n`甲,\n乙，好"),
        ("```\n甲,`乙,\n```\n甲,乙", "```\n甲,`乙,\n```\n甲，乙"),
        ("路径:/etc 盘:\\x 好:好", "路径:/etc 盘:\\x 好：好"),
        # addresses
        ("见http://a.b/c?d=1,2:3(4),好", "见http://a.b/c?d=1,2:3(4)，好"),
        ("见https://a.org/三国:演义,续 好,好", "见https://a.org/三国:演义,续 好，好"),
        ("上www.a.com查,好", "上www.a.com查，好"),
        ("上WWW.a.com。好,好", "上WWW.a.com。好，好"),
        # parentheses are equal in pairs
        ("中国(China),f(x)=甲(f(x),y)", "中国（China），f(x)=甲（f(x),y）"),
        ("GDP(总值)和f(2)好", "GDP（总值）和f(2)好"),
        ("甲(http://a.b),乙", "甲（http://a.b），乙"),
        ("(http://a.b),乙", "(http://a.b)，乙"),
        ("[链接](a),好", "[链接](a)，好"),
        ("1)甲\n2)b 乙)", "1）甲\n2)b 乙）"),
        # dots: … is folded, 。 is not
        ("等等......他...好", "等等……他…好"),
        ("等.等..等....等.......等", "等.等..等....等.......等"),
        ("wait... 3.5 好。", "wait... 3.5 好。"),
        ("好...", "好…"),
        # full-width marks in the text stay
        ("你，好。（甲)乙", "你，好。（甲）乙"),
        ("", ""),
    ],
)
def test_what_is_written(text, written):
    assert chinese_punctuation(text) == written
    assert chinese_punctuation(written) == written


@pytest.mark.parametrize(
    ("prompt", "text", "written"),
    [
        ("你好", ",世界", "，世界"),
        ("Hello", ", world", ", world"),
        ("中国（China", "),好", "），好"),
        ("中国(China", "),好", ")，好"),  # the prompt stands as it is, and so does its pair
        ("他说“好”", ",走了", "，走了"),
        ("见http://a.b/", "?q=1,2 好,好", "?q=1,2 好，好"),
        ("写`甲", ",乙`,丙", ",乙`，丙"),
        ("等..", ".好", ".好"),
        ("3", ",000,好", ",000，好"),
        ("甲,", "乙,丙", "乙，丙"),
    ],
)
def test_a_prompt_is_what_stands_before(prompt, text, written):
    assert chinese_punctuation(text, prompt) == written


def feed(pieces, prompt=""):
    writer = ChinesePunctuation(prompt)
    return "".join([*map(writer.feed, pieces), writer.flush()])


def test_pieces_give_the_text_of_the_whole():
    draw = random.Random(1)
    alphabet = "中文天a1 \n,,::??!!;;(())....```“”‘—《》。，（）/\\[]wwwh"
    words = [*alphabet, "http://", "www.", "...", "......", "```", "中文", "3,000"]
    for _ in range(3000):
        text = "".join(draw.choices(words, k=draw.randint(0, 24)))
        prompt = "".join(draw.choices(words, k=draw.randint(0, 6)))
        whole = chinese_punctuation(text, prompt)
        assert feed(text, prompt) == whole, (prompt, text)
        cuts = sorted(draw.choices(range(len(text) + 1), k=draw.randint(0, 6)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert feed(pieces, prompt) == whole, (prompt, pieces)


def test_no_other_character_changes():
    draw = random.Random(2)
    fold = str.maketrans("，：？！；（）", ",:?!;()")
    for _ in range(2000):
        text = "".join(draw.choices("中文天a1 \n,:?!;()`“”。/[w", k=draw.randint(0, 20)))
        assert chinese_punctuation(text).translate(fold) == text


def test_text_is_given_out_as_soon_as_it_is_certain():
    writer = ChinesePunctuation()
    steps = (
        ("你", "你"),
        ("好,", "好"),
        ("世", "，世"),
        ("!“", ""),
        ("甲", "！“甲"),
        ("..", ""),
        (".乙", "…乙"),
    )
    for piece, given in steps:
        assert writer.feed(piece) == given
    assert writer.feed(",“‘") == "" and writer.feed("”") == "，“‘”"  # quotation marks are not waited for long
    assert writer.feed("甲!") == "甲" and writer.flush() == "！"


def test_what_the_vocabulary_folds_comes_back(released):
    """The marks of ordinary prose survive the way through the released vocabulary and back."""
    text = "他说：“你好，世界！”（笑）共3,000人；12:30开始……真的？见https://a.org/b?c=1,2，谢谢。"
    folded = released.decode(released.encode(text))
    assert folded == "他说:“你好,世界!”(笑)共3,000人;12:30开始......真的?见https://a.org/b?c=1,2,谢谢。"
    assert chinese_punctuation(folded) == text
