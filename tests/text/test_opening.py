"""Kinds of files by name and content; packed files: whole, in several parts, cut, damaged, or not packed."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from pangu_alpha.text.documents.opening import ArchiveError, Kind, byte_chunks, file_kind
from pangu_alpha.text.documents.reading import DocumentReader, ReadOptions

LINES = "".join(f"第{number}行，{number * 7919 % 10_007}\n" for number in range(40_000)).encode()


def zstd(content: bytes) -> bytes:
    import pyarrow

    return pyarrow.compress(content, "zstd", asbytes=True)


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("packing", PACK)
def test_packed_files_are_read_to_their_end(tmp_path, packing):
    path = tmp_path / f"a.txt.{packing}"
    first, second = PACK[packing](LINES), PACK[packing](b"second part\n")
    assert b"".join(byte_chunks(write(path, first), packing)) == LINES
    assert b"".join(byte_chunks(write(path, first + second), packing)) == LINES + b"second part\n"
    assert b"".join(byte_chunks(write(path, b""), packing)) == b""
    assert b"".join(byte_chunks(write(path, PACK[packing](b"")), packing)) == b""


@pytest.mark.parametrize("packing", PACK)
def test_a_packed_file_that_ends_early_is_damaged(tmp_path, packing):
    path = write(tmp_path / f"a.txt.{packing}", PACK[packing](LINES)[:-9])
    with pytest.raises(ArchiveError):
        list(byte_chunks(path, packing))
    with pytest.raises(ValueError, match=r"a\.txt\.\w+: damaged archive .* whole documents"):
        list(DocumentReader(path, ReadOptions(split="line")))
    reader = DocumentReader(path, ReadOptions(split="line", broken="skip"))
    kept = list(reader)
    assert kept == LINES.decode().splitlines()[: len(kept)] and reader.report.damaged_archives == 1


@pytest.mark.parametrize("packing", PACK)
def test_a_flipped_byte_is_found(tmp_path, packing):
    content = bytearray(PACK[packing](LINES))
    content[len(content) // 2] ^= 0x55
    with pytest.raises(ArchiveError):
        list(byte_chunks(write(tmp_path / f"a.txt.{packing}", bytes(content)), packing))


@pytest.mark.parametrize("packing", PACK)
def test_a_file_that_is_not_packed_is_said_to_be_none(tmp_path, packing):
    path = write(tmp_path / f"a.txt.{packing}", b"plain text")
    with pytest.raises(ValueError, match=rf"damaged archive \(it is no \.{packing} file; take the ending"):
        list(DocumentReader(path))


@pytest.mark.parametrize("packing", PACK)
def test_a_packed_file_without_the_ending_is_named(tmp_path, packing):
    path = write(tmp_path / "a.txt", PACK[packing](LINES))
    with pytest.raises(ValueError, match=rf"a\.txt: is packed; name it a\.txt\.{packing}"):
        DocumentReader(path)


@pytest.mark.parametrize(
    ("content", "what"), [(b"PK\3\4xx", "zip archive"), (b"%PDF-1.7", "PDF"), (b"PAR1", "parquet file")]
)
def test_other_files_named_as_text_are_refused(tmp_path, content, what):
    with pytest.raises(ValueError, match=rf"a\.txt: is no text but an? {what}"):
        DocumentReader(write(tmp_path / "a.txt", content))


def test_an_xz_file_cannot_ask_for_any_memory(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    path = write(tmp_path / "a.txt.xz", lzma.compress(b"text", filters=filters))
    with pytest.raises(ArchiveError, match="Memory usage limit"):
        list(byte_chunks(path, "xz"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("A.TXT", Kind("txt")),
        ("a.text.bz2", Kind("txt", "bz2")),
        ("a.ndjson.xz", Kind("json", "xz")),
        ("a.JSON.Zst", Kind("json", "zst")),
        ("a.b.jsonlines", Kind("json")),
        ("wiki_00", Kind("json")),
        ("wiki_17.bz2", Kind("json", "bz2")),
    ],
)
def test_kinds_by_name(tmp_path, name, kind):
    assert file_kind(write(tmp_path / name, b"")) == kind


def test_kinds_by_the_first_line_or_the_option(tmp_path):
    assert file_kind(write(tmp_path / "part-00000", b'\n{"text": "x"}\n')) == Kind("json")
    assert file_kind(write(tmp_path / "dump.gz", gzip.compress(b'{"text": "x"}'))) == Kind("json", "gz")
    assert file_kind(write(tmp_path / "long", b'{"text": "' + b"x" * 100_000)) == Kind("json")
    notes = write(tmp_path / "notes.md", b"text")
    assert file_kind(notes, "txt") == Kind("txt")
    for path in (notes, write(tmp_path / "a.parquet.gz", b""), write(tmp_path / "b", b"{not JSON}\n")):
        with pytest.raises(ValueError, match="unknown kind of file.*--format"):
            file_kind(path)
    with pytest.raises(ValueError, match="WikiExtractor's --json"):
        file_kind(write(tmp_path / "wiki", b'<doc id="1">\n'))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.jsonl.gz", "a.txt.xz", "a.parquet"])
def test_a_pointer_of_git_lfs_is_no_text(tmp_path, name):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5242880\n"
    with pytest.raises(ValueError, match=f"{name}: a git-LFS pointer of a file of 5,242,880 bytes"):
        file_kind(write(tmp_path / name, pointer))
