"""Pages from files of text, JSON and parquet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

from pangu_alpha.config.corpus import Reading
from pangu_alpha.corpus.reading.charset import decode
from pangu_alpha.corpus.reading.inputs import Input, Part, RecordNumbers
from pangu_alpha.corpus.reading.pages import Dropped, Page
from pangu_alpha.text.documents.json_records import RecordError, RecordStream, TooLargeError, parse, text_of
from pangu_alpha.text.documents.opening import ArchiveError, unpacked_chunks

Found = Page | Dropped
_SURROGATE = re.compile("[\ud800-\udfff]")
_PARQUET_ROWS = 256  # rows held at a time


def text_pages(stream: BufferedReader, file: Input, part: Part, reading: Reading) -> Iterator[Found]:
    """The documents of a file of plain text: all of it, its paragraphs, or its lines."""
    units = _units(stream, file, part, reading, reading.split)
    held = (unit for unit in units if unit.raw is None or unit.raw.strip() or reading.split == "file")
    for number, unit in enumerate(held):
        yield _not_held(number, unit) if unit.raw is None else _text_page(number, unit.raw, reading)


def line_pages(stream: BufferedReader, file: Input, part: Part, reading: Reading) -> Iterator[Found]:
    """The records of a file of JSON lines; blank lines are none."""
    numbers = RecordNumbers(file, None if file.packing else part.stop)
    for unit in _units(stream, file, part, reading, "line"):
        if unit.raw is None or unit.raw.strip():
            number = numbers.of(0 if file.packing else unit.place)
            raw = unit.raw
            yield _not_held(number, unit) if raw is None else _json_page(number, raw, reading)


def json_pages(stream: BufferedReader, file: Input, part: Part, reading: Reading) -> Iterator[Found]:
    """The records of a JSON file: the values of a list, or those of a stream over any number of lines."""
    number = 0
    records = RecordStream(unpacked_chunks(stream, file.packing), reading.largest_document)
    try:
        for record in records:
            yield _record_page(number, record.value, len(record.source.encode("utf-8", "replace")),
                               len(record.source), "utf-8", reading)  # fmt: skip
            number += 1
    except TooLargeError:
        yield Dropped(number, "", "too_large", len(records.rest.encode("utf-8", "replace")),
                      detail="a record larger than allowed; the records behind it are not read")  # fmt: skip
    except (RecordError, ArchiveError) as error:
        yield Dropped(number, "", "broken_record", len(records.rest.encode("utf-8", "replace")),
                      detail=f"{error}; the records behind it are not read")  # fmt: skip


def parquet_pages(stream: BufferedReader, file: Input, part: Part, reading: Reading) -> Iterator[Found]:
    """The rows of some row groups; a row's number counts from the beginning of the file."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(stream) as table:
            metadata = table.metadata
            number = sum(metadata.row_group(group).num_rows for group in range(part.start))
            names = [reading.field, reading.url_field, reading.title_field]
            columns = [name.split(".")[0] for name in names]
            columns = [each for each in dict.fromkeys(columns) if each in table.schema_arrow.names]
            groups = list(range(part.start, part.stop))
            for batch in table.iter_batches(_PARQUET_ROWS, row_groups=groups, columns=columns):
                for row in batch.to_pylist():
                    yield _row_page(number, row, reading)
                    number += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        yield Dropped(number, "", "broken_record", file.bytes, detail=f"not a whole parquet file ({error})")


def _row_page(number: int, row: dict[str, Any], reading: Reading) -> Found:
    text = _value(row, reading.field)
    if isinstance(text, bytes):
        page = _text_page(number, text, reading)
        return page if isinstance(page, Dropped) else _with_fields(page, row, reading)
    size = len(text.encode("utf-8", "replace")) if isinstance(text, str) else 0
    return _record_page(number, row, size, len(text) if isinstance(text, str) else 0, "utf-8", reading)


def _value(row: dict[str, Any], field: str) -> Any:
    """The value of a column, or of a field within one; None if there is none."""
    value: Any = row
    for key in [field] if field in row else field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _with_fields(page: Page, row: dict[str, Any], reading: Reading) -> Page:
    url, title = _field(row, reading.url_field), _field(row, reading.title_field)
    return Page(page.record, url, title, page.charset, page.text, "", page.bytes_in, page.characters_in)


def _text_page(number: int, raw: bytes, reading: Reading) -> Found:
    decoded = decode(raw, "" if reading.charset == "auto" else reading.charset)
    if decoded is None:
        return Dropped(number, "", "bad_charset", len(raw), detail="no encoding makes sense of the bytes")
    text = repaired(decoded.text)
    if not text.strip():
        return Dropped(number, "", "no_text", len(raw), len(text))
    return Page(number, "", "", decoded.charset, text, "", len(raw), len(decoded.text))


def _json_page(number: int, raw: bytes, reading: Reading) -> Found:
    decoded = decode(raw, "" if reading.charset == "auto" else reading.charset)
    if decoded is None:
        return Dropped(number, "", "bad_charset", len(raw), detail="no encoding makes sense of the bytes")
    try:
        record = parse(decoded.text.removeprefix("\ufeff"), (reading.field,))
    except RecordError as error:
        return Dropped(number, "", "broken_record", len(raw), len(decoded.text), str(error))
    return _record_page(number, record, len(raw), len(decoded.text), decoded.charset, reading)


def _record_page(
    number: int, record: Any, size: int, characters: int, charset: str, reading: Reading
) -> Found:
    url = _field(record, reading.url_field)
    if isinstance(record, str):  # a list of texts
        text = record
    else:
        try:
            text = text_of(record, tuple(reading.field.split(".")))
        except RecordError as error:
            return Dropped(number, url, "broken_record", size, characters, str(error))
    if size > reading.largest_document:
        return Dropped(number, url, "too_large", size, characters)
    text = repaired(text)
    if not text.strip():
        return Dropped(number, url, "no_text", size, characters)
    return Page(number, url, _field(record, reading.title_field), charset, text, "", size, characters)


def _field(record: Any, name: str) -> str:
    value = record.get(name) if isinstance(record, dict) else None
    return repaired(value) if isinstance(value, str) else ""


def repaired(text: str) -> str:
    """A text without NUL, whose lone surrogates have become U+FFFD, so that it can be written as UTF-8."""
    return _SURROGATE.sub("\ufffd", text.replace("\0", ""))


def _not_held(number: int, unit: _Unit) -> Dropped:
    if unit.fault:
        return Dropped(number, "", "broken_record", unit.size, detail=unit.fault)
    return Dropped(number, "", "too_large", unit.size, detail=f"{unit.size:,} bytes")


@dataclass(frozen=True)
class _Unit:
    """The bytes of one document; None if it is larger than allowed. `place` counts unpacked bytes."""

    place: int
    raw: bytes | None
    size: int
    fault: str = ""


def _units(stream: BufferedReader, file: Input, part: Part, reading: Reading, split: str) -> Iterator[_Unit]:
    """The documents that begin in a part; damage of an archive comes as a last one with a fault."""
    skipping = part.start > 0  # to the first line that begins in this part
    place = part.start - skipping
    if place:
        stream.seek(place)
    chunks = _Chunks(unpacked_chunks(stream, file.packing))
    if split == "file":
        yield from _whole(chunks, reading.largest_document)
    else:
        lines = _lines(chunks, place, reading.largest_document)
        if skipping:
            next(lines, None)
        for unit in lines if split == "line" else _paragraphs(lines, reading.largest_document):
            if not file.packing and unit.place >= part.stop:
                return
            yield unit
    if chunks.fault:
        yield _Unit(place, None, 0, chunks.fault)


class _Chunks:
    """Iterates up to damage, which `fault` then names."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self.fault = chunks, ""

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._chunks
        except ArchiveError as error:
            self.fault = f"a damaged archive ({error}); what came before it is kept"


def _whole(chunks: Iterable[bytes], most: int) -> Iterator[_Unit]:
    held, size = bytearray(), 0
    for chunk in chunks:
        size += len(chunk)
        held += chunk if size <= most else b""
    if size:
        yield _Unit(0, bytes(held) if size <= most else None, size)


def _lines(chunks: Iterable[bytes], place: int, most: int) -> Iterator[_Unit]:
    held, size = bytearray(), 0
    for chunk in chunks:
        for index, piece in enumerate(chunk.split(b"\n")):
            if index:
                yield _Unit(place, bytes(held) if size <= most else None, size)
                place += size + 1
                held, size = bytearray(), 0
            size += len(piece)
            held += piece if size <= most else b""
    if size:
        yield _Unit(place, bytes(held) if size <= most else None, size)


def _paragraphs(lines: Iterable[_Unit], most: int) -> Iterator[_Unit]:
    held: list[bytes | None] = []
    place = size = 0
    for line in lines:
        if line.raw is None or line.raw.strip():
            place = place if held else line.place
            size += line.size + bool(held)
            held.append(line.raw if size <= most else None)
        elif held:
            yield _joined(place, held, size)
            held, size = [], 0
    if held:
        yield _joined(place, held, size)


def _joined(place: int, lines: list[bytes | None], size: int) -> _Unit:
    whole = [line for line in lines if line is not None]
    return _Unit(place, b"\n".join(whole) if len(whole) == len(lines) else None, size)
