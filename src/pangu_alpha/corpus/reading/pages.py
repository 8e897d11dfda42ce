"""What reading yields: a page with its text, or a record that was dropped and why"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reason = Literal[
    "not_html", "not_2xx", "bad_charset", "too_large", "no_text", "broken_record", "unknown_kind"
]
REASONS: tuple[str, ...] = Reason.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Page:
    """One page.

    Args:
        record: Number of the record in its file: rising, and the same however the file is split.
        charset: The encoding in which the bytes were read.
        text: The main text.
        boilerplate: What the extractor cut from the page: menus, notices, lists of links.
        bytes_in: Size of the record's content as it was stored, without its headers.
        characters_in: Characters of the decoded content, tags included.
    """

    record: int
    url: str
    title: str
    charset: str
    text: str
    boilerplate: str
    bytes_in: int
    characters_in: int


@dataclass(frozen=True)
class Dropped:
    """One record that became no page.

    Args:
        detail: What exactly was wrong, in words.
        characters_in: As in Page; 0 if the content was not decoded.
    """

    record: int
    url: str
    reason: Reason
    bytes_in: int
    characters_in: int = 0
    detail: str = ""
