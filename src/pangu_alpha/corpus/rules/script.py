"""Traditional to simplified Chinese by OpenCC, only where a text has characters that are traditional alone.

Conversion is not harmless to simplified text: 乾, 著, 於 and others belong to both scripts.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

# OpenCC's t2s leaves 著 in 看著, and its tw2s makes 着 of it everywhere but in a few words. These contexts
# are about writing, or are words in which 著 stays in simplified Chinese.
_BEFORE = "編编原合專专論论巨遺遗譯译拙卓昭顯显土名新舊旧大 "
_BEHIND = "作名稱称述書书者錄录有《"
_WRITTEN = re.compile(f"(?<=[{_BEFORE}])著|著(?=[{_BEHIND}])")


@dataclass(frozen=True)
class Scripts:
    """Characters that belong to one script alone.

    Args:
        traditional: Matches one that OpenCC simplifies and GB 2312 lacks.
        simplified: Matches one that OpenCC makes traditional and Big5 lacks.
    """

    traditional: re.Pattern[str]
    simplified: re.Pattern[str]


@functools.cache
def _converter(name: str) -> Any:
    import opencc

    return opencc.OpenCC(name)


@functools.cache
def scripts() -> Scripts:
    """The two sets, made from OpenCC's own tables; the run's manifest holds the version."""
    han = [chr(code) for first, last in ((0x3400, 0x4DC0), (0x4E00, 0xA000)) for code in range(first, last)]
    return Scripts(_changed(han, "t2s", "gb2312"), _changed(han, "s2t", "big5"))


def _changed(han: list[str], conversion: str, encoding: str) -> re.Pattern[str]:
    results = _converter(conversion).convert("\n".join(han)).split("\n")
    changed = [old for old, new in zip(han, results, strict=True) if old != new]
    return re.compile(f"[{''.join(each for each in changed if not _encodable(each, encoding))}]")


def _encodable(character: str, encoding: str) -> bool:
    return bool(character.encode(encoding, "ignore"))


def simplified(text: str) -> tuple[str, bool]:
    """Returns a text in simplified Chinese, and whether it had traditional characters.

    A text with more characters that are traditional alone than simplified alone is converted as a whole; in
    any other, only the lines with such characters are: it may quote, and its own 乾 and 著 are right.
    """
    both = scripts()
    if both.traditional.search(text) is None:
        return text, False
    if len(both.traditional.findall(text)) > len(both.simplified.findall(text)):
        return _convert(text), True
    lines = text.split("\n")
    return "\n".join(_convert(line) if both.traditional.search(line) else line for line in lines), True


def _convert(text: str) -> str:
    converted: str = _converter("tw2s").convert(text)
    if "著" not in text or len(converted) != len(text):
        return converted
    characters = list(converted)
    for found in _WRITTEN.finditer(text):
        characters[found.start()] = "著"
    return "".join(characters)
