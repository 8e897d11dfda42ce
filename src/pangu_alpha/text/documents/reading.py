"""Reads documents from text, JSON and parquet files, packed or not, as a stream; counts or raises problems.

Knows nothing about cleaning or tokens. Memory is bounded by the largest document, not by the file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pangu_alpha.files.shown import quoted, shown
from pangu_alpha.text.documents.encoding import UTF8, Judge, as_utf8, known_encoding
from pangu_alpha.text.documents.json_records import (
    BAD,
    RecordError,
    RecordStream,
    TooLargeError,
    closest,
    is_stream,
    parse,
    text_of,
)
from pangu_alpha.text.documents.opening import ArchiveError, byte_chunks, file_kind
from pangu_alpha.text.documents.read_options import ReadOptions, ReadReport
from pangu_alpha.text.documents.splitting import Splitter
from pangu_alpha.text.ledger import CharacterLedger

_BOM = "\ufeff"
_SURROGATE = re.compile("[\ud800-\udfff]")
_PARQUET_ROWS = 256  # rows held at a time


class DocumentReader:
    """Iterates over the documents of one file in order; `report` counts what was met so far.

    Args:
        path: A file of a kind that `opening.file_kind` knows.
        options: None is `ReadOptions()`.

    Raises:
        ValueError: The kind is not known; during iteration: bad input, with file and place.
        FileNotFoundError: There is no such file.
    """

    def __init__(self, path: str | Path, options: ReadOptions | None = None) -> None:
        self.path = Path(path)
        self.options = options or ReadOptions()
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        self._kind = file_kind(self.path, self.options.format)
        self._start()

    def _start(self) -> None:
        self._counts: Counter[str] = Counter()
        self._given = 0  # characters
        self._dropped: Counter[str] = Counter()
        self._damage: Exception | None = None

    @property
    def report(self) -> ReadReport:
        """The counts so far; they are final once the iteration has ended."""
        return ReadReport(**self._counts)

    @property
    def ledger(self) -> CharacterLedger:
        """Where the characters of the documents read so far went.

        Records that are not JSON, and documents that are too large or cut in two, never become text, so only
        the report counts them.
        """
        dropped = {reason: count for reason, count in self._dropped.items() if count}
        return CharacterLedger(self._given, self._counts["characters"], dropped)

    def __iter__(self) -> Iterator[str]:
        self._start()
        readers = {"txt": self._plain_texts, "json": self._json_texts, "parquet": self._parquet_texts}
        for text in readers[self._kind.format]():
            text = self._repaired(text)
            if not text.strip():
                self._drop("empty_documents", len(text))
                continue
            self._counts.update(documents=1, characters=len(text))
            yield text

    def check_beginning(self) -> None:
        """Reads the first MiB, so that a file in another encoding is refused before hours of work.

        Raises:
            ValueError: As during iteration.
        """
        if self._kind.format != "parquet":
            next(self._chunks(), None)
        self._start()

    # The functions below delete their names for raw bytes early: while the caller works on a huge text, its
    # bytes would otherwise be held as well.

    def _plain_texts(self) -> Iterator[str]:
        for number, raw in enumerate(self._units(self._chunks(), self.options.split, "document"), 1):
            text = self._decoded(raw, f"document {number}") if raw is not None else None
            del raw
            if text is None:
                continue
            self._given += len(text)
            length = len(text)
            text = text.replace("\r\n", "\n").removesuffix("\n")
            self._dropped["line_ends"] += length - len(text)
            if text.startswith(_BOM):  # concatenated files keep the byte order mark of each
                text = text[1:]
                self._drop("byte_order_marks", 1)
            yield text

    def _json_texts(self) -> Iterator[str]:
        chunks = self._chunks()
        head = next(chunks, b"")
        chunks = chain([head], chunks)
        for text in self._streamed_texts(chunks) if is_stream(head) else self._line_texts(chunks):
            self._given += len(text)
            yield text

    def _line_texts(self, chunks: Iterator[bytes]) -> Iterator[str]:
        for number, raw in enumerate(self._units(chunks, "line", "record"), 1):
            line = self._decoded(raw, f"record {number}") if raw is not None else None
            del raw
            text = self._line_text(line, f"record {number}") if line is not None else None
            del line
            if text is not None:
                yield text

    def _line_text(self, line: str, place: str) -> str | None:
        if line.startswith(_BOM):
            self._counts["byte_order_marks"] += 1
            line = line[1:]
        if not line.strip():
            return ""
        return self._text_of(lambda: text_of(parse(line, self.options.path), self.options.path), place)

    def _streamed_texts(self, chunks: Iterator[bytes]) -> Iterator[str]:
        stream = RecordStream(chunks, self.options.largest_document)
        number = 0
        try:
            for number, record in enumerate(stream, 1):
                text = self._streamed_text(record.source, record.value, f"record {number}")
                del record
                if text is not None:
                    yield text
        except TooLargeError:
            self._too_large(f"record {number + 1}")(len(stream.rest.encode(UTF8, "replace")))
            self._lose(chunks)
        except RecordError as error:
            if not self._damage:  # otherwise the record ends early with its archive, which is reported below
                self._broken("broken_records", f"record {number + 1}: {error}")
            self._counts["lost_bytes"] += len(stream.rest.encode(UTF8, "replace"))
            self._lose(chunks)
        self._counts["byte_order_marks"] += stream.byte_order_marks
        self._settle_damage()

    def _streamed_text(self, source: str, value: Any, place: str) -> str | None:
        if BAD in source:
            kept = self._with_bad_bytes(source.replace(BAD, "\ufffd"), place, "bytes that are no text")
            return self._line_text(kept, place) if kept is not None else None
        if isinstance(value, str):  # of a list of texts
            return value
        path = self.options.path
        return self._text_of(lambda: text_of(_parsed_again(source, value, path), path), place)

    def _text_of(self, found: Callable[[], str], place: str) -> str | None:
        try:
            return found()
        except RecordError as error:
            self._broken("missing_fields" if error.missing else "broken_records", f"{place}: {error}")
            return None

    def _lose(self, chunks: Iterator[bytes]) -> None:
        """Counts the remaining bytes as lost: after a broken record, the start of the next is unknown."""
        for chunk in chunks:
            self._counts["lost_bytes"] += len(chunk)

    def _parquet_texts(self) -> Iterator[str]:
        import pyarrow
        import pyarrow.parquet

        try:
            with self.path.open("rb") as file, pyarrow.parquet.ParquetFile(file) as table:
                path = self._column(table.schema_arrow.names)
                row, judge = 0, Judge(self.options.encoding, self.options.invalid_share, self.path.name)
                for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=[path[0]]):
                    for value in _values(batch.column(0)):
                        row += 1
                        text = self._parquet_text(value, path, f"row {row}", judge)
                        if text is not None:
                            self._given += len(text)
                            yield text
                judge.settle()
        except (pyarrow.ArrowException, ValueError) as error:
            raise ValueError(_located(self.path, str(error))) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise ValueError(_located(self.path, f"not a whole parquet file ({error})")) from error

    def _column(self, names: list[str]) -> tuple[str, ...]:
        """The column that holds the text, followed by the keys within its cells."""
        field = self.options.field
        if field in names:
            return (field,)
        if self.options.path[0] in names:
            return self.options.path
        raise ValueError(f"no column {quoted(field)}{closest(field, names)}")

    def _parquet_text(self, value: object, path: tuple[str, ...], place: str, judge: Judge) -> str | None:
        field = self.options.field
        if value is None:
            self._broken("missing_fields", f"{place}: column {quoted(field)} is null")
            return None
        if isinstance(value, str | bytes) and len(value) > self.options.largest_document:
            self._too_large(place)(len(value))
            return None
        if isinstance(value, bytes):
            return self._decoded(judge.converted_value(value, place), place)
        if isinstance(value, str):
            return value
        return self._text_of(lambda: text_of(value, path[1:]), place)

    def _units(self, chunks: Iterator[bytes], split: str, name: str) -> Iterator[bytes | None]:
        """Yields the bytes of one document or record after another; None for one that was too large."""
        number = 1
        splitter = Splitter(
            chunks, self.options.largest_document, lambda: self._too_large(f"{name} {number}")
        )
        for unit in splitter.split(split):
            number += 1
            yield unit
        if self._damage is not None:
            self._settle_damage(splitter.tail or b"")
        elif splitter.tail or splitter.tail is None:
            yield splitter.tail

    def _settle_damage(self, tail: bytes = b"") -> None:
        if self._damage is None:
            return
        self._counts["lost_bytes"] += len(tail)
        before = f"{self._counts['documents']} whole documents and {len(tail)} bytes of one more came before"
        self._broken("damaged_archives", f"damaged archive ({self._damage}); {before}")

    def _chunks(self) -> Iterator[bytes]:
        """Yields the file as UTF-8, with a line feed at the end of each line."""
        options = self.options
        chunks = as_utf8(self._raw_chunks(), options.encoding, options.invalid_share, self.path)
        first = next(chunks, b"")
        old = b"\r" in first and b"\n" not in first  # line ends of classic Mac OS
        for chunk in chain([first], chunks):
            yield chunk.replace(b"\r", b"\n") if old else chunk

    def _raw_chunks(self) -> Iterator[bytes]:
        try:
            yield from byte_chunks(self.path, self._kind.packing)
        except ArchiveError as error:
            self._damage = error

    def _decoded(self, raw: bytes, place: str) -> str | None:
        """Decodes a document, or returns None if it has bad bytes and the options skip such documents."""
        try:
            return raw.decode(UTF8)
        except UnicodeDecodeError as error:
            return self._with_bad_bytes(raw.decode(UTF8, "replace"), place, error)

    def _with_bad_bytes(self, text: str, place: str, why: object) -> str | None:
        if self.options.invalid_utf8 == "error":
            raise ValueError(_located(self.path, f"{place}: not {self._encoding_name} ({why})"))
        self._counts["invalid_utf8"] += 1
        if self.options.invalid_utf8 == "replace":
            return text
        self._given += len(text)
        self._drop("skipped_documents", len(text))
        return None

    @property
    def _encoding_name(self) -> str:
        return "UTF-8" if known_encoding(self.options.encoding) == UTF8 else self.options.encoding

    def _repaired(self, text: str) -> str:
        if "\0" in text:
            self._drop("nul_characters", text.count("\0"), text.count("\0"))
            text = text.replace("\0", "")
        if _SURROGATE.search(text):
            text, found = _SURROGATE.subn("\ufffd", text)
            self._counts["lone_surrogates"] += found
        return text

    def _drop(self, reason: str, characters: int, count: int = 1) -> None:
        self._counts[reason] += count
        self._dropped[reason] += characters

    def _too_large(self, place: str) -> Callable[[int], None]:
        """Raises for a document that is too large, or returns a function that counts its bytes as lost."""
        most = self.options.largest_document
        remedy = "a .txt file can be several documents (--split), and --largest-document allows more"
        self._broken("oversized_documents", f"{place}: a document of more than {most:,} bytes; {remedy}")

        def lose(size: int) -> None:
            self._counts["lost_bytes"] += size

        return lose

    def _broken(self, count: str, message: str) -> None:
        if self.options.broken == "error":
            raise ValueError(_located(self.path, f"{message}; --broken skip counts such cases and goes on"))
        self._counts[count] += 1


def _parsed_again(source: str, value: Any, names: tuple[str, ...]) -> Any:
    """The value of a record, parsed again with duplicate checks if a key on the path might occur twice."""
    return parse(source, names) if any(source.count(name) > 1 for name in names) else value


def _values(column: Any) -> Iterator[object]:
    """Yields the values of a column one by one; a text that is not UTF-8 comes as its bytes."""
    for cell in column:
        try:
            value = cell.as_py()
        except UnicodeDecodeError:
            value = bytes(cell.as_buffer())
        yield value


def _located(path: Path, message: str) -> str:
    return f"{shown(path)}: {message}"
