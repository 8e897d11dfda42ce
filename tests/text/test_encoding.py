"""Text in another encoding than it is taken for is refused, with the one it is in; with that it is read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pangu_alpha.text.documents.encoding import as_utf8, known_encoding
from pangu_alpha.text.documents.reading import DocumentReader, ReadOptions

SIMPLIFIED = "清晨的集市上，卖菜的老人把青菜一把一把摆好，等着第一位客人。\n街对面的书店还没有开门。\n" * 40
TRADITIONAL = "清晨的集市上，賣菜的老人把青菜一把一把擺好，等著第一位客人。\n街對面的書店還沒有開門。\n" * 40
CASES = [("gb18030", SIMPLIFIED), ("big5", TRADITIONAL), ("utf-16-le", SIMPLIFIED), ("utf-16-be", SIMPLIFIED)]


def read(path: Path, **options: object) -> list[str]:
    return list(DocumentReader(path, ReadOptions(**options)))


def stretches(content: bytes, encoding: str = "utf-8", size: int = 7) -> bytes:
    """What becomes of a text whose chunks end anywhere."""
    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    return b"".join(as_utf8(chunks, encoding, 0.001, "a.txt"))


@pytest.mark.parametrize(("encoding", "text"), CASES)
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.jsonl.gz"])
def test_the_encoding_is_named_and_read(tmp_path, encoding, text, name):
    content = text
    if "jsonl" in name:
        content = "".join(json.dumps({"text": line}, ensure_ascii=False) + "\n" for line in text.split("\n"))
    path = tmp_path / name
    pack = gzip.compress if name.endswith(".gz") else bytes
    path.write_bytes(pack(content.encode(encoding)))
    with pytest.raises(
        ValueError, match=rf"{name}, line 1: byte 0x.*in {encoding} it is Chinese.*--encoding"
    ):
        read(path)
    got = read(path, encoding=encoding)
    path.write_bytes(pack(content.encode()))
    assert got == read(path) and "".join(got).count("市") == 40


@pytest.mark.parametrize(("encoding", "name"), [("utf-16", "UTF-16"), ("utf-32", "UTF-32")])
def test_a_mark_says_what_it_is(tmp_path, encoding, name):
    path = tmp_path / "a.txt"
    path.write_bytes(SIMPLIFIED.encode(encoding))
    with pytest.raises(ValueError, match=rf"{name}; convert it to UTF-8, or give --encoding {encoding}"):
        read(path)
    assert read(path, encoding=encoding) == [SIMPLIFIED.removesuffix("\n")]
    path.write_bytes(SIMPLIFIED.encode("utf-16-le"))
    with pytest.raises(ValueError, match=r"give --encoding utf-16-le or utf-16-be"):
        read(path, encoding="utf-16")


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "big5", "utf-16", "utf-16-be", "utf-32-le"])
def test_chunks_may_end_within_a_character(encoding, size):
    text = TRADITIONAL[:60] if encoding == "big5" else f"{SIMPLIFIED[:60]}𠮷"
    assert stretches(text.encode(encoding), encoding, size) == text.encode()


def test_a_title_of_two_characters_is_enough(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("你好".encode("gbk"))
    with pytest.raises(ValueError, match="in gb18030 it is Chinese text, '你好'"):
        read(path)
    path.write_bytes("The caf\xe9 is open.".encode("latin-1"))  # of this the encoding is anyone's guess
    assert read(path) == ["The caf\ufffd is open."]


def test_a_few_bad_bytes_are_left_and_a_larger_share_is_not(tmp_path):
    path = tmp_path / "a.txt"
    good = SIMPLIFIED.encode()  # 5,000 bytes
    few = good.replace("菜".encode(), b"\xff", 4) + good
    path.write_bytes(few)
    assert read(path)[0].count("\ufffd") == 4
    path.write_bytes(good.replace("菜".encode(), b"\xff", 14) + good)
    with pytest.raises(ValueError, match=r"line 1: byte 0xff at offset \d+ is not UTF-8, 14 such places"):
        read(path)
    assert read(path, invalid_share=0.01)[0].count("\ufffd") == 14
    assert read(path, invalid_share=1.0)[0].count("\ufffd") == 14


def test_a_file_of_two_encodings_is_refused_where_the_second_begins(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(SIMPLIFIED.encode() * 400 + SIMPLIFIED.encode("gbk"))
    with pytest.raises(ValueError) as caught:
        read(path)
    offset = len(SIMPLIFIED.encode()) * 400
    assert f"line 32001: byte 0xc7 at offset {offset:,} is not UTF-8" in str(caught.value)
    assert "in gb18030 it is Chinese text, '清晨的集市上" in str(caught.value)


@pytest.mark.parametrize("encoding", ["gb18030", "big5", "utf-16-le"])
def test_a_utf8_file_among_those_of_another_encoding_is_refused(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes(SIMPLIFIED.encode())
    with pytest.raises(ValueError, match=r"UTF-8, not|in utf-8 it is Chinese text"):
        read(path, encoding=encoding)
    path.write_bytes(b"plain ASCII\n" * 2)
    if encoding != "utf-16-le":
        assert read(path, encoding=encoding) == ["plain ASCII\nplain ASCII"]


def test_bad_places_of_another_encoding_are_treated_as_those_of_utf8(tmp_path):
    path = tmp_path / "a.txt"
    lines = SIMPLIFIED.encode("gbk").split(b"\n")
    lines[3] += b"\xff\xff"
    path.write_bytes(b"\n".join(lines))
    got = read(path, encoding="gbk", split="line")
    assert got[3] == "街对面的书店还没有开门。\ufffd\ufffd" and len(got) == 80
    assert len(read(path, encoding="gbk", split="line", invalid_utf8="skip")) == 79
    with pytest.raises(ValueError, match="document 4: not gbk"):
        read(path, encoding="gbk", split="line", invalid_utf8="error")


def test_parquet_of_bytes(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    rows = SIMPLIFIED.split("\n")[:20]
    parquet.write_table(pyarrow.table({"text": [row.encode("gbk") for row in rows]}), path)
    with pytest.raises(ValueError, match=r"a\.parquet: row 1, line 1: byte .* in gb18030 it is Chinese"):
        read(path)
    assert read(path, encoding="gbk") == rows


def test_a_text_column_that_is_not_utf8_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    column = pyarrow.array([row.encode("gbk") for row in SIMPLIFIED.split("\n")[:20]])
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": column.view(pyarrow.string())}), path)
    with pytest.raises(ValueError, match="row 1, line 1: byte .* in gb18030 it is Chinese"):
        read(path)


def test_names_of_encodings():
    assert known_encoding("GBK") == "gbk" and known_encoding("UTF8") == "utf-8"
    with pytest.raises(ValueError, match="no encoding named 'gb18031'; did you mean 'gb18030'"):
        known_encoding("gb18031")
    for name in ("rot13", "idna", "unicode_escape", "undefined", "hex", "a\0b", "x" * 10_000):
        with pytest.raises(ValueError, match="no encoding"):
            known_encoding(name)
    with pytest.raises(ValueError, match=r"encoding: no encoding.*'hex'"):
        ReadOptions(encoding="hex")
