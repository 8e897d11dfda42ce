"""Reads JSON records from text, and the text of a document from a record.

Records stand one per line, or are the values of a list or of a stream over any number of lines. Memory is
bounded by the largest record.
"""

from __future__ import annotations

import codecs
import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pangu_alpha.files.shown import quoted

BAD = "\udcff"  # marks undecodable bytes in the text of a record
_BETWEEN = re.compile("[ \t\r\n\ufeff]*")
_NEAR_END = 16  # characters; an error this near the end of what was read may vanish when more is read
_TOO_DEEP = "lists and objects in one another, too deep to be read"


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return BAD, error.end


codecs.register_error("pangu_alpha.marked", _mark)


class RecordError(ValueError):
    """A record that is not JSON, or that holds no text where it should.

    Args:
        missing: Whether the field is absent or null, rather than of a wrong type.
    """

    def __init__(self, message: str, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


@dataclass(frozen=True)
class Record:
    """One value of a stream, and the JSON text it was parsed from."""

    source: str
    value: Any


def parse(line: str, names: Sequence[str] = ()) -> Any:
    """Parses one JSON text.

    Args:
        names: Keys that no object may have twice. Python would silently keep only the last value.

    Raises:
        RecordError: The text is not JSON, or is nested too deeply.
    """
    try:
        value = _loads(line)
        if any(line.count(spelling) > 1 for name in names for spelling in _spellings(name)):
            _loads(line, object_pairs_hook=lambda pairs: _each_once(pairs, names))
    except json.JSONDecodeError as error:
        raise RecordError(f"not JSON ({error})") from error
    except RecursionError as error:
        raise RecordError(_TOO_DEEP) from error
    return value


def text_of(record: Any, path: Sequence[str]) -> str:
    """Returns the text of a record; if the text is a list of parts, each part stands on its own line.

    Args:
        record: The value of a JSON text or of a parquet cell.
        path: Keys that lead to the text, outermost first. A key that itself contains the dots takes
            precedence.

    Raises:
        RecordError: There is no such field, or it does not hold text.
    """
    try:
        return _text_of(record, tuple(path), ".".join(path))
    except RecursionError as error:
        raise RecordError(_TOO_DEEP) from error


def is_stream(head: bytes) -> bool:
    """Whether records are the values of a list or span several lines, rather than standing one per line.

    Args:
        head: The beginning of the file.
    """
    text = head.decode("utf-8", "replace").lstrip(" \t\r\n\ufeff")
    line = text.partition("\n")[0]
    try:
        return isinstance(_loads(line), list)
    except (ValueError, RecursionError):
        if not text.startswith("{"):
            return text.startswith("[")
    try:
        return json.JSONDecoder().raw_decode(text)[1] > len(line)
    except (ValueError, RecursionError):
        return False


class RecordStream:
    """Iterates over the values of a JSON stream; a list at the top level yields its values one by one.

    Args:
        chunks: UTF-8 bytes; undecodable places become BAD in the records' texts.
        most: Size in bytes of the largest record allowed.
    """

    def __init__(self, chunks: Iterable[bytes], most: int) -> None:
        self._chunks = iter(chunks)
        self._most = most
        self._decoder = codecs.getincrementaldecoder("utf-8")("pangu_alpha.marked")
        self._text, self._place, self._ended = "", 0, False
        self._in_list = False
        self.byte_order_marks = 0

    def __iter__(self) -> Iterator[Record]:
        """Yields the records.

        Raises:
            RecordError: The text that follows cannot be parsed; `rest` holds what was read of it.
        """
        while self._go_to_value():
            yield self._value()

    @property
    def rest(self) -> str:
        """Text that has been read but not yielded."""
        return self._text[self._place :]

    def _go_to_value(self) -> bool:
        while True:
            found = _BETWEEN.match(self._text, self._place)
            assert found  # it matches nothing, too
            self.byte_order_marks += found[0].count("\ufeff")
            self._place = found.end()
            sign = self._text[self._place : self._place + 1]
            if not sign:
                if not self._read_on():
                    if self._in_list:
                        raise RecordError("the list does not end; the file is not whole")
                    return False
            elif (sign == "[" and not self._in_list) or (sign in "]," and self._in_list):
                self._in_list = sign != "]"
                self._place += 1
            else:
                return True

    def _value(self) -> Record:
        # Each attempt waits for twice as many characters, so that all attempts together take linear time.
        wanted = 0
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
                may_go_on = isinstance(value, int | float) and end > len(self._text) - _NEAR_END
                if may_go_on and self._read_on():
                    continue
                record = Record(self._text[self._place : end], value)
                if _size(record.source, self._most) > self._most:
                    raise TooLargeError
                self._place = end
                return record
            except json.JSONDecodeError as error:
                sure = error.pos < len(self._text) - _NEAR_END and not error.msg.startswith("Unterminated")
                if sure or not self._read_more(wanted):
                    raise RecordError(f"not JSON ({error.msg})") from error
                wanted = 2 * (len(self._text) - self._place)
            except RecursionError as error:
                raise RecordError(_TOO_DEEP) from error

    def _read_more(self, wanted: int) -> bool:
        """Reads until `wanted` characters are held or the stream ends; False if it had ended before."""
        read = False
        while self._read_on():
            read = True
            if len(self._text) >= wanted:
                break
        return read

    def _read_on(self) -> bool:
        if self._ended:
            return False
        if len(self._text) - self._place > self._most:
            raise TooLargeError
        chunk = next(self._chunks, None)
        self._ended = chunk is None
        self._text = self._text[self._place :] + self._decoder.decode(chunk or b"", final=chunk is None)
        self._place = 0
        return True


class TooLargeError(RecordError):
    """A record larger than the limit."""

    def __init__(self) -> None:
        super().__init__("too large")


def _text_of(value: Any, path: tuple[str, ...], whole: str) -> str:
    if isinstance(value, list):
        return "\n".join([_text_of(item, path, whole) for item in value])
    if not path:
        if isinstance(value, str):
            return value
        if value is None:
            raise RecordError(f"field {quoted(whole)} is null", missing=True)
        raise RecordError(f"field {quoted(whole)} holds {type(value).__name__}")
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise RecordError(f"a JSON {kind}, not an object with field {quoted(whole)}")
    joined = ".".join(path)
    if joined in value:
        return _text_of(value[joined], (), whole)
    if path[0] in value and value[path[0]] is not None:
        return _text_of(value[path[0]], path[1:], whole)
    raise RecordError(f"no field {quoted(joined)}{closest(joined, list(value))}", missing=True)


def closest(name: str, names: list[str]) -> str:
    """The end of an error message: the most similar name, or the names that exist."""
    found = difflib.get_close_matches(name, names, n=1)
    if found:
        return f"; did you mean {quoted(found[0])}?"
    return f"; there is {', '.join(quoted(each, 40) for each in names[:8]) or 'none'}"


def _size(text: str, most: int) -> int:
    """Size in bytes of a text in UTF-8; only a lower bound where it surely does not exceed `most`."""
    return len(text) if 4 * len(text) <= most else len(text.encode("utf-8", "replace"))


def _spellings(name: str) -> set[str]:
    return {json.dumps(name), json.dumps(name, ensure_ascii=False)}


def _each_once(pairs: list[tuple[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        for name in names:
            if keys.count(name) > 1:
                raise RecordError(f"key {quoted(name)} twice in one object, of which only one would be read")
    return values


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) < 400 else math.inf  # Python refuses to read thousands of digits


_DECODER = json.JSONDecoder(parse_int=_whole_number)


def _loads(text: str, **options: Any) -> Any:
    try:
        return json.loads(text, **options)
    except json.JSONDecodeError:
        raise
    except RecordError:
        raise
    except ValueError:  # a number of thousands of digits, which Python refuses; we do not need its value
        return json.loads(text, parse_int=_whole_number, **options)
