"""Opens corpus files as streams of bytes: detects a file's kind by its name or first bytes, and unpacks it.

Knows nothing about documents. Memory is one chunk, and for .xz and .zst the dictionary, at most 256 MiB.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from pangu_alpha.files.reading import POINTER_BYTES, refuse_pointer
from pangu_alpha.files.shown import shown

FORMATS = ("txt", "json", "parquet")
PACKINGS = ("gz", "bz2", "xz", "zst")
KNOWN = ".txt, .text, .jsonl, .ndjson, .json, each of them also with .gz, .bz2, .xz or .zst, and .parquet"
_ENDINGS = {"txt": "txt", "text": "txt", "jsonl": "json", "ndjson": "json", "jsonlines": "json",
            "json": "json", "parquet": "parquet"}  # fmt: skip
_WIKI = re.compile(r"wiki_\d+")  # what WikiExtractor calls its files
_MAGIC = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\0", "zst": b"\x28\xb5\x2f\xfd"}
_OTHERS = ((b"PK\x03\x04", "a zip archive; unpack it"), (b"PAR1", "a parquet file; name it so"),
           (b"%PDF", "a PDF file; take its text out"), (b"\x7fELF", "a program"),
           (b"Rar!", "a RAR archive; unpack it"), (b"7z\xbc\xaf", "a 7-Zip archive; unpack it"),
           (b"\xd0\xcf\x11\xe0", "a document of Word or Excel; save it as text"))  # fmt: skip
_CHUNK = 1 << 20
_HEAD = 1 << 16
_XZ_MEMORY = 1 << 28


class ArchiveError(ValueError):
    """A packed file that ends early, fails its checksum, or is not packed at all."""


@dataclass(frozen=True)
class Kind:
    """The kind of a corpus file.

    Args:
        format: One of FORMATS.
        packing: One of PACKINGS, or "" if the file is not packed.
    """

    format: str
    packing: str = ""


def kind_by_name(path: Path) -> Kind | None:
    """Returns the kind that a file's name implies, or None."""
    stem, dot, last = path.name.lower().rpartition(".")
    packing = last if dot and last in PACKINGS else ""
    name = stem if packing else path.name.lower()
    if _WIKI.fullmatch(name):
        return Kind("json", packing)
    format_ = _ENDINGS.get(name.rpartition(".")[2]) if "." in name else None
    return Kind(format_, packing) if format_ and not (packing and format_ == "parquet") else None


def file_kind(path: Path, format_: str = "auto") -> Kind:
    """Returns the kind of a file: as stated, else by its name, else JSON if its first line is a record.

    Args:
        format_: One of FORMATS, or "auto".

    Raises:
        ValueError: The kind cannot be determined, or the content is of another kind.
        OSError: The file cannot be read.
    """
    by_name = kind_by_name(path)
    packing = by_name.packing if by_name else path.suffix.lower()[1:]
    packing = packing if packing in PACKINGS else ""
    if format_ != "auto":
        kind = Kind(format_, "" if format_ == "parquet" else packing)
    elif by_name is not None:
        kind = by_name
    elif _begins_with_a_record(path, packing):
        kind = Kind("json", packing)
    else:
        hint = " (WikiExtractor's --json writes such)" if _head(path, packing).startswith(b"<doc ") else ""
        raise ValueError(
            f"{shown(path)}: unknown kind of file; known are {KNOWN}, and JSON records under any name"
            f"{hint}; --format says what a file of another name is"
        )
    _refuse_other_content(path, kind)
    return kind


def byte_chunks(path: Path, packing: str) -> Iterator[bytes]:
    """Yields the unpacked bytes of a file.

    Raises:
        ArchiveError: The archive is damaged; the bytes yielded before are intact.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        yield from unpacked_chunks(file, packing)


def unpacked_chunks(file: BufferedReader, packing: str) -> Iterator[bytes]:
    """Yields the unpacked bytes of an open file, from where it stands.

    Raises:
        ArchiveError: The archive is damaged; the bytes yielded before are intact.
        OSError: The file cannot be read.
    """
    if packing and not _MAGIC[packing].startswith(file.peek(6)[: len(_MAGIC[packing])] or b"-"):
        if not file.peek(1):
            return  # an empty file holds nothing, packed or not
        raise ArchiveError(f"it is no .{packing} file; take the ending away if it is not packed")
    reader = {"gz": _gzip, "bz2": _bz2, "xz": _xz, "zst": _zstd}.get(packing, _plain)
    try:
        yield from reader(file)
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise ArchiveError(str(error)) from error
    except OSError as error:  # without a number it comes from the unpacking, not from the system
        if error.errno is not None:
            raise
        raise ArchiveError(str(error)) from error


def _plain(file: BufferedReader | gzip.GzipFile | bz2.BZ2File) -> Iterator[bytes]:
    while chunk := file.read1(_CHUNK):
        yield chunk


def _gzip(file: BufferedReader) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as stream:
        yield from _plain(stream)


def _bz2(file: BufferedReader) -> Iterator[bytes]:
    with bz2.BZ2File(file) as stream:
        yield from _plain(stream)


def _xz(file: BufferedReader) -> Iterator[bytes]:
    """Unpacks like lzma.LZMAFile, but with a memory limit: that class lets a file ask for any amount."""
    rest = file.read1(_CHUNK)
    while rest:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not stream.eof:
            chunk = stream.decompress(rest, _CHUNK)
            if chunk:
                yield chunk
            rest = file.read1(_CHUNK) if stream.needs_input and not stream.eof else b""
            if not (rest or stream.eof) and stream.needs_input:
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")
        rest = (stream.unused_data or file.read1(_CHUNK)).lstrip(b"\0")


def _zstd(file: BufferedReader) -> Iterator[bytes]:
    import pyarrow

    with pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _refuse_other_content(path: Path, kind: Kind) -> None:
    with path.open("rb") as file:
        head = file.read(POINTER_BYTES)
    refuse_pointer(head, path)
    if kind.packing or kind.format == "parquet":
        return
    for packing, magic in _MAGIC.items():
        if head.startswith(magic):
            raise ValueError(f"{shown(path)}: is packed; name it {shown(path.name)}.{packing}")
    for magic, what in _OTHERS:
        if head.startswith(magic):
            raise ValueError(f"{shown(path)}: is no text but {what}")


def _begins_with_a_record(path: Path, packing: str) -> bool:
    line = _head(path, packing).removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]
    if not line.startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return len(line) > _HEAD // 2  # the first record is longer than what was read of it


def _head(path: Path, packing: str) -> bytes:
    try:
        return next(byte_chunks(path, packing), b"")[:_HEAD]
    except ArchiveError:
        return b""
