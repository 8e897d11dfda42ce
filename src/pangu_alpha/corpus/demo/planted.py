"""Planted pages with known answers: every kind of page that a crawl holds, and what must become of it."""

from __future__ import annotations

import functools
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pangu_alpha.corpus.demo.archive import chunked, http_response
from pangu_alpha.corpus.demo.prose import page, prose

KEPT = "kept"
HOST = "http://planted.example"
_COPIES = ("exact_duplicate", "near_duplicate")
# Right check digits, but nobody's: the ID number is the standard's own example.
PERSONAL = ("11010519491231002X", "13800138000", "6222021234567890128", "someone@mail.example.cn")
_JAPANESE = "これは日本語のページです。今日の天気はとても良いので、公園まで散歩に行きました。"
_ENGLISH = "This page is written in English only. It tells of rivers, of bridges and of gardens. "
_COOKIES = (
    "本网站使用必要的小型文本文件来保证网站的正常运行，并在征得您的同意之后使用其他文件来分析访问"
    "情况。您可以随时在设置页面里更改您的选择，也可以撤回您的同意。如果您继续浏览本网站的内容，就"
    "表示您已经阅读并且理解了我们关于这些文件的说明，其中包括它们的用途、保存的期限以及如何删除它"
    "们的方法。我们不会把这些信息提供给与本网站无关的第三方。"
)


@dataclass(frozen=True)
class Planted:
    """One planted record.

    Args:
        kind: What it is, such as "gb18030 without charset".
        content: The HTTP response.
        fates: What may become of it: "kept", or reasons of a drop.
    """

    kind: str
    url: str
    content: bytes
    fates: tuple[str, ...]


def planted(small: bool = False) -> Iterator[Planted]:
    """All planted records in order. Of equal pages the first is kept.

    Args:
        small: A short book and few cookie notices, for tests.
    """
    rows = (*_plain(), *_charsets(), *_bodies(), *_unfit(), *_copies(), *_bulk(small))
    for number, (kind, content, fates) in enumerate(rows, 1):
        yield Planted(kind, f"{HOST}/{number}", content, fates)


_Row = tuple[str, bytes, tuple[str, ...]]


def _html(text: str, charset: str = "utf-8", header: str | None = None, meta: str = "") -> bytes:
    """A response in an encoding; the header names the same one unless `header` names another or is empty."""
    named = charset if header is None else header
    type_ = f"text/html; charset={named}" if named else "text/html"
    html = page("一个标题", text, charset=meta)
    html = traditional(html) if charset.startswith("big5") else html
    return http_response(html.encode(charset), content_type=type_)


def traditional(text: str) -> str:
    """Simplified Chinese to traditional as it is written in Taiwan, which Big5 holds."""
    converted: str = _converter().convert(text)
    return converted


@functools.cache
def _converter() -> Any:
    import opencc

    return opencc.OpenCC("s2tw")


def _plain() -> Iterator[_Row]:
    for number in range(6):
        yield "prose", _html(prose(number, 600)), (KEPT,)
    for number in range(10, 13):
        yield "traditional", _html(traditional(prose(number, 600))), (KEPT,)
    line = "联系人的号码是{}，手机是{}，账户是{}，信箱是{}。"
    yield "personal data", _html(f"{prose(20, 400)}\n{line.format(*PERSONAL)}"), (KEPT,)


def _charsets() -> Iterator[_Row]:
    for number, (name, header, meta) in enumerate(
        (("right", "gb2312", ""), ("wrong", "big5", "gb2312"), ("missing", "", ""), ("in meta", "", "gb2312"))
    ):
        yield f"gb18030 {name}", _html(prose(30 + number, 500), "gb18030", header, meta), (KEPT,)
    for number, (name, header) in enumerate((("right", "big5"), ("wrong", "gb2312"), ("missing", ""))):
        yield f"big5 {name}", _html(prose(40 + number, 500), "big5hkscs", header), (KEPT,)
    yield "utf-8 wrong", _html(prose(50, 500), header="iso-8859-1"), (KEPT,)
    garbled = prose(51, 500).encode("utf-8").decode("gb18030", "ignore")
    yield "garbled before", _html(garbled), ("bad_charset",)
    noise = bytes(range(0x80, 0x100)) * 40
    yield "no encoding", http_response(b"<html><body><p>" + noise), ("bad_charset",)


def _bodies() -> Iterator[_Row]:
    def made(number: int) -> bytes:
        return page("一个标题", prose(number, 500)).encode("utf-8")

    packed = {"Content-Encoding": "gzip"}
    yield "gzip body", http_response(gzip.compress(made(60), mtime=0), headers=packed), (KEPT,)
    yield "chunked body", http_response(chunked(made(61)), headers={"Transfer-Encoding": "chunked"}), (KEPT,)
    both = {**packed, "Transfer-Encoding": "chunked"}
    yield "chunked gzip", http_response(chunked(gzip.compress(made(62), mtime=0)), headers=both), (KEPT,)
    cut = gzip.compress(made(63), mtime=0)[:-300]
    yield "cut gzip body", http_response(cut, headers=packed), ("broken_record",)
    moved = {"Location": f"{HOST}/1"}
    yield "301", http_response(made(64), "301 Moved Permanently", headers=moved), ("not_2xx",)
    yield "404", http_response(made(65), "404 Not Found"), ("not_2xx",)
    yield "image", http_response(b"\x89PNG\r\n\x1a\n" + bytes(200), content_type="image/png"), ("not_html",)
    yield "empty body", http_response(b""), ("no_text",)
    deep = b"<div>" * 20_000 + prose(66, 300).encode("utf-8")
    yield "deep nesting", http_response(deep), ("too_large",)


def _unfit() -> Iterator[_Row]:
    title = page("只有标题的页面", "").encode("utf-8")
    yield "title only", http_response(title), ("no_text", "body_characters")
    menu = "".join(
        f"<li><a href=/{n}>{word}</a></li>" for n, word in enumerate(["首页", "登录", "注册", "更多", "返回"])
    )
    yield "navigation only", http_response(f"<html><body><ul>{menu}</ul></body></html>".encode()), (
        "no_text", "body_characters")  # fmt: skip
    yield "short", _html("这一页太短了。他们很快就看完了它，然后走了。"), ("characters",)
    yield (
        "advertisement",
        _html(f"{prose(70, 400)}\n限时秒杀，全国包邮，马上行动吧。"),
        ("advertisement_words",),
    )
    yield "Japanese", _html(_JAPANESE * 8), ("kana_share",)
    yield "English", _html(_ENGLISH * 8), ("han_share",)
    words = "他买了苹果、香蕉、西瓜和白菜。"
    yield "four listed words", _html(f"{prose(71, 400)}\n{words}"), ("sensitive_words",)
    yield "exceptions", _html(f"{prose(72, 400)}\n苹果树下有茶几，苹果树上有鸟，茶几上有书。"), (KEPT,)


def _copies() -> Iterator[_Row]:
    text = prose(80, 800)
    yield "original", _html(text), (KEPT,)
    yield "another address", _html(text), ("exact_duplicate",)
    printed = http_response(
        page("一个标题", text, menu=False).encode("utf-8"), content_type="text/html; charset=utf-8"
    )
    yield "print version", printed, _COPIES
    yield "as traditional", _html(traditional(text)), _COPIES
    yield "one sentence more", _html(f"{text}\n{prose(81, 20, 20)}"), ("near_duplicate",)


def _bulk(small: bool) -> Iterator[_Row]:
    yield "book", _html(prose(90, 60_000 if small else 1_700_000)), (KEPT,)
    notice = _html(_COOKIES)
    yield "cookie notice", notice, (KEPT,)
    for _ in range(20 if small else 9_999):
        yield "cookie notice again", notice, ("exact_duplicate",)
