"""From HTML to its main text, with what was cut kept apart; refuses pages that would take for ever."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from pangu_alpha.config.corpus import Reading

# How elements begin that hold no others, or that end by themselves where the next one begins.
_FLAT = ("br>", "br ", "br/", "hr>", "hr ", "hr/", "img", "inp", "met", "lin", "wbr", "sou", "col", "are",
         "bas", "emb", "par", "tra", "p>", "p ", "li>", "li ", "td>", "td ", "th>", "th ", "tr>", "tr ",
         "dt>", "dt ", "dd>", "dd ", "opt")  # fmt: skip
_RAW = re.compile(r"(?is)<(script|style)\b.*?(?:</\1|\Z)")  # no elements, although i<n looks like one
_TEXT: dict[str, Any] = {"preserve_formatting": True, "list_bullets": False, "alt_texts": False}
_SPACE = re.compile(r"\s+")


class HtmlError(ValueError):
    """A page that is not parsed, because its elements are too many or nested too deeply."""


@dataclass(frozen=True)
class Extracted:
    """The texts of a page; `boilerplate` are the lines that the extractor cut."""

    title: str
    text: str
    boilerplate: str


def extract(html: str, reading: Reading) -> Extracted:
    """Takes the main text out of a page.

    Raises:
        HtmlError: The page has more tags than allowed, or nests them deeper.
    """
    refuse_bombs(html, reading.most_tags, reading.deepest_html)
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(html)
    title = _SPACE.sub(" ", tree.title or "").strip()
    whole = extract_plain_text(tree, main_content=False, **_TEXT)
    main = _trafilatura(html) if reading.extractor == "trafilatura" else extract_plain_text(
        tree, main_content=True, **_TEXT
    )  # fmt: skip
    return Extracted(title, main.strip(), _difference(whole, main))


def refuse_bombs(html: str, most_tags: int, deepest: int) -> None:
    """Refuses a page by the number of its tags and a bound of their depth, before it is parsed.

    The time of parsers grows with the square of the depth: 100,000 nested elements take minutes.

    Raises:
        HtmlError: See `extract`.
    """
    tags = html.count("<")
    if tags > most_tags:
        raise HtmlError(f"{tags:,} tags; the limit is {most_tags:,}")
    if tags > deepest and (deep := nesting(_RAW.sub("", html))) > deepest:
        raise HtmlError(f"elements nested {deep:,} deep; the limit is {deepest:,}")


def nesting(html: str) -> int:
    """An estimate of how deeply elements are nested: the greatest excess of opening over closing tags.

    Elements that end by themselves, such as <p> and <br>, do not count, nor does what ends in />.
    """
    data = np.frombuffer(html.encode("utf-8", "replace") + b"> <  ", np.uint8)
    opens, closes = np.flatnonzero(data == ord("<")), np.flatnonzero(data == ord(">"))
    opens = opens[opens < len(data) - 4]
    first = data[opens + 1] | 0x20
    letters = (first >= ord("a")) & (first <= ord("z"))
    ends = closes[np.searchsorted(closes, opens).clip(max=len(closes) - 1)]
    single = data[ends - 1] == ord("/")
    steps = np.where(letters & ~single & ~_is_flat(data, opens + 1), 1, 0)
    closing = (data[opens + 1] == ord("/")) & ~_is_flat(data, opens + 2)
    depth = np.cumsum(steps - closing)
    # A stray closing tag closes nothing: the depth counts from the lowest point before.
    lowest = np.minimum.accumulate(np.minimum(depth, 0))
    return int((depth - lowest).max(initial=0))


def _is_flat(data: np.ndarray, at: np.ndarray) -> np.ndarray:
    lower = [data[(at + k).clip(max=len(data) - 1)].astype(np.int64) for k in range(3)]
    keys = [each | 0x20 if k == 0 else np.where((each >= 65) & (each <= 90), each | 0x20, each)
            for k, each in enumerate(lower)]  # fmt: skip
    key = keys[0] << 16 | keys[1] << 8 | keys[2]
    three = np.array([int.from_bytes(name.encode(), "big") for name in _FLAT if len(name) == 3])
    two = np.array([int.from_bytes(name.encode(), "big") for name in _FLAT if len(name) == 2])
    return np.isin(key, three) | np.isin(key >> 8, two)


def _difference(whole: str, main: str) -> str:
    """The lines of the whole text that the main text has not, as often as it has them fewer times."""
    kept = Counter(line.strip() for line in main.split("\n"))
    cut = []
    for line in (line.strip() for line in whole.split("\n")):
        if kept[line] > 0:
            kept[line] -= 1
        elif line:
            cut.append(line)
    return "\n".join(cut)


def _trafilatura(html: str) -> str:
    import trafilatura

    found: Any = trafilatura.extract(html, include_comments=False, include_tables=True, deduplicate=False)
    return found or ""
