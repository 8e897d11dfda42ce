"""Texts of strangers as a terminal may show them."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: object, most: int | None = None) -> str:
    r"""A text with its control, direction and half characters written as \x1b or \u202e.

    Tabs and line feeds stay: an error has several lines. They are escaped by `quoted`.

    Args:
        most: Longest result in characters; a longer one is cut in the middle.
    """
    escaped = _CONTROL.sub(lambda found: _escape(found[0]), str(text))
    return escaped if most is None or len(escaped) <= most else _cut(escaped, most)


def shown_name(name: object, most: int = 200) -> str:
    """A name in a line of its own or of a table: as `shown`, on one line, and cut."""
    return shown(str(name).replace("\t", "\\t").replace("\n", "\\n"), most)


def shown_json(text: str) -> str:
    r"""A text of JSON with the same characters written as JSON writes them, so that it is read as before."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def log_to_stderr(level: int = logging.INFO) -> None:
    """Lets a command's log messages go to standard error, as a terminal may show them.

    Args:
        level: Least important one to be shown.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def quoted(value: object, most: int = 80) -> str:
    """A name or value of a file as it stands in a message: its repr, escaped and cut.

    The text of a nested value is never made longer than a small multiple of `most`, whatever its size.
    """
    return shown(_short_repr(value, most), most)


def _short_repr(value: object, most: int) -> str:
    if isinstance(value, str | bytes):
        half = value[: most + 1]
        return repr(half) if len(half) == len(value) else repr(half)[:-1] + "..."
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length():,} bits"  # str() of it would be slow or refused
    if isinstance(value, dict):
        return _listed("{", "}", ((f"{_short_repr(k, most)}: ", v) for k, v in value.items()), most)
    if isinstance(value, list | tuple):
        ends = "[]" if isinstance(value, list) else "()"
        return _listed(ends[0], ends[1], (("", item) for item in value), most)
    return repr(value)


def _listed(begin: str, end: str, items: Iterable[tuple[str, object]], most: int) -> str:
    text = begin
    for place, (head, item) in enumerate(items):
        text += (", " if place else "") + head
        if len(text) > most:
            return text + "..."
        text += _short_repr(item, most - len(text)) if most > len(text) else "..."
    return text + end


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _cut(text: str, most: int) -> str:
    head = (most - 5) * 2 // 3
    return f"{text[:head]} ... {text[len(text) - (most - 5 - head) :]}"
