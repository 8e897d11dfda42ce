"""JSON in all the shapes in which corpora come: lines, lists, pretty-printed, nested, broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pangu_alpha.text.documents.json_records import RecordError, RecordStream, is_stream, parse, text_of
from pangu_alpha.text.documents.reading import DocumentReader, ReadOptions, ReadReport

TEXTS = ["甲\n乙", '丙"{[,]}\\', "丁" * 300, "戊\u2028己"]
RECORDS = [{"id": number, "text": text, "more": {"x": [1, 2.5, None]}} for number, text in enumerate(TEXTS)]


def read(path: Path, content: str | bytes, **options: object) -> tuple[list[str], ReadReport]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    reader = DocumentReader(path, ReadOptions(**options))
    return list(reader), reader.report


def dump(value: object, **options: object) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


SHAPES = {
    "lines": "\n".join(map(dump, RECORDS)),
    "lines of another system": "\r\n".join(map(dump, RECORDS)),
    "lines of an old system": "\r".join(map(dump, RECORDS)),
    "marks before records": "\n".join("\ufeff" + dump(record) for record in RECORDS),
    "list": dump(RECORDS),
    "pretty list": "\n" + dump(RECORDS, indent=2),
    "two lists": dump(RECORDS[:2]) + "\n" + dump(RECORDS[2:]),
    "pretty records": "\n".join(dump(record, indent=2) for record in RECORDS),
    "list of texts": dump(TEXTS),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_every_shape_gives_the_same_documents(tmp_path, shape, name):
    got, report = read(tmp_path / name, SHAPES[shape])
    assert got == TEXTS
    marks = report.problems.pop("byte_order_marks", 0)
    assert marks == (4 if "marks" in shape else 0)
    assert {**report.problems, "byte_order_marks": 0} == {"byte_order_marks": 0}


@pytest.mark.parametrize("size", [1, 2, 5, 64, 10_000])
def test_a_stream_may_be_cut_anywhere(size):
    content = (dump([*RECORDS, 12345, -1.5e300, True, "文"], indent=1) + " 678 9").encode()
    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    values = [record.value for record in RecordStream(chunks, 10**6)]
    assert values == [*RECORDS, 12345, -1.5e300, True, "文", 678, 9]


@pytest.mark.parametrize(
    ("field", "record", "text"),
    [
        ("meta.text", {"meta": {"text": "甲"}}, "甲"),
        ("meta.text", {"meta.text": "甲", "meta": {"text": "乙"}}, "甲"),
        ("a.b.c", {"a": {"b.c": "甲"}}, "甲"),
        ("段落.内容", {"段落": [{"内容": "甲", "行号": 0}, {"内容": "乙"}]}, "甲\n乙"),
        ("text", {"text": ["甲", "乙"]}, "甲\n乙"),
        ("text", {"text": [["甲"], ["乙", "丙"]]}, "甲\n乙\n丙"),
        ("text", {"text": []}, ""),
    ],
)
def test_fields(field, record, text):
    assert text_of(record, field.split(".")) == text


@pytest.mark.parametrize(
    ("field", "record", "reason", "missing"),
    [
        ("text", {"texts": "甲"}, "no field 'text'; did you mean 'texts'", True),
        ("meta.text", {"meta": {"title": "x"}}, "no field 'text'; there is 'title'", True),
        ("meta.text", {"meta": "甲"}, "a JSON str, not an object with field", False),
        ("text", {"text": ["甲", None]}, "field 'text' is null", True),
        ("text", {"text": ["甲", 3]}, "field 'text' holds int", False),
        ("段落.内容", {"段落": [{"内容": "甲"}, {}]}, "no field '内容'", True),
        ("text", ["甲"], "a JSON str, not an object", False),
    ],
)
def test_fields_that_are_not_there(field, record, reason, missing):
    with pytest.raises(RecordError, match=reason) as caught:
        text_of(record, field.split("."))
    assert caught.value.missing == missing


@pytest.mark.parametrize("shape", ["{}", "[{}]"])
def test_what_nests_without_end_is_a_broken_record(tmp_path, shape):
    deep = shape.replace("{}", '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(ValueError, match="record 1: lists and objects in one another, too deep"):
        read(tmp_path / "a.json", deep)
    got, report = read(tmp_path / "a.json", f'{deep}\n{{"text": "甲"}}', broken="skip")
    assert report.broken_records == 1 and got == (["甲"] if shape == "{}" else [])
    assert report.lost_bytes > 100_000 or shape == "{}"  # what follows in a list has no line to begin at


def test_numbers_of_any_length_do_not_matter(tmp_path):
    got, _ = read(tmp_path / "a.jsonl", '{"id": ' + "9" * 5000 + ', "text": "甲"}\n')
    assert got == ["甲"]
    got, _ = read(tmp_path / "a.json", '[{"id": ' + "9" * 5000 + ', "text": "甲"}]')
    assert got == ["甲"]


@pytest.mark.parametrize("shape", ["{}", "[{}]"])
def test_a_field_that_stands_twice_is_a_broken_record(tmp_path, shape):
    twice = shape.replace("{}", '{"text": "甲", "id": 1, "text": "乙"}')
    with pytest.raises(ValueError, match="record 1: key 'text' twice in one object"):
        read(tmp_path / "a.json", twice)
    harmless = '{"text": "甲 \\"text\\"", "id": 1, "id": 2, "meta": {"text": "乙"}}'
    assert read(tmp_path / "a.json", shape.replace("{}", harmless))[0] == ['甲 "text"']


@pytest.mark.parametrize(
    ("content", "reason", "kept"),
    [
        ('[{"text": "甲"}, {"text": "乙"}', "record 3: the list does not end", ["甲", "乙"]),
        ('[{"text": "甲"}, {"text": "乙', "record 2: not JSON .Unterminated string", ["甲"]),
        ('[{"text": "甲"}, {"text": oops, "more": "and more text than that"}]', "record 2: not JSON", ["甲"]),
        ('[{"text": "甲"}, 3]', "record 2: a JSON int, not an object", ["甲"]),
    ],
)
def test_a_broken_list_is_refused_or_its_rest_counted(tmp_path, content, reason, kept):
    with pytest.raises(ValueError, match=reason):
        read(tmp_path / "a.json", content)
    got, report = read(tmp_path / "a.json", content, broken="skip")
    assert got == kept and report.broken_records == 1
    lost = content.encode().partition(b'{"text": "\xe7\x94\xb2"}, ')[2] if kept == ["甲"] else b""
    assert report.lost_bytes == (len(lost) if not content.endswith("3]") else 0)


def test_bad_bytes_in_a_list(tmp_path):
    content = dump(RECORDS).encode().replace("丙".encode(), b"\xff")
    got, report = read(tmp_path / "a.json", content)
    assert got[1] == '\ufffd"{[,]}\\' and report.invalid_utf8 == 1 and len(got) == 4
    got, report = read(tmp_path / "a.json", content, invalid_utf8="skip")
    assert len(got) == 3 and report.skipped_documents == 1
    with pytest.raises(ValueError, match="record 2: not UTF-8"):
        read(tmp_path / "a.json", content, invalid_utf8="error")


def test_a_record_has_a_largest_size(tmp_path):
    for name, content in (("a.jsonl", "\n".join(map(dump, RECORDS))), ("a.json", dump(RECORDS, indent=1))):
        with pytest.raises(ValueError, match=rf"{name}: record 3: a document of more than 500 bytes"):
            read(tmp_path / name, content, largest_document=500)


def test_what_is_a_stream():
    assert is_stream(b"[") and is_stream(b'[{"text": "x"},\n') and is_stream(b'{\n "text": 1\n}\n{')
    assert not is_stream(b'{"text": "x"}\n[1]') and not is_stream(b"") and not is_stream(b'{"text": "x\n{}')


def test_parse_says_what_is_wrong():
    with pytest.raises(RecordError, match="not JSON"):
        parse("{")
    assert parse('{"a": NaN}')["a"] != 0
