from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from pangu_alpha.text.documents.reading import DocumentReader, ReadOptions, ReadReport

TEXT = "第一篇\n第二行\n\n\n第二篇\r\n \r\n第三篇\n"


def write(path: Path, content: bytes | str) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def read(path: Path, **options: str) -> tuple[list[str], ReadReport]:
    reader = DocumentReader(path, ReadOptions(**options))
    return list(reader), reader.report


def records(*values: object) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("file", [TEXT.replace("\r\n", "\n").removesuffix("\n")]),
        ("blank_line", ["第一篇\n第二行", "第二篇", "第三篇"]),
        ("line", ["第一篇", "第二行", "第二篇", "第三篇"]),
    ],
)
def test_text_files(tmp_path, name, split, expected):
    got, report = read(write(tmp_path / name, TEXT), split=split)
    assert [text.rstrip("\r") for text in got] == expected
    assert (report.documents, report.characters) == (len(expected), sum(map(len, got)))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_jsonl_files(tmp_path, name):
    path = write(tmp_path / name, records({"text": "甲\n\n乙"}, {"id": 1, "text": "丙"}).rstrip("\n"))
    got, report = read(path)
    assert got == ["甲\n\n乙", "丙"]
    assert report == ReadReport(documents=2, characters=5)


def test_parquet_files(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"content": ["甲", None, "", "乙" * 3], "n": [1, 2, 3, 4]})
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path)
    got, report = read(path, field="content", broken="skip")
    assert got == ["甲", "乙乙乙"]
    assert report.problems == {"missing_fields": 1, "empty_documents": 1}
    with pytest.raises(ValueError, match=r"a\.parquet: row 2: column 'content' is null"):
        read(path, field="content")
    with pytest.raises(ValueError, match="no column 'contents'; did you mean 'content'"):
        read(path, field="contents")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"a\.parquet"):
        read(path, field="content")


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.jsonl.gz"])
def test_empty_file(tmp_path, name):
    got, report = read(write(tmp_path / name, b""))
    assert got == [] and report == ReadReport()


def test_blank_documents_are_counted(tmp_path):
    assert read(write(tmp_path / "a.txt", " \n\t"))[1].problems == {"empty_documents": 1}
    path = write(tmp_path / "a.jsonl", records({"text": " "}, {"text": "甲"}) + "\n")
    assert read(path)[1].problems == {"empty_documents": 2}


def test_invalid_utf8(tmp_path):
    path = write(tmp_path / "a.txt", "好\n".encode() + b"\xff\xfe\xe5\n" + "坏\n".encode())
    got, report = read(path, split="line")
    assert got[0] == "好" and "\ufffd" in got[1] and got[2] == "坏"
    assert report.problems == {"invalid_utf8": 1}
    got, report = read(path, split="line", invalid_utf8="skip")
    assert got == ["好", "坏"]
    assert report.problems == {"invalid_utf8": 1, "skipped_documents": 1}
    with pytest.raises(ValueError, match=r"a\.txt: document 2: not UTF-8"):
        read(path, split="line", invalid_utf8="error")


def test_byte_order_mark_nul_and_surrogates(tmp_path):
    got, report = read(write(tmp_path / "a.txt", b"\xef\xbb\xbf" + "汉\0朝\0".encode()))
    assert got == ["汉朝"]
    assert report.problems == {"byte_order_marks": 1, "nul_characters": 2}
    path = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + b'{"text": "a\\ud83d b\\u0000"}\n')
    got, report = read(path)
    assert got == ["a\ufffd b"]
    assert report.problems == {"byte_order_marks": 1, "nul_characters": 1, "lone_surrogates": 1}


def test_utf16_is_named(tmp_path):
    with pytest.raises(ValueError, match="UTF-16; convert it"):
        read(write(tmp_path / "a.txt", "汉朝".encode("utf-16")))


def test_broken_records_are_refused_with_their_place_or_counted(tmp_path):
    content = (
        records({"text": "甲"}, {"texts": "乙"}, {"text": 3}, ["丙"])
        + '{"text": "丁\n'
        + records({"text": "戊"})
    )
    path = write(tmp_path / "a.jsonl", content)
    with pytest.raises(ValueError, match=r"a\.jsonl: record 2: no field 'text'; did you mean 'texts'"):
        read(path)
    got, report = read(path, broken="skip")
    assert got == ["甲", "戊"]
    assert report.problems == {"broken_records": 3, "missing_fields": 1}


@pytest.mark.parametrize(("split", "whole"), [("line", True), ("blank_line", True), ("file", False)])
def test_truncated_gzip(tmp_path, split, whole):
    lines = [f"第{number}行：{number * 7919 % 1000}" for number in range(20_000)]
    path = write(tmp_path / "a.txt.gz", ("\n\n" if split == "blank_line" else "\n").join(lines))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"a\.txt\.gz: damaged archive .* \d+ whole documents"):
        read(path, split=split)
    got, report = read(path, split=split, broken="skip")
    assert got == lines[: len(got)]
    assert bool(got) == whole
    assert report.damaged_archives == 1
    assert not got or report.lost_bytes < len(lines[-1].encode())


def test_flipped_gzip_is_found(tmp_path):
    path = write(tmp_path / "a.txt.gz", "汉朝天下\n" * 100)
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1  # in the checksum
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="damaged archive"):
        read(path, split="line")
    path.write_bytes(b"not gzip at all")
    with pytest.raises(ValueError, match="damaged archive"):
        read(path)


def test_one_huge_line_is_held_about_once(tmp_path):
    size = 12_000_000  # bytes; 4 million characters, 8 MB as Python text
    path = write(tmp_path / "a.txt", "汉".encode() * (size // 3))
    tracemalloc.start()
    reader = DocumentReader(path, ReadOptions(split="line"))
    lengths = [len(text) for text in reader]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lengths == [size // 3]
    assert peak < 4.5 * size  # Python's UTF-8 decoder alone takes three times the bytes for a moment


def test_report_is_that_of_the_last_iteration(tmp_path):
    reader = DocumentReader(write(tmp_path / "a.txt", "甲\n乙"), ReadOptions(split="line"))
    assert list(reader) == list(reader) == ["甲", "乙"]
    assert reader.report == ReadReport(documents=2, characters=2)
    assert reader.report + reader.report == ReadReport(documents=4, characters=4)


def test_bad_options_kinds_and_paths(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)split: 'page' is not one of file.*broken: 'ignore'"):
        ReadOptions(split="page", broken="ignore")
    with pytest.raises(ValueError, match="unknown kind of file"):
        DocumentReader(write(tmp_path / "a.pdf", b"x"))
    with pytest.raises(FileNotFoundError, match=r"a\.txt: no such file"):
        DocumentReader(tmp_path / "a.txt")


@pytest.mark.parametrize("split", ["file", "blank_line", "line"])
def test_a_document_has_a_largest_size(tmp_path, split):
    gap = {"file": "", "blank_line": "\n\n", "line": "\n"}[split]
    parts = ["前" * 10, "大" * 40, "后" * 10] if gap else ["大" * 40]
    path = write(tmp_path / "a.txt", gap.join(parts))
    number = 2 if gap else 1
    with pytest.raises(
        ValueError, match=rf"a\.txt: document {number}: a document of more than 100 bytes.*--split"
    ):
        read(path, split=split, largest_document=100)
    got, report = read(path, split=split, largest_document=100, broken="skip")
    assert got == parts[:1] + parts[2:] if gap else got == []
    lost = 120 + (split == "blank_line")  # with its line end
    assert (report.oversized_documents, report.lost_bytes) == (1, lost)
    assert read(path, split=split, largest_document=120 + 1)[0] == parts


def test_a_bomb_is_refused_as_soon_as_it_is_one(tmp_path):
    path = tmp_path / "a.txt.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(ValueError, match="document 1: a document of more than 4,194,304 bytes"):
        read(path, largest_document=4 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20


def test_a_bomb_that_is_left_out_is_counted_without_being_held(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"text": "before"}\n')
        for _ in range(32):
            file.write(bytes(1 << 20))
        file.write(b'\n{"text": "after"}\n')
    tracemalloc.start()
    got, report = read(path, largest_document=1 << 20, broken="skip")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got == ["before", "after"] and peak < 12 << 20
    assert report.problems == {"oversized_documents": 1, "lost_bytes": 32 << 20}


def test_parquet_cells_have_a_largest_size_and_may_be_nested(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"parts": [{"text": "甲"}, {"text": "乙"}]}, {"parts": [{"text": "丙"}]}]
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"doc": rows, "text": ["x" * 200, "y"]}), path)
    assert read(path, field="doc.parts.text")[0] == ["甲\n乙", "丙"]
    with pytest.raises(ValueError, match="row 1: no field 'title'; there is 'parts'"):
        read(path, field="doc.title")
    with pytest.raises(ValueError, match="row 1: a document of more than 100 bytes"):
        read(path, largest_document=100)
    path.write_bytes(b"PAR1" + b"\xff" * 100 + b"PAR1")
    with pytest.raises(ValueError, match=r"a\.parquet: "):
        read(path)


def test_marks_of_files_put_together(tmp_path):
    path = write(tmp_path / "a.txt", "\ufeff甲\n\n\ufeff乙\n\n丙")
    got, report = read(path, split="blank_line")
    assert got == ["甲", "乙", "丙"] and report.problems == {"byte_order_marks": 2}


def test_lines_of_an_old_system(tmp_path):
    assert read(write(tmp_path / "a.txt", "甲\r乙\r\r丙"), split="line")[0] == ["甲", "乙", "丙"]
    assert read(write(tmp_path / "a.txt", "甲\r乙\n丙"), split="line")[0] == ["甲\r乙", "丙"]


def test_options_that_cannot_be():
    for changes in (
        {"invalid_share": float("nan")},
        {"largest_document": 0},
        {"field": ""},
        {"format": "csv"},
    ):
        with pytest.raises(ValueError, match=next(iter(changes))):
            ReadOptions(**changes)
