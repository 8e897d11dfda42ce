"""Reads one part of an input: every record becomes a page or is dropped for a reason."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

from pangu_alpha.config.corpus import Reading
from pangu_alpha.corpus.reading.charset import decode, meta_charset, stated_charset
from pangu_alpha.corpus.reading.html import HtmlError, extract
from pangu_alpha.corpus.reading.http import BodyError, decoded_body, parse_response
from pangu_alpha.corpus.reading.inputs import Input, Opener, Part, RecordNumbers
from pangu_alpha.corpus.reading.pages import Dropped, Page
from pangu_alpha.corpus.reading.records import (
    json_pages,
    line_pages,
    parquet_pages,
    repaired,
    text_pages,
)
from pangu_alpha.corpus.reading.warc import WarcRecord, warc_records
from pangu_alpha.text.documents.opening import ArchiveError, unpacked_chunks

Found = Page | Dropped
_HTML_TYPES = ("text/html", "application/xhtml+xml")


def read_part(opener: Opener, file: Input, part: Part, reading: Reading) -> Iterator[Found]:
    """Yields every record that begins in a part of a file, in order, as a page or as dropped.

    Args:
        opener: Opens a path as a binary file that can seek.
        file: The file with its kind.

    Raises:
        OSError: The file cannot be read.
    """
    readers: dict[str, Callable[..., Iterator[Found]]] = {
        "warc": _warc_pages,
        "wet": _warc_pages,
        "html": _html_file,
        "text": text_pages,
        "jsonl": line_pages,
        "json": json_pages,
        "parquet": parquet_pages,
    }
    if file.kind not in readers:
        yield Dropped(0, "", "unknown_kind", file.bytes, detail="neither name nor content tell what it is")
        return
    with opener(file.path) as raw:
        yield from readers[file.kind](_buffered(raw), file, part, reading)


def _buffered(raw: Any) -> Any:
    """The file with `peek`, which pyarrow's files do not have."""
    return raw if hasattr(raw, "peek") else io.BufferedReader(raw, 1 << 18)


def _warc_pages(stream: io.BufferedReader, file: Input, part: Part, reading: Reading) -> Iterator[Found]:
    numbers = RecordNumbers(file, part.stop)
    if file.packing not in ("", "gz"):
        yield Dropped(0, "", "unknown_kind", file.bytes, detail=f"WARC packed as .{file.packing} is not read")
        return
    packed = file.packing == "gz"
    for record in warc_records(stream, packed, part.start, part.stop, reading.largest_document):
        if record.fault or record.headers.get("warc-type", "").lower() in ("response", "conversion"):
            yield _record_page(numbers.of(record.place), record, reading)


def _record_page(number: int, record: WarcRecord, reading: Reading) -> Found:
    url = repaired(record.headers.get("warc-target-uri", "").strip("<>"))
    if record.fault:
        return Dropped(number, url, "broken_record", record.size, detail=record.fault)
    if record.content is None:
        return Dropped(number, url, "too_large", record.size, detail=f"{record.size:,} bytes")
    if record.headers["warc-type"].lower() == "conversion":
        return _conversion(number, url, record.content)
    response = parse_response(record.content)
    size = len(record.content)
    if response.status and not 200 <= response.status < 300:
        return Dropped(number, url, "not_2xx", size, detail=f"status {response.status}")
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not response.status or (kind and kind not in _HTML_TYPES):
        return Dropped(number, url, "not_html", size, detail=kind or "no HTTP response")
    try:
        body = decoded_body(response, reading.largest_document)
    except BodyError as error:
        return Dropped(number, url, "too_large" if error.large else "broken_record", size, detail=str(error))
    if "warc-truncated" in record.headers and not body:
        return Dropped(number, url, "broken_record", size, detail="the crawler kept nothing of the page")
    header = stated_charset(response.headers.get("content-type", ""))
    return html_page(number, url, body, header, reading, size)


def _conversion(number: int, url: str, content: bytes) -> Found:
    """A record of WET: text that the crawler's own extractor made, always UTF-8."""
    text = repaired(content.decode("utf-8", "replace"))
    if not text.strip():
        return Dropped(number, url, "no_text", len(content), len(text))
    title = text.lstrip().partition("\n")[0].strip()
    return Page(number, url, title, "utf-8", text, "", len(content), len(text))


def _html_file(stream: io.BufferedReader, file: Input, part: Part, reading: Reading) -> Iterator[Found]:
    try:
        held, size = bytearray(), 0
        for chunk in unpacked_chunks(stream, file.packing):
            size += len(chunk)
            held += chunk if size <= reading.largest_document else b""
    except ArchiveError as error:
        yield Dropped(0, file.path, "broken_record", file.bytes, detail=f"a damaged archive ({error})")
        return
    if size > reading.largest_document:
        yield Dropped(0, file.path, "too_large", size, detail=f"{size:,} bytes")
        return
    yield html_page(0, file.path, bytes(held), "", reading, size)


def html_page(number: int, url: str, body: bytes, header: str, reading: Reading, size: int) -> Found:
    """Decodes one page and takes its main text out.

    Args:
        header: The encoding that the response's header names, or "".
        size: Bytes of the record, for the count.
    """
    if not body.strip():
        return Dropped(number, url, "no_text", size)
    decoded = decode(body, header, meta_charset(body))
    if decoded is None:
        return Dropped(number, url, "bad_charset", size, detail="no encoding makes sense of the bytes")
    html, characters = repaired(decoded.text), len(decoded.text)
    try:
        found = extract(html, reading)
    except HtmlError as error:
        return Dropped(number, url, "too_large", size, characters, str(error))
    if not found.text:
        return Dropped(number, url, "no_text", size, characters)
    title, text, rest = (repaired(each) for each in (found.title, found.text, found.boilerplate))
    return Page(number, url, title, decoded.charset, text, rest, size, characters)
