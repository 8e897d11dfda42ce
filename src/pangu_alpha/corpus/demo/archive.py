"""Writes WARC files whose bytes depend on nothing but their records."""

from __future__ import annotations

import gzip
import uuid
from collections.abc import Iterable, Mapping

_DATE = "2020-12-31T00:00:00Z"


def http_response(
    body: bytes,
    status: str = "200 OK",
    content_type: str = "text/html",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A response as it is stored in a WARC record."""
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"Content-Type: {content_type}"] if content_type else []
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def chunked(body: bytes, size: int = 1000) -> bytes:
    """A body in the chunked transfer coding."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def record(url: str, content: bytes) -> bytes:
    """One response record, packed by itself as crawlers do; its id follows from its address."""
    head = [
        "WARC/1.0",
        "WARC-Type: response",
        f"WARC-Record-ID: <urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, url)}>",
        f"WARC-Date: {_DATE}",
        f"WARC-Target-URI: {url}",
        "Content-Type: application/http; msgtype=response",
        f"Content-Length: {len(content)}",
    ]
    return gzip.compress("\r\n".join([*head, "", ""]).encode("utf-8") + content + b"\r\n\r\n", 6, mtime=0)


def archive(records: Iterable[tuple[str, bytes]]) -> bytes:
    """A whole file of records, from pairs of address and response."""
    return b"".join(record(url, content) for url, content in records)
