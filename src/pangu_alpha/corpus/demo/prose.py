"""Makes Chinese prose that says nothing: it passes every rule, and no two pages agree."""

from __future__ import annotations

import random

_WHO = [
    "老师",
    "学生",
    "农民",
    "工人",
    "医生",
    "邻居",
    "孩子",
    "母亲",
    "父亲",
    "朋友",
    "作家",
    "船长",
    "木匠",
    "画家",
    "商人",
    "记者",
    "司机",
    "渔夫",
    "村长",
    "祖母",
]
_DID = [
    "看见",
    "喜欢",
    "记得",
    "忘记",
    "修好",
    "带走",
    "送来",
    "打开",
    "找到",
    "留下",
    "谈起",
    "画出",
    "种下",
    "守着",
    "搬动",
    "等待",
    "赞美",
    "研究",
    "描写",
    "收藏",
]
_WHAT = [
    "房子",
    "河流",
    "山路",
    "花园",
    "书信",
    "旧船",
    "钟声",
    "院墙",
    "灯火",
    "麦田",
    "石桥",
    "竹林",
    "码头",
    "集市",
    "雨水",
    "雪地",
    "远方",
    "故事",
    "地图",
    "窗户",
]
_WHEN = [
    "清晨",
    "傍晚",
    "春天",
    "夏天",
    "秋天",
    "冬天",
    "去年",
    "后来",
    "那时",
    "从前",
    "不久",
    "节日",
    "夜里",
    "午后",
    "周末",
    "雨后",
    "黎明",
    "如今",
    "假期",
    "当天",
]
_LIKE = [
    "安静的",
    "古老的",
    "明亮的",
    "温暖的",
    "漫长的",
    "陌生的",
    "高大的",
    "细小的",
    "美丽的",
    "简单的",
    "沉重的",
    "新鲜的",
    "柔软的",
    "遥远的",
]
_FORMS = (
    "{when}，{who}在{like}{what}旁边{did}了{what2}。",
    "{who}和{who2}都{did}那{like}{what}，也{did2}它的{what2}。",
    "{when}的时候，{like}{what}里来了一位{who}，他{did}了{what2}。",
    "为什么{who}总是{did}{what}呢？因为{when}有{like}{what2}。",
    "{like}{what}不在这里，{who}说，{when}它就被{who2}{did}了！",
)


def prose(seed: int, characters: int, paragraph: int = 120) -> str:
    """At least so many characters of prose in paragraphs; the same for the same seed.

    Args:
        paragraph: Characters of a paragraph, about.
    """
    dice = random.Random(seed)
    paragraphs, length = [], 0
    while length < characters:
        sentences: list[str] = []
        while sum(map(len, sentences)) < paragraph:
            sentences.append(_sentence(dice))
        paragraphs.append("".join(sentences))
        length += len(paragraphs[-1])
    return "\n".join(paragraphs)


def _sentence(dice: random.Random) -> str:
    return dice.choice(_FORMS).format(
        when=dice.choice(_WHEN), who=dice.choice(_WHO), who2=dice.choice(_WHO), did=dice.choice(_DID),
        did2=dice.choice(_DID), what=dice.choice(_WHAT), what2=dice.choice(_WHAT), like=dice.choice(_LIKE),
    )  # fmt: skip


def page(title: str, text: str, menu: bool = True, charset: str = "") -> str:
    """An HTML page around a text, with a menu and a footer as sites have them."""
    meta = f'<meta http-equiv="Content-Type" content="text/html; charset={charset}">' if charset else ""
    top = '<nav><ul><li><a href="/">首页</a></li><li><a href="/news">新闻</a></li></ul></nav>' if menu else ""
    foot = "<footer><p>版权所有 某某网站</p></footer>" if menu else ""
    body = "".join(f"<p>{paragraph}</p>\n" for paragraph in text.split("\n"))
    return (
        f"<!DOCTYPE html><html><head>{meta}<title>{title}</title></head><body>{top}"
        f"<article><h1>{title}</h1>\n{body}</article>{foot}</body></html>"
    )
