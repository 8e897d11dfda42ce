"""Documents out of .txt, .jsonl (both also .gz) and .parquet files, streamed; problems are counted or raised.

Knows nothing about cleaning or tokens. Memory is bounded by the largest document, not by the file.
"""

from __future__ import annotations

import difflib
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

SPLITS = ("file", "blank_line", "line")
_BOM = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DAMAGED_ARCHIVE = (EOFError, gzip.BadGzipFile, zlib.error)
_PARQUET_ROWS = 256  # rows held at a time
_CHUNK = 1 << 20  # bytes read at a time


@dataclass(frozen=True)
class ReadOptions:
    """How files become documents and what to do with bad input.

    Args:
        split (str): a .txt file is one document ("file"), or one a paragraph ("blank_line"), or one a "line".
        field (str): name of the text in a JSONL record or of a parquet column.
        invalid_utf8 (str): "replace" bad bytes by U+FFFD, "skip" the document, or "error".
        broken (str): "error", or "skip" records that are not JSON or lack the field, and what a damaged
            archive no longer holds whole.
    """

    split: str = "file"
    field: str = "text"
    invalid_utf8: str = "replace"
    broken: str = "error"

    def __post_init__(self) -> None:
        allowed = {"split": SPLITS, "invalid_utf8": ("replace", "skip", "error"), "broken": ("error", "skip")}
        wrong = [
            f"{name} = {getattr(self, name)!r}: must be one of {', '.join(values)}"
            for name, values in allowed.items()
            if getattr(self, name) not in values
        ]
        if wrong:
            raise ValueError("; ".join(wrong))


@dataclass(frozen=True)
class ReadReport:
    """What was read and every problem met; reports add up with `+`.

    Args:
        documents, characters (int): what was handed out.
        invalid_utf8 (int): documents with bad bytes (replaced or skipped as the options say).
        skipped_documents (int): documents left out for bad bytes.
        byte_order_marks, nul_characters, lone_surrogates (int): taken out; surrogates became U+FFFD.
        empty_documents (int): blank ones, not handed out.
        broken_records (int): records that are not JSON objects or whose field is no text.
        missing_fields (int): records without the field, or with a null in it.
        damaged_archives (int): gzip streams that end early or fail their check.
        lost_bytes (int): bytes of the document that such a stream cut in two.
    """

    documents: int = 0
    characters: int = 0
    invalid_utf8: int = 0
    skipped_documents: int = 0
    byte_order_marks: int = 0
    nul_characters: int = 0
    lone_surrogates: int = 0
    empty_documents: int = 0
    broken_records: int = 0
    missing_fields: int = 0
    damaged_archives: int = 0
    lost_bytes: int = 0

    def __add__(self, other: ReadReport) -> ReadReport:
        return ReadReport(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def problems(self) -> dict[str, int]:
        """The counts that are not zero, documents and characters aside."""
        return {f.name: count for f in fields(self)[2:] if (count := getattr(self, f.name))}


class DocumentReader:
    """Iterates over the documents of one file, in order; `report` counts what it met so far.

    Args:
        path (str | Path): a file ending in .txt, .jsonl, .txt.gz, .jsonl.gz or .parquet.
        options (ReadOptions): see there.

    Raises:
        ValueError: the ending is not known; while iterating: bad input, with file and place.
        FileNotFoundError: there is no such file.
    """

    def __init__(self, path: str | Path, options: ReadOptions | None = None) -> None:
        self.path = Path(path)
        self.options = options or ReadOptions()
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        self._kind = file_kind(self.path)
        self._counts: Counter[str] = Counter()
        self._at_start = True
        self._damage: Exception | None = None

    @property
    def report(self) -> ReadReport:
        """Counts so far; final once the iteration has ended."""
        return ReadReport(**self._counts)

    def __iter__(self) -> Iterator[str]:
        self._counts.clear()
        self._at_start, self._damage = True, None
        readers = {"txt": self._plain_texts, "jsonl": self._json_texts, "parquet": self._parquet_texts}
        for text in readers[self._kind]():
            text = self._repaired(text)
            if not text.strip():
                self._counts["empty_documents"] += 1
                continue
            self._counts.update(documents=1, characters=len(text))
            yield text

    # No frame below keeps a name for raw bytes while the caller works on their text: a huge one is held once.

    def _plain_texts(self) -> Iterator[str]:
        for number, raw in enumerate(self._units(self.options.split), 1):
            text = self._decoded(raw, f"document {number}")
            del raw
            if text is not None:
                yield text.replace("\r\n", "\n").removesuffix("\n")

    def _json_texts(self) -> Iterator[str]:
        for number, raw in enumerate(self._units("line"), 1):
            line = self._decoded(raw, f"record {number}")
            del raw
            text = self._json_text(line, f"record {number}") if line is not None else None
            del line
            if text is not None:
                yield text

    def _json_text(self, line: str, place: str) -> str | None:
        field = self.options.field
        if not line.strip():
            return ""
        try:
            record = json.loads(line)
        except ValueError as error:
            return self._broken("broken_records", f"{place}: not JSON ({error})")
        if not isinstance(record, dict):
            return self._broken("broken_records", f"{place}: a JSON {type(record).__name__}, not an object")
        text = record.get(field)
        if text is None:
            nearest = _nearest(field, list(record))
            return self._broken("missing_fields", f"{place}: no field {field!r}{nearest}")
        if not isinstance(text, str):
            return self._broken("broken_records", f"{place}: field {field!r} holds {type(text).__name__}")
        return text

    def _parquet_texts(self) -> Iterator[str]:
        import pyarrow
        import pyarrow.parquet

        field = self.options.field
        try:
            with pyarrow.parquet.ParquetFile(self.path) as table:
                names = table.schema_arrow.names
                if field not in names:
                    raise ValueError(f"no column {field!r}{_nearest(field, names)}")
                row = 0
                for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=[field]):
                    for value in batch.column(0).to_pylist():
                        row += 1
                        text = self._parquet_text(value, f"row {row}")
                        if text is not None:
                            yield text
        except (pyarrow.ArrowException, ValueError) as error:
            raise ValueError(_located(self.path, str(error))) from error

    def _parquet_text(self, value: object, place: str) -> str | None:
        field = self.options.field
        if value is None:
            return self._broken("missing_fields", f"{place}: column {field!r} is null")
        if isinstance(value, bytes):
            return self._decoded(value, place)
        if not isinstance(value, str):
            return self._broken("broken_records", f"{place}: column {field!r} holds {type(value).__name__}")
        return value

    def _units(self, split: str) -> Iterator[bytes]:
        """Bytes of one document or record after another."""
        gather = {"file": _whole, "blank_line": _paragraphs, "line": _lines}[split]
        tail = yield from gather(self._chunks())
        if self._damage is not None:
            self._counts["lost_bytes"] += len(tail)
            before = (
                f"{self._counts['documents']} whole documents and {len(tail)} bytes of one more came before"
            )
            self._broken("damaged_archives", f"damaged archive ({self._damage}); {before}")
        elif tail:
            yield tail

    def _chunks(self) -> Iterator[bytes]:
        with _opened(self.path) as stream:
            while True:
                try:
                    chunk = stream.read1(_CHUNK)
                except _DAMAGED_ARCHIVE as error:
                    self._damage = error
                    return
                if not chunk:
                    return
                yield chunk

    def _decoded(self, raw: bytes, place: str) -> str | None:
        """Text of a document's bytes, or None if bad bytes make it one to skip."""
        if self._at_start:
            self._at_start = False
            raw = self._without_mark(raw)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            if self.options.invalid_utf8 == "error":
                raise ValueError(_located(self.path, f"{place}: not UTF-8 ({error})")) from error
        self._counts["invalid_utf8"] += 1
        if self.options.invalid_utf8 == "replace":
            return raw.decode("utf-8", "replace")
        self._counts["skipped_documents"] += 1
        return None

    def _without_mark(self, raw: bytes) -> bytes:
        if raw.startswith(_UTF16_MARKS):
            raise ValueError(_located(self.path, "the file is UTF-16; convert it to UTF-8"))
        if raw.startswith(_BOM):
            self._counts["byte_order_marks"] += 1
            return raw[len(_BOM) :]
        return raw

    def _repaired(self, text: str) -> str:
        if "\0" in text:
            self._counts["nul_characters"] += text.count("\0")
            text = text.replace("\0", "")
        if _SURROGATE.search(text):
            text, found = _SURROGATE.subn("\ufffd", text)
            self._counts["lone_surrogates"] += found
        return text

    def _broken(self, count: str, message: str) -> None:
        if self.options.broken == "error":
            raise ValueError(_located(self.path, f"{message}; broken='skip' counts such cases and goes on"))
        self._counts[count] += 1


def file_kind(path: Path) -> str:
    """ "txt", "jsonl" or "parquet" by the file's name.

    Raises:
        ValueError: another ending.
    """
    name = path.name.lower().removesuffix(".gz")
    kind = name.rpartition(".")[2]
    if kind in ("txt", "jsonl") or (kind == "parquet" and name == path.name.lower()):
        return kind
    raise ValueError(f"{path}: unknown kind of file; known are .txt, .jsonl, .txt.gz, .jsonl.gz and .parquet")


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")


# Each of these yields the documents that are surely whole and returns what is left at the end of the stream.


def _whole(chunks: Iterator[bytes]) -> Generator[bytes, None, bytes]:
    yield from ()
    return b"".join(chunks)


def _lines(chunks: Iterator[bytes]) -> Generator[bytes, None, bytes]:
    begun: list[bytes] = []
    for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            begun.append(end)
            yield _taken(begun)
        begun.append(rest)
    return _taken(begun)


def _paragraphs(chunks: Iterator[bytes]) -> Generator[bytes, None, bytes]:
    begun: list[bytes] = []
    lines = _lines(chunks)
    while True:
        try:
            line = next(lines)
        except StopIteration as end:
            return b"\n".join([*begun, end.value])
        if line.strip():
            begun.append(line)
        elif begun:
            begun, paragraph = [], b"\n".join(begun)
            yield paragraph


def _taken(parts: list[bytes]) -> bytes:
    joined = b"".join(parts)
    parts.clear()
    return joined


def _nearest(name: str, names: list[str]) -> str:
    found = difflib.get_close_matches(name, names, n=1)
    return (
        f"; did you mean {found[0]!r}?"
        if found
        else f"; there is {', '.join(map(repr, names[:8])) or 'none'}"
    )


def _located(path: Path, message: str) -> str:
    return f"{path}: {message}"
