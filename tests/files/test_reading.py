from __future__ import annotations

import os

import pytest

from pangu_alpha.files.reading import (
    ReadError,
    parse_json,
    read_json,
    read_json_lines,
    read_text,
    require_file,
)

HOSTILE = {
    "nested lists": ("[" * 100_000, "deep"),
    "nested mappings": ('{"a":' * 100_000, "deep"),
    "nested, but not too deep for Python": ("[" * 200 + "]" * 200, "deep"),
    "a key twice": ('{"a": 1, "b": {"c": 2, "c": 3}}', "'c' twice in one object: 2 and 3"),
    "NaN": ('{"a": NaN}', "NaN"),
    "minus infinity": ("[-Infinity]", "-Infinity"),
    "a number of 5,000 digits": ("9" * 5000, "thousands of digits"),
    "half a pair": (r'{"name": "\ud800"}', "surrogate"),
    "no JSON": ('{"a": 1\n"b"}', "line 2, column 1: not JSON"),
    "empty": ("", "line 1, column 1"),
}


@pytest.mark.parametrize(("text", "word"), HOSTILE.values(), ids=HOSTILE)
def test_json_is_refused_in_a_sentence_that_names_the_file(text, word, tmp_path):
    (tmp_path / "x.json").write_text(text, "utf-8")
    with pytest.raises(ReadError) as caught:
        read_json(tmp_path / "x.json")
    assert str(caught.value).startswith(f"{tmp_path}/x.json")
    assert word in str(caught.value) and len(str(caught.value)) < 400


def test_a_line_of_a_file_is_named():
    for text, place in (("{", "line 3, column 2"), ("[" * 100_000, "line 3"), ("NaN", "line 3")):
        with pytest.raises(ReadError, match=f"^x.jsonl, {place}: "):
            parse_json(text, "x.jsonl", line=3)


def test_what_is_json_is_read(tmp_path):
    deep = "[" * 99 + "1e999" + "]" * 99
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + '{"键": ["\\ud83d\\ude00", 1.5, null]}'.encode())
    assert read_json(tmp_path / "x.json") == {"键": ["😀", 1.5, None]}
    assert parse_json(deep, "x")
    assert str(parse_json("NaN", "x", numbers_only=False)) == "nan"


def test_text_that_is_not_utf8_is_named_with_its_place(tmp_path):
    (tmp_path / "x").write_bytes("一\n二".encode() + "三".encode("gb18030"))
    with pytest.raises(ReadError, match=r"x, line 2: not UTF-8 text \(byte 0xc8 at offset 7\)"):
        read_text(tmp_path / "x")


def test_every_line_end_is_a_line_feed(tmp_path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n\x0bd")
    assert read_text(tmp_path / "x") == "a\nb\nc\n\x0bd"


def test_a_folder_and_a_large_file_are_refused(tmp_path):
    with pytest.raises(ReadError, match="is a folder"):
        read_text(tmp_path)
    (tmp_path / "x").write_bytes(b"12345")
    assert read_text(tmp_path / "x", most=5) == "12345"
    with pytest.raises(ReadError, match="more than 4 bytes"):
        read_text(tmp_path / "x", most=4)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReadError, match="is a pipe"):
        require_file(tmp_path / "pipe")
    with pytest.raises(ReadError, match="is a device"):
        require_file("/dev/zero")
    with pytest.raises(FileNotFoundError):
        require_file(tmp_path / "nothing")


def test_a_git_lfs_pointer_is_not_the_file(tmp_path):
    (tmp_path / "x.json").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1234567\n"
    )
    with pytest.raises(
        ReadError, match=r"x.json: a git-LFS pointer of a file of 1,234,567 bytes.*git lfs pull"
    ):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ReadError, match="a git-LFS pointer of another file"):
        read_json(tmp_path / "x.json")


def test_a_hundred_lists_in_one_another_are_read_and_no_more():
    assert parse_json("[" * 100 + "1" + "]" * 100, "x")
    with pytest.raises(ReadError, match="x: mappings and lists in one another more than 100 deep"):
        parse_json('{"a": ' + "[" * 100 + "]" * 100 + "}", "x")


def test_lines_of_json_come_one_by_one_and_broken_ones_as_errors(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes('{"a": "\u2028"}\n\n[1]\nnot\n{"b": NaN}\n{"c": "一'.encode()[:-1])
    (one, two, broken, nan, cut) = read_json_lines(path)
    assert [one, two] == [(1, {"a": "\u2028"}), (3, [1])]
    assert [number for number, _ in (broken, nan, cut)] == [4, 5, 6]
    assert "lines.jsonl, line 4, line 1, column 1: not JSON" in str(broken[1])
    assert "NaN" in str(nan[1]) and "not UTF-8" in str(cut[1])
    assert isinstance(dict(read_json_lines(path, numbers_only=False))[5]["b"], float)
    with pytest.raises(ReadError, match="is a folder"):
        next(read_json_lines(tmp_path))
