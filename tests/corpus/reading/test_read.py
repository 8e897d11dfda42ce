from __future__ import annotations

import contextlib
import gzip
import io
import json
import zlib

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from pangu_alpha.config.corpus import Reading
from pangu_alpha.corpus.reading import Dropped, Input, Page, Part, kind_of, read_part, split
from pangu_alpha.corpus.reading.html import nesting
from pangu_alpha.corpus.reading.inputs import RecordNumbers

PROSE = "天下大势，分久必合，合久必分。周末七国分争，并入于秦。及秦灭之后，楚、汉分争，又并入于汉。"
HTML = (
    "<html><head><title>三国 演义</title></head><body><nav><ul><li><a href=/>首页</a></ul></nav>"
    f"<article><h1>第一回</h1><p>{PROSE}</p><p>{PROSE[::-1]}</p></article><footer>版权所有</footer></body></html>"
)


def reads(data, kind="", name="x", reading=None, largest=None):
    """All pages of a file with these bytes, read in as many parts as it is split into."""

    def opener(_):
        return contextlib.closing(io.BytesIO(data))

    kind = kind or kind_of(name, data)
    file = Input(name, kind, "s", len(data))
    parts = split(0, file, opener, largest) if largest else split(0, file, opener)
    return [each for part in parts for each in read_part(opener, file, part, reading or Reading())]


def response(body, status="200 OK", kind="text/html; charset=utf-8", headers=()):
    lines = [f"HTTP/1.1 {status}", *([f"Content-Type: {kind}"] if kind else []), *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def warc(*contents, type_="response"):
    records = []
    for number, content in enumerate(contents):
        lines = ["WARC/1.0", f"WARC-Type: {type_}", f"WARC-Target-URI: http://h/{number}"]
        head = "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""])
        records.append(head.encode() + content + b"\r\n\r\n")
    return b"".join(records)


def reasons(found):
    return [each.reason if isinstance(each, Dropped) else "page" for each in found]


def test_a_page_has_its_main_text_and_the_boilerplate_apart():
    (page,) = reads(warc(response(HTML.encode())), "warc")
    assert isinstance(page, Page)
    assert (page.url, page.title, page.charset) == ("http://h/0", "三国 演义", "utf-8")
    assert PROSE in page.text
    assert "首页" not in page.text
    assert "首页" in page.boilerplate
    assert "版权所有" in page.boilerplate
    assert (page.bytes_in, page.characters_in) == (len(response(HTML.encode())), len(HTML))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (response(HTML.encode()), "page"),
        (response(HTML.encode(), kind=""), "page"),
        (response(HTML.encode(), "301 Moved"), "not_2xx"),
        (response(HTML.encode(), "404 Not Found"), "not_2xx"),
        (response(b"\x89PNG", kind="image/png"), "not_html"),
        (b"no response at all", "not_html"),
        (response(b""), "no_text"),
        (response(b"<html><body></body></html>"), "no_text"),
        (response(bytes(range(128, 256)) * 9, kind="text/html"), "bad_charset"),
        (response(b"<div>" * 100_000 + PROSE.encode()), "too_large"),
        (response(b"<b></b>" * 400_000 + PROSE.encode()), "too_large"),
        (response(b"<script>" + b"for(i=0;i<n;i++){}" * 600 + b"</script>" + HTML.encode()), "page"),
        (response(gzip.compress(HTML.encode()), headers=["Content-Encoding: gzip"]), "page"),
        (response(zlib.compress(HTML.encode()), headers=["Content-Encoding: deflate"]), "page"),
        (response(HTML.encode(), headers=["Content-Encoding: gzip"]), "page"),
        (response(gzip.compress(HTML.encode())[:-9], headers=["Content-Encoding: gzip"]), "broken_record"),
        (response(b"\x0b\x02\x80" * 9, headers=["Content-Encoding: br"]), "broken_record"),
        (response(gzip.compress(b"\0" * (1 << 21)), headers=["Content-Encoding: gzip"]), "too_large"),
    ],
)  # fmt: skip
def test_every_response_is_a_page_or_dropped_for_its_reason(content, reason):
    assert reasons(
        reads(
            warc(content),
            "warc",
            reading=Reading(largest_document=3 << 20 if len(content) > 9999 else 1 << 20),
        )
    ) == [reason]


def test_chunks_are_joined_and_a_lying_header_is_seen_through():
    raw = HTML.encode()
    body = b"%x\r\n%b\r\n%x;note=1\r\n%b\r\n0\r\n\r\n" % (100, raw[:100], len(raw) - 100, raw[100:])
    chunked = ["Transfer-Encoding: chunked"]
    found = reads(warc(response(body, headers=chunked), response(raw, headers=chunked),
                       response(body[:300], headers=chunked)), "warc")  # fmt: skip
    assert reasons(found) == ["page", "page", "broken_record"]
    assert found[0].text == found[1].text


def test_a_head_ends_at_its_first_blank_line():
    body = f"<html><body><p>{PROSE}</p>\r\n\r\n<p>甲。</p></body></html>".encode()
    (page,) = reads(warc(b"HTTP/1.1 200 OK\nContent-Type: text/html\n\n" + body), "warc")
    assert PROSE in page.text


def test_nesting_is_counted_and_flat_elements_are_not():
    assert nesting("<p>a<p>b<br><img src=x><li>c<li>d") == 0
    assert nesting("<div><DIV><span></span></DIV></div>") == 3
    assert nesting("</div></div><div>") == 1
    assert nesting("<svg><path/><path/></svg>") == 1
    assert nesting("a < b and c > d") == 0


def test_a_conversion_of_wet_is_text():
    (page,) = reads(warc(f"题目\n{PROSE}".encode(), type_="conversion"), "wet")
    assert (page.title, page.text) == ("题目", f"题目\n{PROSE}")


def test_json_lines_are_numbered_by_their_places_however_they_are_split():
    lines = [json.dumps({"text": f"{number}{PROSE}", "url": f"u{number}", "title": "t"}, ensure_ascii=False)
             for number in range(50)]  # fmt: skip
    data = "\n".join(["", *lines, "", "not json", '{"other": 1}', '{"text": ""}']).encode()
    whole = reads(data, name="a.jsonl")
    assert reasons(whole) == ["page"] * 50 + ["broken_record", "broken_record", "no_text"]
    assert whole[3].url == "u3"
    for largest in (1, 100, 777, 10_000):
        assert reads(data, name="a.jsonl", largest=largest) == whole
    assert [each.record for each in reads(gzip.compress(data), name="a.jsonl.gz")] == list(range(53))


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "big5hkscs"])
def test_text_is_read_in_its_encoding(encoding):
    text = "天下大勢，分久必合" if encoding == "big5hkscs" else PROSE
    (page,) = reads((text * 3).encode(encoding), name="a.txt")
    assert (page.text, page.charset) == (text * 3, encoding)


def test_a_file_of_text_is_split_as_told():
    data = f"甲{PROSE}\n乙\n\n\n丙{PROSE}\n".encode()
    assert [p.text for p in reads(data, "text", reading=Reading(split="line"))] == [
        f"甲{PROSE}",
        "乙",
        f"丙{PROSE}",
    ]
    assert [p.text for p in reads(data, "text", reading=Reading(split="blank_line"))] == [
        f"甲{PROSE}\n乙",
        f"丙{PROSE}",
    ]
    assert [p.text for p in reads(data, "text")] == [data.decode()]


def test_a_line_of_100_megabytes_is_counted_and_the_next_is_read():
    data = b'{"text": "' + b"x" * 100_000_000 + b'"}\n' + json.dumps({"text": PROSE}).encode()
    found = reads(data, name="a.jsonl")
    assert reasons(found) == ["too_large", "page"]
    assert found[0].bytes_in == 100_000_012


def test_zero_bytes_hold_nothing_and_a_text_of_nul_no_text():
    for name in ("a.jsonl", "a.txt", "a.warc", "a.warc.gz", "a.jsonl.gz"):
        assert reads(b"", name=name) == []
    assert reasons(reads(b"\0" * 100, name="a.txt")) == ["no_text"]
    assert reasons(reads(b"", "html")) == ["no_text"]


def test_a_truncated_archive_of_lines_keeps_what_came_before():
    lines = "\n".join(json.dumps({"text": f"{number}{PROSE}"}) for number in range(5000))
    found = reads(gzip.compress(lines.encode())[:-2000], name="a.jsonl.gz")
    assert reasons(found)[-1] == "broken_record"
    assert 1000 < reasons(found).count("page") < 5000


def test_an_unknown_kind_is_named_and_counted():
    assert reasons(reads(b"%PDF-1.4 ...", name="a.pdf")) == ["unknown_kind"]
    assert kind_of("x", b"<!DOCTYPE html><p>") == "html"
    assert kind_of("x.warc.wet.gz", b"") == "wet"
    assert kind_of("s3://b/CC-MAIN-1.warc.gz", b"") == "warc"
    assert kind_of("wiki_00", b"") == "jsonl"
    assert kind_of("x", b"WARC/1.0\r\nWARC-Type: conversion") == "wet"


def test_json_lists_and_their_damage():
    values = [{"text": f"{number}{PROSE}"} for number in range(3)]
    assert [p.text[0] for p in reads(json.dumps(values).encode(), name="a.json")] == ["0", "1", "2"]
    assert reasons(reads(json.dumps(values)[:-30].encode(), name="a.json")) == [
        "page",
        "page",
        "broken_record",
    ]


def test_parquet_is_read_by_row_groups(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [f"{number}{PROSE}" for number in range(40)]
    pq.write_table(
        pa.table({"text": [*texts, None, ""], "url": [str(n) for n in range(42)]}), path, row_group_size=8
    )
    data = path.read_bytes()
    whole = reads(data, name="a.parquet")
    assert [p.text for p in whole[:40]] == texts
    assert [p.record for p in whole] == list(range(42))
    assert reasons(whole[40:]) == ["broken_record", "no_text"]
    assert reads(data, name="a.parquet", largest=1000) == whole
    assert reasons(reads(data[:-50], name="a.parquet")) == ["broken_record"]
    local = pyarrow.fs.LocalFileSystem()
    file = Input(str(path), "parquet", "s", len(data))
    assert list(read_part(local.open_input_file, file, Part(0, 0, 6), Reading())) == whole


def test_columns_of_parquet_may_hold_fields_or_no_text(tmp_path):
    path = tmp_path / "b.parquet"
    pq.write_table(pa.table({"post": [{"body": PROSE}], "text": [7]}), path)
    (page,) = reads(path.read_bytes(), name="b.parquet", reading=Reading(field="post.body"))
    assert (page.text, page.bytes_in) == (PROSE, len(PROSE.encode()))
    small = Reading(field="post.body", largest_document=9)
    assert reasons(reads(path.read_bytes(), name="b.parquet", reading=small)) == ["too_large"]
    assert reasons(reads(path.read_bytes(), name="b.parquet")) == ["broken_record"]


def test_the_files_of_pyarrow_serve(tmp_path):
    path = tmp_path / "a.warc.gz"
    path.write_bytes(gzip.compress(warc(response(HTML.encode()))))
    local = pyarrow.fs.LocalFileSystem()
    file = Input(str(path), "warc", "s", path.stat().st_size)
    assert reasons(read_part(local.open_input_file, file, Part(0, 0, file.bytes), Reading())) == ["page"]
    lines = tmp_path / "a.jsonl.gz"
    lines.write_bytes(gzip.compress(json.dumps({"text": PROSE}).encode()))
    file = Input(str(lines), "jsonl", "s", 1)
    assert reasons(read_part(local.open_input_file, file, Part(0, 0, 1), Reading())) == ["page"]


def test_record_numbers_have_32_bits_and_rise():
    def of(size, stop=None):
        return RecordNumbers(Input("big.jsonl", "jsonl", "s", size), stop)

    numbers = of(5 << 32)
    assert [numbers.of(place) for place in (0, 1, 2, 100, (5 << 32) - 1)] == [0, 1, 2, 12, (5 << 29) - 1]
    assert of((1 << 32) - 1).of((1 << 32) - 2) == (1 << 32) - 2
    assert of(1 << 32).of((1 << 32) - 1) < 1 << 32
    part = of(1 << 40, stop=1 << 12)  # numbers count 512 bytes, and this part has eight of them
    assert [part.of(300 * place) for place in range(8)] == list(range(8))
    with pytest.raises(ValueError, match="big.jsonl: so many records shorter than 512 bytes cannot be"):
        part.of(2400)


@pytest.mark.parametrize("extractor", ["resiliparse", "trafilatura"])
def test_both_extractors_find_the_main_text(extractor):
    (page,) = reads(warc(response(HTML.encode())), "warc", reading=Reading(extractor=extractor))
    assert PROSE in page.text
