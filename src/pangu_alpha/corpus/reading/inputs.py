"""What lies in a file, and how a large file is split into parts that several workers read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO

from pangu_alpha.files.shown import shown
from pangu_alpha.text.documents.opening import PACKINGS

KINDS = ("warc", "wet", "html", "text", "jsonl", "json", "parquet")
LARGEST_PART = 256 << 20  # bytes
UNKNOWN = "unknown"
Opener = Callable[[str], AbstractContextManager[BinaryIO]]  # a path -> a file that can seek
_ENDINGS = {"warc": "warc", "wet": "wet", "html": "html", "htm": "html", "xhtml": "html", "txt": "text",
            "text": "text", "jsonl": "jsonl", "ndjson": "jsonl", "jsonlines": "jsonl", "json": "json",
            "parquet": "parquet"}  # fmt: skip
_WIKI = re.compile(r"wiki_\d+")  # what WikiExtractor calls its files of JSON lines
_HEAD = 1 << 12
_RECORD_NUMBERS = 1 << 32  # an id has 32 bits for the number of the record


@dataclass(frozen=True)
class Input:
    """One file of a source.

    Args:
        kind: One of KINDS, or "unknown".
        stamp: Modification time or etag, which tells whether the file has changed since.
    """

    path: str
    kind: str
    source: str
    bytes: int
    stamp: str = ""

    @property
    def packing(self) -> str:
        """How the whole file is packed, from its name; "" if it is not."""
        ending = self.path.lower().rpartition(".")[2]
        return ending if ending in PACKINGS else ""


@dataclass(frozen=True)
class Part:
    """A piece of a file: the records that begin at bytes `start` to `stop` - 1, or row groups of parquet.

    Args:
        number: Number of the file among the inputs.
    """

    number: int
    start: int
    stop: int


def kind_of(path: str, head: bytes) -> str:
    """What a file holds, by its name, else by its first bytes.

    Args:
        head: The first bytes, after unpacking.

    Returns:
        One of KINDS, or "unknown".
    """
    name = re.split(r"[/\\]", path.lower())[-1]
    stem, _, last = name.rpartition(".")
    if last in PACKINGS:
        name = stem
    if name.endswith((".warc.wet", ".wet")):
        return "wet"
    if _WIKI.fullmatch(name):
        return "jsonl"
    by_name = _ENDINGS.get(name.rpartition(".")[2], UNKNOWN) if "." in name else UNKNOWN
    return by_name if by_name != UNKNOWN else _kind_by_content(head)


def _kind_by_content(head: bytes) -> str:
    if head.startswith(b"WARC/"):
        return "wet" if b"WARC-Type: conversion" in head[:_HEAD] else "warc"
    if head.startswith(b"PAR1"):
        return "parquet"
    begins = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:_HEAD].lower()
    if begins.startswith(b'{"'):
        return "jsonl"
    return "html" if begins.startswith((b"<!doctype html", b"<html")) else UNKNOWN


def split(number: int, file: Input, opener: Opener, largest: int = LARGEST_PART) -> Sequence[Part]:
    """Splits a file into parts that can be read by themselves; most files are one part.

    Only files of WARC, WET and JSON lines that are not packed, or whose records are packed one by one with
    gzip, are split by bytes, and parquet by row groups.

    Args:
        number: Number of the file among the inputs.
        largest: Size in bytes that a part should not exceed.
    """
    if file.kind == "parquet":
        return _row_groups(number, file, opener, largest)
    by_bytes = file.kind in ("warc", "wet") and file.packing in ("", "gz")
    by_bytes = by_bytes or (file.kind == "jsonl" and not file.packing)
    if not by_bytes or file.bytes <= largest:
        return [Part(number, 0, file.bytes)]
    return [Part(number, start, min(start + largest, file.bytes)) for start in range(0, file.bytes, largest)]


def _row_groups(number: int, file: Input, opener: Opener, largest: int) -> Sequence[Part]:
    import pyarrow
    import pyarrow.parquet

    try:
        with opener(file.path) as stream, pyarrow.parquet.ParquetFile(stream) as table:
            metadata = table.metadata
            sizes = [metadata.row_group(each).total_byte_size for each in range(metadata.num_row_groups)]
    except (pyarrow.ArrowException, OSError):
        return [Part(number, 0, 1)]  # read_part reports it as a broken record
    parts, start, gathered = [], 0, 0
    for place, size in enumerate(sizes):
        if gathered and gathered + size > largest:
            parts.append(Part(number, start, place))
            start, gathered = place, 0
        gathered += size
    return [*parts, Part(number, start, len(sizes))]


class RecordNumbers:
    """Numbers the records of a file by the places of their first bytes, so that they need no counting.

    The unit is one byte in files below 4 GiB, and a higher power of two in larger ones, so that numbers have
    32 bits; a record that begins in the same unit as the one before gets the next free number.

    Args:
        stop: Where the part ends whose records are numbered; None if the file is not cut.
    """

    def __init__(self, file: Input, stop: int | None) -> None:
        self._file = file
        self._shift = max((file.bytes // _RECORD_NUMBERS).bit_length(), 0)
        self._most = _RECORD_NUMBERS if stop is None or not self._shift else ((stop - 1) >> self._shift) + 1
        self._last = -1

    def of(self, place: int) -> int:
        """The number of the record that begins at this byte; places must rise.

        Raises:
            ValueError: Records are so short that their numbers would be those of the next part.
        """
        self._last = max(place >> self._shift, self._last + 1)
        if self._last >= self._most:
            raise ValueError(
                f"{shown(self._file.path)}: so many records shorter than {1 << self._shift} bytes cannot be "
                f"numbered in a file of {self._file.bytes:,} bytes; cut it into files below 4 GiB"
            )
        return self._last
