from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import sqlite3
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from pangu_alpha.text import corpora as module
from pangu_alpha.text.corpora import corpora, documents, fetch, fetch_all, find_corpus, write_jsonl

FILES = {"toy/data/a.json": b'["one", "two"]', "toy/data/b.txt": "甲\n".encode()}


def wheel(path: Path) -> None:
    with zipfile.ZipFile(path / "toy-1.0-py3-none-any.whl", "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)


def sdist(path: Path) -> None:
    with tarfile.open(path / "toy-1.0.tar.gz", "w:gz") as archive:
        for name, content in FILES.items():
            entry = tarfile.TarInfo(f"toy-1.0/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A table of two corpora in one package, and a pip that makes that package; gives pip's commands."""
    table = {
        name: dataclasses.replace(
            find_corpus("sanguo"),
            name=name,
            package="toy",
            version="1.0",
            member=member,
            file=f"{name}{Path(member).suffix}",
            sha256=hashlib.sha256(FILES[member]).hexdigest(),
            kind=kind,
        )
        for name, member, kind in (("a", "toy/data/a.json", "json_strings"), ("b", "toy/data/b.txt", "lines"))
    }
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        make = wheel if "--only-binary" in command else sdist
        make(Path(command[command.index("--dest") + 1]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(module, "corpora", lambda: table)
    monkeypatch.setattr(module.subprocess, "run", run)
    return commands


def test_table_is_whole():
    table = corpora()
    assert {"sanguo", "peoples_daily", "reviews_positive", "statutes", "idioms", "vocab"} <= set(table)
    for entry in table.values():
        assert len(bytes.fromhex(entry.sha256)) == 32 and entry.archive in ("wheel", "sdist")
        assert entry.kind in {"file", *module._READERS} and entry.bytes > 0 and entry.licence
    assert len({entry.file for entry in table.values()}) == len(table)


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'sanguo'"):
        fetch("sangou")


@pytest.mark.parametrize("archive", ["wheel", "sdist"])
def test_fetch_downloads_once_and_checks(tmp_path, toys, archive, monkeypatch):
    table = {name: dataclasses.replace(entry, archive=archive) for name, entry in module.corpora().items()}
    monkeypatch.setattr(module, "corpora", lambda: table)
    paths = fetch_all(["a", "b"], tmp_path / "deep")
    assert [path.read_bytes() for path in paths.values()] == list(FILES.values())
    assert len(toys) == 1 and toys[0][-1] == "toy==1.0" and "--no-deps" in toys[0]
    assert fetch("a", tmp_path / "deep") == paths["a"]
    assert len(toys) == 1
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"a.json", "b.txt"}


def test_another_file_of_that_name_is_set_aside(tmp_path, toys, caplog):
    (tmp_path / "a.json").write_bytes(b"[]")
    with caplog.at_level(logging.WARNING, "pangu_alpha"):
        assert fetch("a", tmp_path).read_bytes() == FILES["toy/data/a.json"]
    assert "sha256 differs" in caplog.text and (tmp_path / "a.json.other").read_bytes() == b"[]"
    (tmp_path / "a.json").write_bytes(b"[1]")
    fetch("a", tmp_path)
    assert (tmp_path / "a.json.other").read_bytes() == b"[]"  # the first one stays
    assert (tmp_path / "a.json.other-2").read_bytes() == b"[1]"


def test_another_content_is_refused(tmp_path, toys, monkeypatch):
    entry = dataclasses.replace(module.corpora()["a"], sha256="0" * 64)
    monkeypatch.setattr(module, "corpora", lambda: {"a": entry})
    with pytest.raises(ValueError, match="has sha256 .*, expected 0000"):
        fetch("a", tmp_path)
    monkeypatch.setattr(module, "corpora", lambda: {"a": dataclasses.replace(entry, member="toy/none")})
    with pytest.raises(ValueError, match="holds no toy/none"):
        fetch("a", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_network_the_error_says_what_to_put_where(tmp_path, toys, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retry\nERROR: No matching distribution\n")
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(OSError, match=r"No matching distribution.*by hand: toy/data/a\.json as .*a\.json"):
        fetch("a", tmp_path)


def test_documents_of_each_kind(tmp_path, monkeypatch):
    idioms = [{"word": "水落石出", "explanation": "释。", "derivation": "无", "example": "终于～。"}]
    base = sqlite3.connect(tmp_path / "laws.db")
    base.execute("create table articles (id, law_id, law_name, article_no, article_text)")
    rows = [
        (1, "x", "甲法", "第一条", "一。"),
        (2, "x", "甲法", "第二条", "二。"),
        (3, "y", "乙法", "第一条", "三。"),
    ]
    base.executemany("insert into articles values (?, ?, ?, ?, ?)", rows)
    base.commit()
    base.close()
    (tmp_path / "novel.json").write_text(json.dumps(["第一回 甲\n文", "第二回 乙\n文"]), encoding="utf-8")
    (tmp_path / "paper.txt").write_text("１/m  张/q  ，/w\n\n1/2/m  人民/n\n", encoding="utf-8")
    (tmp_path / "idioms.json").write_text(json.dumps(idioms), encoding="utf-8")
    assert list(documents("sanguo", tmp_path / "novel.json")) == ["第一回 甲\n文", "第二回 乙\n文"]
    assert list(documents("peoples_daily", tmp_path / "paper.txt")) == ["１张，", "1/2人民"]
    assert list(documents("statutes", tmp_path / "laws.db")) == [
        "甲法\n第一条 一。\n第二条 二。",
        "乙法\n第一条 三。",
    ]
    assert list(documents("idioms", tmp_path / "idioms.json")) == ["水落石出\n释。\n终于水落石出。"]
    assert list(documents("reviews_positive", tmp_path / "paper.txt"))[1] == "1/2/m  人民/n"
    with pytest.raises(ValueError, match="not a corpus of documents"):
        documents("vocab", tmp_path / "paper.txt")


def test_write_jsonl(tmp_path):
    path = tmp_path / "deep" / "a.jsonl"
    assert write_jsonl(iter(["甲\n乙", "丙"]), path) == 2
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [
        {"text": "甲\n乙"},
        {"text": "丙"},
    ]

    def broken():
        yield "丁"
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_jsonl(broken(), path)
    assert path.read_text(encoding="utf-8").count("\n") == 2 and len(list(path.parent.iterdir())) == 1
