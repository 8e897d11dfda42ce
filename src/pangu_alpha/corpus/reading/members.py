"""Unpacks a gzip file member by member from any byte on, and goes on at the next member after damage."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import BinaryIO

CHUNK = 1 << 18
_MAGIC = b"\x1f\x8b\x08"  # the first bytes of a member: gzip, deflate


@dataclass(frozen=True)
class Stretch:
    """Some bytes of a file in order.

    Args:
        place: Where they lie in the stored file, or where the gzip member with them begins.
        packed: Whether `place` is a member's.
        fault: What is damaged behind these bytes, or "".
    """

    place: int
    data: bytes
    packed: bool = False
    fault: str = ""


def plain_stretches(file: BinaryIO, start: int) -> Iterator[Stretch]:
    """The bytes of a file that is not packed, from a byte on."""
    file.seek(start)
    while data := file.read(CHUNK):
        yield Stretch(start, data)
        start += len(data)


def member_stretches(file: BinaryIO, start: int, stop: int, beginning: bytes) -> Iterator[Stretch]:
    """Unpacks the members that begin at bytes `start` to `stop` - 1, and those that continue the last.

    Args:
        beginning: The first bytes of every member but continuing ones. They tell a member from bytes in the
            midst of packed data that only look like one.
    """
    return _Members(file, start, stop, beginning).stretches()


class _Members:
    def __init__(self, file: BinaryIO, start: int, stop: int, beginning: bytes) -> None:
        file.seek(start)
        self._file, self._stop, self._beginning = file, stop, beginning
        self._place, self._held = start, b""  # bytes that are read, not used, and where they lie
        self._follows = start == 0  # whether a whole member ended just here
        self._lost = False  # whether what was skipped behind it is more than padding

    def stretches(self) -> Iterator[Stretch]:
        while True:
            place, followed = self._place, self._follows
            found = self._found()
            if followed and not self._follows and self._lost:
                yield Stretch(place, b"", True, "bytes that are no gzip member")
            if not found or (self._place >= self._stop and not self._follows):
                return
            if not (yield from self._member()):
                return

    def _found(self) -> bool:
        """Goes to the next bytes that may begin a member."""
        while (at := self._held.find(_MAGIC)) < 0:
            keep = min(len(self._held), len(_MAGIC) - 1)
            self._skip(len(self._held) - keep)
            if not self._more():
                return False
        self._skip(at)
        return True

    def _skip(self, count: int) -> None:
        self._lost = bool(self._held[:count].strip(b"\0\r\n")) or (self._lost and not self._follows)
        self._follows = self._follows and not count
        self._held = self._held[count:]
        self._place += count

    def _more(self) -> bool:
        data = self._file.read(CHUNK)
        self._held += data
        return bool(data)

    def _member(self) -> Generator[Stretch, None, bool]:
        """Unpacks a member, if these bytes are one; returns whether the search goes on."""
        place, stream, begun = self._place, zlib.decompressobj(31), False
        while not stream.eof:
            fed = self._held
            try:
                out = stream.decompress(fed, CHUNK)
            except zlib.error as error:
                if begun or self._follows:
                    yield Stretch(place, b"", True, f"a damaged gzip member ({error})")
                self._skip(1)
                return True
            if out and not begun:
                begun = out.startswith(self._beginning[: len(out)])
                if begun and place >= self._stop:
                    return False  # the next part's
                if not begun and not self._follows:
                    self._skip(1)
                    return True
                begun = True
            # At the end of a member zlib may leave the same bytes in both.
            rest = stream.unused_data if stream.eof else stream.unconsumed_tail
            self._skip(len(fed) - len(rest))
            if out:
                yield Stretch(place, out, True)
            if not stream.eof and not self._held and not self._more():
                yield Stretch(place, b"", True, "the file ends within a gzip member")
                return False
        self._follows = True
        return True
