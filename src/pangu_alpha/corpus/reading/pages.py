"""What reading yields: a page with its text, or a record that was dropped and why; and the limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pangu_alpha.config.option import option
from pangu_alpha.config.schema import validate

Reason = Literal[
    "not_html", "not_2xx", "bad_charset", "too_large", "no_text", "broken_record", "unknown_kind"
]
REASONS: tuple[str, ...] = Reason.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Reading:
    """How files become pages. All limits are counts, none is a time: a slow machine must lose nothing.

    Raises:
        ConfigError: Lists all fields that have the wrong type or lie outside their bounds.
    """

    extractor: Literal["resiliparse", "trafilatura"] = option(
        "resiliparse", "what takes the main text out of HTML; trafilatura takes about ten times as long"
    )
    largest_document: int = option(
        64 << 20, "a larger page or record is dropped, before and after unpacking", unit="bytes", at_least=1
    )
    deepest_html: int = option(
        512, "a page whose elements are nested deeper is dropped; browsers stop there, too", at_least=1
    )
    most_tags: int = option(500_000, "a page with more tags is dropped", at_least=1)
    split: Literal["file", "blank_line", "line"] = option("file", "what is a document in a file of text")
    field: str = option("text", "field or column of the text in JSON and parquet; `a.b` is b in a")
    url_field: str = option("url", "field or column of the address; may be absent")
    title_field: str = option("title", "field or column of the title; may be absent")
    charset: str = option("auto", "encoding of files of text and JSON; `auto` tries each document's")

    def __post_init__(self) -> None:
        validate(self)


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
