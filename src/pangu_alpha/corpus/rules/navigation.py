"""Tells lines of navigation from lines of prose: menus, bread crumbs, page numbers, copyright notices."""

from __future__ import annotations

import re
from collections.abc import Sequence

_RUN = 8  # so many short lines without punctuation in a row are a menu or a list of links
_SHORT = 8  # characters
_CELL = 12  # characters of an entry in a line of entries
_PUNCTUATION = re.compile("[，。！？；：、…“”《》,!?;:]")
_SENTENCE = re.compile("[，。！？；…]")
_SEPARATOR = re.compile(r"\s*(?:[|｜/／>＞»›·•\-–—]|\s{2,}|\[|\]|【|】)\s*|\s+")
_PAGES = re.compile(
    # whole runs of digits and dots only: else a long run could be cut in exponentially many ways
    r"(?=.*[页<>«»‹›])(?:(?:首页|上一页|下一页|末页|尾页|共?第?(?<!\d)\d+(?!\d)页?|(?<!\.)\.{2,}(?!\.)|…|[<>«»‹›])"
    r"[\s|/]*){2,}|共?第?\d+页[\s|/]*"
)
_PHRASES = (
    "首页", "网站首页", "返回首页", "回到首页", "返回顶部", "回到顶部", "设为首页", "加入收藏",
    "收藏本站", "上一页", "下一页", "上一篇", "下一篇", "末页", "尾页", "更多",
    "更多>>", "查看更多", "阅读全文", "点击阅读全文", "登录", "注册", "登录注册", "免费注册",
    "退出", "忘记密码", "联系我们", "关于我们", "网站地图", "帮助中心", "友情链接", "意见反馈",
    "隐私政策", "法律声明", "免责声明", "广告服务", "诚聘英才", "手机版", "打印本页", "关闭窗口",
    "分享到", "我要评论", "发表评论", "举报", "导航", "菜单", "搜索", "站内搜索",
    "当前位置", "您的位置", "目录", "返回", "返回列表", "English", "繁體中文", "繁体中文",
    "简体中文",
)  # fmt: skip
_PHRASE = re.compile(f"(?:{'|'.join(map(re.escape, sorted(_PHRASES, key=len, reverse=True)))})[:：>》]*")
_NOTICE = re.compile(
    r"(?i)(?:copyright|版权所有|©|\(c\)\s*(?:copyright|(?:19|20)\d\d)|all rights reserved).{0,80}"
    r"|.{0,30}[\u4e00-\u9fff]ICP[备证]\s*\d+号.{0,30}|.{0,6}公网安备\s*\d+号?"
)
_LEADS = re.compile("(?:您?(?:现在|当前)?的?(?:所在)?位置|当前位置)\\s*[:：].{0,80}")


def is_navigation(line: str) -> bool:
    """Whether a line by itself is navigation; lines with the punctuation of a sentence are not.

    It is one of the known phrases, a row of page numbers, a notice of copyright or registration, bread crumbs
    after 当前位置, or at least three short entries between separators.
    """
    if _PHRASE.fullmatch(line) or _PAGES.fullmatch(line) or _LEADS.fullmatch(line):
        return True
    if _SENTENCE.search(line):
        return False
    return _NOTICE.fullmatch(line) is not None or _is_row(line)


def _is_row(line: str) -> bool:
    cells = [cell for cell in _SEPARATOR.split(line) if cell]
    if len(cells) < 3 or not any(mark in line for mark in "|｜>＞»›·•【["):
        words = sum(_PHRASE.fullmatch(cell) is not None for cell in cells)
        return len(cells) > 1 and words * 2 >= len(cells)
    return max(map(len, cells)) <= _CELL


def navigation(lines: Sequence[str]) -> list[bool]:
    """Whether each line is navigation, by itself or as part of a run of short lines without punctuation."""
    found = [is_navigation(line) for line in lines]
    start = 0
    short = [len(line) <= _SHORT and not _PUNCTUATION.search(line) for line in lines]
    for place in range(len(lines) + 1):
        if place < len(lines) and (short[place] or found[place]):
            continue
        if place - start >= _RUN:
            found[start:place] = [True] * (place - start)
        start = place + 1
    return found
