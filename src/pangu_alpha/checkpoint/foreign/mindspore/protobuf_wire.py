"""The part of the protocol buffers' wire format that MindSpore's files use: numbers and lengths.

Locates fields in a file without loading their content, and encodes fields.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

# https://protobuf.dev/programming-guides/encoding/
VARINT, LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}  # wire type -> bytes
_WINDOW = 4096  # bytes read at once; the head of a checkpoint's message rarely takes more


class WireError(ValueError):
    """Bytes are not a protocol buffer; the message says where, and what is wrong."""


class Field(NamedTuple):
    """One field of a message.

    Args:
        value: Value of a number; None for a field with a length.
        start: Offset of its content in the file. Unit: bytes.
        stop: Offset after its last byte.
    """

    number: int
    value: int | None
    start: int
    stop: int


class FileBytes:
    """The bytes of an open file, read in small windows."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._window, self._base = b"", 0
        self.size = os.fstat(descriptor).st_size

    def read(self, start: int, stop: int) -> bytes:
        """Returns the bytes from `start` to before `stop`, fewer at the end of the file."""
        if start < self._base or stop > self._base + len(self._window):
            self._window = os.pread(self._descriptor, max(stop - start, _WINDOW), start)
            self._base = start
        return self._window[start - self._base : stop - self._base]

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """Yields the fields of the message between two offsets, in the order in which they are stored.

        Raises:
            WireError: The bytes are not a message, or end in the middle of one.
        """
        while start < stop:
            at = start
            key, start = self._varint(start, stop)
            number, kind = key >> 3, key & 7
            if number == 0 or kind not in (VARINT, LENGTH, *_FIXED):
                raise WireError(f"byte {at}: not the beginning of a field")
            if kind == VARINT:
                value, start = self._varint(start, stop)
                yield Field(number, value, start, start)
                continue
            length = _FIXED.get(kind, 0)
            if kind == LENGTH:
                length, start = self._varint(start, stop)
            if start + length > stop:
                raise WireError(f"byte {at}: a field of {length:,} bytes where {stop - start:,} are left")
            yield Field(number, None, start, start + length)
            start += length

    def varints(self, start: int, stop: int) -> Iterator[int]:
        """Yields the numbers of a packed field.

        Raises:
            WireError: The last number is truncated.
        """
        while start < stop:
            value, start = self._varint(start, stop)
            yield value

    def _varint(self, start: int, stop: int) -> tuple[int, int]:
        """Returns a number and the offset after it."""
        at = start - self._base
        if start < stop and 0 <= at < len(self._window) and self._window[at] < 0x80:
            return self._window[at], start + 1  # most numbers are one byte
        value = 0
        for index, byte in enumerate(self.read(start, min(start + 10, stop))):
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value, start + index + 1
        raise WireError(f"byte {start}: a number without an end")


def signed(value: int) -> int:
    """Converts a number that was stored as int32 or int64, in two's complement of 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


def varint(value: int) -> bytes:
    """Encodes an integer; a negative one takes ten bytes."""
    value &= (1 << 64) - 1
    groups = []
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def number_field(number: int, value: int) -> bytes:
    """Encodes a field that is a number."""
    return varint(number << 3 | VARINT) + varint(value)


def length_field(number: int, content: bytes) -> bytes:
    """Encodes a field with a length: text, bytes or a message."""
    return length_head(number, len(content)) + content


def length_head(number: int, length: int) -> bytes:
    """Encodes what precedes the content of a field with a length, for content that is written separately."""
    return varint(number << 3 | LENGTH) + varint(length)
