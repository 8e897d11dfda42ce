"""Makes untrusted text safe to print on a terminal."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: object, most: int | None = None) -> str:
    r"""Returns a text with control, direction and unpaired surrogate characters escaped, as \x1b or \u202e.

    Tabs and line feeds stay, because an error message may have several lines; `quoted` escapes them as well.

    Args:
        most: Longest result in characters; a longer one is cut in the middle.
    """
    escaped = _CONTROL.sub(lambda found: _escape(found[0]), str(text))
    return escaped if most is None or len(escaped) <= most else _cut(escaped, most)


def shown_name(name: object, most: int = 200) -> str:
    """Returns a name escaped as by `shown`, on one line and cut to `most` characters, as lists need it."""
    return shown(str(name).replace("\t", "\\t").replace("\n", "\\n"), most)


def shown_json(text: str) -> str:
    r"""Returns a JSON text with the same characters escaped in JSON's own way; its value does not change."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def log_to_stderr(level: int = logging.INFO) -> None:
    """Sends log messages of at least `level` to standard error, escaped as by `shown`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def quoted(value: object, most: int = 80) -> str:
    """Returns the repr of a name or value for an error message, escaped and cut to `most` characters.

    The repr of a nested value is never built longer than a small multiple of `most`, however large the value.
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
