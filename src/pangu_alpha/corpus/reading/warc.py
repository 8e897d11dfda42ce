"""Reads the records of WARC files (ISO 28500), plain or packed record by record, and goes on after damage."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from pangu_alpha.corpus.reading.members import Stretch, member_stretches, plain_stretches

_VERSION = b"WARC/"
# A header begins a line, and names a type and a length; a page about WARC does not look like this.
_BEGINNING = re.compile(
    rb"(?:^|(?<=\n))WARC/\d\.\d\r?\n(?=(?:[A-Za-z-]+:[^\n]*\n)*?(?i:WARC-Type|Content-Length):)"
)
_BLANK = re.compile(rb"\r?\n\r?\n")
_MOST_HEADER = 1 << 16
_MOST_DIGITS = 18  # of a length
_NO_HEADER = "bytes that begin with no WARC header"
_ENDS = "the file ends within a record"


@dataclass(frozen=True)
class WarcRecord:
    """One record, or a damaged stretch.

    Args:
        place: Byte of the stored file at which it begins, or the gzip member that it begins in.
        size: Bytes of its content by its header, or of the damaged stretch.
        headers: By lower-case name.
        content: None if it is larger than allowed, or damaged.
        fault: What is damaged, or "".
    """

    place: int
    size: int
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    fault: str = ""


def warc_records(file: BinaryIO, packed: bool, start: int, stop: int, largest: int) -> Iterator[WarcRecord]:
    """Yields the records that begin at bytes `start` to `stop` - 1 of the stored file.

    Args:
        packed: Whether the file is packed with gzip.
        largest: Bytes of the largest content that is held.
    """
    if packed:
        stretches = member_stretches(file, start, stop, _VERSION)
        yield from _Parser(stretches, largest).records()
        return
    before = max(start - 1, 0)  # the line end in front of a header that begins just at `start`
    for record in _Parser(plain_stretches(file, before), largest, start).records():
        if record.place >= stop:
            return
        yield record


class _Parser:
    """Finds the records in unpacked bytes; what begins before the place `first` is the part's before."""

    def __init__(self, stretches: Iterator[Stretch], largest: int, first: int = 0) -> None:
        self._stretches, self._largest, self._first = stretches, largest, first
        self._held = bytearray()
        self._used = 0  # bytes before `_held`
        self._marks: deque[tuple[int, Stretch]] = deque()  # where each stretch begins among all bytes
        self._fault = ""

    def records(self) -> Iterator[WarcRecord]:
        behind = self._first > 0  # within a record of the part before
        while self._to_header() or self._fault:
            if not self._held:
                yield WarcRecord(self._marks[-1][1].place, 0, fault=self._taken_fault())
                continue
            place = self._place(self._used)
            if place >= self._first and _BEGINNING.match(self._held):
                yield self._record(place)
            elif (gone := self._resynchronise()) and not behind:
                yield WarcRecord(place, gone, fault=self._taken_fault() or _NO_HEADER)
            behind = False

    def _more(self) -> bool:
        """Reads on; false at the end of the file and at damage, behind which another record begins."""
        stretch = None if self._fault else next(self._stretches, None)
        if stretch is None:
            return False
        self._marks.append((self._used + len(self._held), stretch))
        self._held += stretch.data
        self._fault = stretch.fault
        return not stretch.fault

    def _taken_fault(self) -> str:
        fault, self._fault = self._fault, ""
        return fault

    def _skip(self, count: int) -> None:
        del self._held[:count]
        self._used += count

    def _place(self, at: int) -> int:
        """The place in the stored file of the byte `at` among all bytes."""
        while len(self._marks) > 1 and self._marks[1][0] <= at:
            self._marks.popleft()
        begins, stretch = self._marks[0]
        return stretch.place if stretch.packed else stretch.place + at - begins

    def _to_header(self) -> bool:
        """Skips the blank lines between records and holds enough for a header; false at the end."""
        while True:
            blank = len(self._held) - len(self._held.lstrip(b"\r\n"))
            self._skip(blank)
            if _BLANK.search(self._held) or len(self._held) >= _MOST_HEADER:
                return True
            if not self._more():
                return bool(self._held)

    def _resynchronise(self) -> int:
        """Skips to the next header and returns the number of bytes skipped."""
        gone = 0
        while True:
            found = _BEGINNING.search(self._held, 1)
            if found:
                self._skip(found.start())
                return gone + found.start()
            # The header may be cut off at the end of what is held; a part of it must stay.
            skip = max(len(self._held) - _MOST_HEADER, 0)
            gone += skip
            self._skip(skip)
            if not self._more():
                gone += len(self._held)
                self._skip(len(self._held))
                return gone

    def _record(self, place: int) -> WarcRecord:
        header = _BLANK.search(self._held)
        if header is None:
            return self._damaged(place, {}, _ENDS)
        headers = _headers(bytes(self._held[: header.start()]))
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit() and len(length) <= _MOST_DIGITS):
            size = header.end()
            self._skip(size)
            return WarcRecord(place, size, headers, fault="a header without a Content-Length")
        self._skip(header.end())
        return self._with_content(place, headers, int(length))

    def _with_content(self, place: int, headers: dict[str, str], size: int) -> WarcRecord:
        left = size
        if size > self._largest:
            while left > len(self._held):
                left -= len(self._held)
                self._skip(len(self._held))
                if not self._more():
                    return self._damaged(place, headers, _ENDS, size - left)
            self._skip(left)
            return WarcRecord(place, size, headers)
        while size > len(self._held):
            if not self._more():
                return self._damaged(place, headers, _ENDS)
        content = bytes(self._held[:size])
        self._skip(size)
        return WarcRecord(place, size, headers, content)

    def _damaged(self, place: int, headers: dict[str, str], fault: str, before: int = 0) -> WarcRecord:
        size = before + len(self._held)
        self._skip(len(self._held))
        return WarcRecord(place, size, headers, fault=self._taken_fault() or fault)


def _headers(block: bytes) -> dict[str, str]:
    """Header lines by lower-case name; of two with one name the first counts."""
    headers: dict[str, str] = {}
    for line in block.splitlines()[1:]:
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    return headers
