"""Folders, patterns and lists of names become files in one order, and what is not taken is told."""

from __future__ import annotations

import io
import os
import sys

import pytest

from pangu_alpha.text.documents.inputs import few, find_inputs


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in (
        "b/2.txt",
        "b/1.jsonl.xz",
        "a/wiki_00",
        "a/deep/x.json",
        "a/README.md",
        "c.txt",
        ".hidden/y.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "a/.swp.txt").write_text("")
    os.mkfifo(tmp_path / "b/3.txt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_gives_its_files_of_known_kinds_in_order(tree):
    found = find_inputs(["."])
    assert found.files == ("./c.txt", "./a/wiki_00", "./a/deep/x.json", "./b/1.jsonl.xz", "./b/2.txt")
    assert found.passed_over == ("./a/README.md",)
    assert find_inputs(["b", "c.txt"]).files == ("b/1.jsonl.xz", "b/2.txt", "c.txt")


def test_patterns(tree):
    assert find_inputs(["?.txt"]).files == ("c.txt",)
    assert find_inputs(["**/*.txt"]).files == ("b/2.txt", "b/3.txt", "c.txt")
    assert find_inputs(["[ab]"]).files == ("a/wiki_00", "a/deep/x.json", "b/1.jsonl.xz", "b/2.txt")
    (tree / "[1].txt").write_text("")
    assert find_inputs(["[1].txt"]).files == ("[1].txt",)  # a file of that very name


def test_lists(tree, monkeypatch):
    (tree / "list").write_bytes("\ufeffc.txt\r\n\nb\n".encode())
    assert find_inputs([], ["list"]).files == ("c.txt", "b/1.jsonl.xz", "b/2.txt")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"c.txt\0b/2.txt\0")))
    assert find_inputs(["a/wiki_00"], ["-"]).files == ("a/wiki_00", "c.txt", "b/2.txt")


def test_names_that_are_not_utf8(tree):
    name = "新闻".encode("gbk")
    os.mkdir(os.path.join(os.fsencode(tree), name))
    (tree / os.fsdecode(name) / "1.txt").write_text("")
    (tree / "list").write_bytes(name + b"\n")
    expected = (os.fsdecode(name + b"/1.txt"),)
    assert find_inputs([os.fsdecode(name)]).files == find_inputs([], ["list"]).files == expected


def test_what_names_nothing_is_refused_all_at_once(tree):
    (tree / "empty").mkdir()
    with pytest.raises(ValueError) as caught:
        find_inputs(["*.jsonl", "empty", "c.txt"])
    assert "*.jsonl: no file has such a name" in str(caught.value)
    assert "empty: a folder without a file of a known kind" in str(caught.value)
    assert find_inputs(["missing.txt"]).files == ("missing.txt",)  # told with the faults of the other files
    with pytest.raises(FileNotFoundError):
        find_inputs([], ["no-list"])


def test_few_of_many():
    assert few(["a"]) == ["a"]
    assert few([str(number) for number in range(1000)])[-2:] == ["19", "and 980 more like these"]


def test_links_of_a_folder_are_named_or_missed(tmp_path, monkeypatch):
    """Text behind them would be lost without a word."""
    for name in ("corpus", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "corpus" / "up").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus" / "text.txt").symlink_to(tmp_path / "elsewhere" / "elsewhere.txt")
    found = find_inputs(["corpus"])
    assert found.files == ("corpus/corpus.txt", "corpus/text.txt")
    assert found.passed_over == ("corpus/linked", "corpus/up")
    (tmp_path / "corpus" / "annex.txt").symlink_to("nowhere")  # as git-annex leaves it
    assert "corpus/annex.txt" in find_inputs(["corpus"]).files  # so that it is refused as missing
