"""Takes the body out of an HTTP response as a WARC stores it: status, headers, chunks, compression."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/\d(?:\.\d)? +(\d{3})")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[^\n]{0,200}\n")
_WHOLE = 31  # zlib's window bits for gzip; 15 is zlib's own format, -15 none


@dataclass(frozen=True)
class Response:
    """A response; `status` is 0 if there is no status line."""

    status: int
    headers: dict[str, str]
    body: bytes


class BodyError(ValueError):
    """A body that cannot be unpacked, or is larger than allowed (`large`)."""

    def __init__(self, message: str, large: bool = False) -> None:
        super().__init__(message)
        self.large = large


def parse_response(content: bytes) -> Response:
    """Splits a stored response into its parts; the body is still encoded."""
    status = _STATUS.match(content)
    if status is None:
        return Response(0, {}, content)
    end = _BLANK_LINE.search(content)
    head, body = (content[: end.start()], content[end.end() :]) if end else (content, b"")
    headers: dict[str, str] = {}
    for line in head.splitlines()[1:]:
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    return Response(int(status[1]), headers, body)


def decoded_body(response: Response, largest: int) -> bytes:
    """Undoes the transfer coding and the content coding of a body.

    Crawlers often store a body decoded beside headers that name a coding, so a body that does not look like
    its coding is taken as it is.

    Raises:
        BodyError: The body is damaged, in an unknown coding, or larger than allowed.
    """
    body = response.body
    if "chunked" in response.headers.get("transfer-encoding", "").lower():
        body = _without_chunks(body)
    for coding in reversed(response.headers.get("content-encoding", "").lower().split(",")):
        body = _uncoded(body, coding.strip(), largest)
    if len(body) > largest:
        raise BodyError(f"{len(body):,} bytes", large=True)
    return body


def _without_chunks(body: bytes) -> bytes:
    pieces: list[bytes] = []
    place = 0
    while size := _CHUNK_SIZE.match(body, place):
        length = int(size[1], 16)
        if not length:
            return b"".join(pieces)
        place = size.end()
        if place + length > len(body):
            break
        pieces.append(body[place : place + length])
        place += length
        place += 2 if body[place : place + 2] == b"\r\n" else 1
    if not pieces:
        return body
    raise BodyError("the chunks of the body end too early")


def _uncoded(body: bytes, coding: str, largest: int) -> bytes:
    if coding in ("", "identity") or not body:
        return body
    if coding in ("gzip", "x-gzip"):
        return _inflated(body, _WHOLE, largest) if body.startswith(b"\x1f\x8b") else body
    if coding == "deflate":
        if body[:1] == b"\x78":
            return _inflated(body, 15, largest)
        return body if body.lstrip()[:1] == b"<" else _inflated(body, -15, largest)
    if body.lstrip()[:1] == b"<":
        return body
    raise BodyError(f"the body is packed as {coding[:20]!r}, which is not read")


def _inflated(body: bytes, bits: int, largest: int) -> bytes:
    stream = zlib.decompressobj(bits)
    try:
        out = stream.decompress(body, largest + 1)
    except zlib.error as error:
        raise BodyError(f"a damaged body ({error})") from error
    if len(out) > largest:
        raise BodyError(f"more than {largest:,} bytes unpacked", large=True)
    if not stream.eof:
        raise BodyError("the packed body ends too early")
    return out
