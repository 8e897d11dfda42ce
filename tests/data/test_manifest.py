"""manifest.json and its checks, on files that only look like records."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from pangu_alpha.data.manifest import (
    FileDigest,
    InputFile,
    Manifest,
    Shard,
    Vocabulary,
    open_records,
    recorded_name,
    verify,
)
from pangu_alpha.text.ledger import CharacterLedger

VOCABULARY = Vocabulary("d" * 64, 60, "<eod>", 8, 6)


@pytest.fixture
def folder(tmp_path):
    shards = []
    for place in range(2):
        data, index = tmp_path / f"w{place}", tmp_path / f"w{place}.db"
        data.write_bytes(bytes([place]) * 1000)
        index.write_bytes(b"index")
        shards.append(Shard(FileDigest.of(data), FileDigest.of(index), 5))
    manifest = Manifest(
        vocabulary=VOCABULARY,
        seq_length=4,
        tokens=52,
        documents=3,
        windows=10,
        remainder=2,
        padding=0,
        inputs=(
            InputFile("a.txt", 100, 1, 2, 40, {"x": 1}),
            InputFile("b.txt", 9, 1, 1, 12, {"x": 2, "y": 1}),
        ),
        shards=tuple(shards),
        settings={"seq_length": "4"},
    )
    manifest.write(tmp_path)
    return tmp_path


def test_what_is_written_is_read(folder):
    manifest = Manifest.read(folder)
    assert manifest.vocabulary == VOCABULARY and manifest.shards[1].data.name == "w1"
    assert manifest.problems == {"x": 3, "y": 1}
    manifest.write(folder)
    assert Manifest.read(folder) == manifest
    assert verify(folder) == []
    assert open_records(folder, seq_length=4, vocab_size=60, tokenizer_digest="d" * 64).files == [
        str(folder / "w0"),
        str(folder / "w1"),
    ]


def test_a_folder_without_manifest_is_incomplete(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="incomplete"):
        open_records(folder)
    with pytest.raises(ValueError, match="no such folder"):
        open_records(folder / "elsewhere")


@pytest.mark.parametrize("content", ["", "{", '"text"', "{}", "\x00"])
def test_a_damaged_manifest_says_so(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match="manifest.json: damaged"):
        Manifest.read(folder)


@pytest.mark.parametrize("key", ["tokens", "documents", "windows", "remainder", "format_version"])
def test_counts_must_add_up(folder, key):
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content[key] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=key if key != "remainder" else "tokens"):
        Manifest.read(folder)


def test_every_bad_file_is_named(folder):
    data = bytearray((folder / "w0").read_bytes())
    data[500] ^= 1
    (folder / "w0").write_bytes(data)
    (folder / "w1").write_bytes(b"\x01" * 999)
    (folder / "w0.db").unlink()
    (folder / "w1.db").write_bytes(b"index and more")
    faults = verify(folder)
    assert [fault.split(": ")[1].split(",")[0].split(" ")[0] for fault in faults] == [
        "altered",
        "missing",
        "truncated",
        "grown",
    ]
    assert [fault.split(":")[0].split("/")[-1] for fault in faults] == ["w0", "w0.db", "w1", "w1.db"]
    assert len(verify(folder, full=False)) == 3  # a flipped bit leaves the size as it was


def test_all_misfits_are_reported_together(folder):
    with pytest.raises(ValueError) as caught:
        open_records(folder, seq_length=8, vocab_size=50, tokenizer_digest="e" * 64)
    message = str(caught.value)
    assert "seq_length 4, the model has 8" in message
    assert "60 ids, the model only 50" in message
    assert "another tokenizer" in message


def test_the_digest_follows_the_windows_alone(folder):
    manifest = Manifest.read(folder)
    moved = dataclasses.replace(manifest, settings={}, inputs=(InputFile("c.txt", 1, 2, 3, 52),))
    assert moved.digest == manifest.digest
    swapped = dataclasses.replace(manifest, shards=manifest.shards[::-1])
    assert swapped.digest != manifest.digest


def test_a_manifest_of_format_1_is_read_and_counts_neither_characters_nor_unknown(folder):
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["format_version"] = 1
    for file in content["inputs"]:
        del file["characters"], file["unknown"]
    path.write_text(json.dumps(content))
    manifest = open_records(folder, seq_length=4).manifest
    assert manifest.characters is None and manifest.unknown is None and manifest.problems == {"x": 3, "y": 1}


def counted(manifest, **changes):
    files = [
        InputFile("a.txt", 100, 1, 2, 40, {}, CharacterLedger(90, 80, {"spaces": 10}), 3),
        InputFile("b.txt", 9, 1, 1, 12, {}, CharacterLedger(9, 9), 0),
    ]
    return dataclasses.replace(manifest, inputs=(dataclasses.replace(files[0], **changes), files[1]))


def test_characters_and_unknown_ids_add_up(folder):
    manifest = counted(Manifest.read(folder))
    manifest.write(folder)
    assert Manifest.read(folder) == manifest
    assert manifest.characters == CharacterLedger(99, 89, {"spaces": 10}) and manifest.unknown == 3
    with pytest.raises(ValueError, match="the characters of 'a.txt' do not add up"):
        counted(manifest, characters=CharacterLedger(90, 80, {"spaces": 9}))
    with pytest.raises(ValueError, match="'a.txt' cannot have 39 ids of <unk>"):
        counted(manifest, unknown=39)  # two of the 40 ids end documents


@pytest.mark.parametrize("name", ["../w0", "/etc/passwd", "..", "", "a/b", "w0\x00"])
def test_a_manifest_names_files_of_its_folder_alone(folder, name):
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["shards"][0]["data"]["name"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is not the name of a file in this folder"):
        Manifest.read(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"[" * 100_000, "deep"), (b"\xff\xfe", "not UTF-8"), (b'{"tokens": 1, "tokens": 2}', "twice")],
)
def test_hostile_manifests_are_refused_in_words(folder, content, reason):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"manifest.json: damaged.*{reason}"):
        Manifest.read(folder)


def test_a_name_that_is_not_utf8_is_recorded_as_its_bytes():
    assert recorded_name("新闻.txt") == "新闻.txt"
    assert recorded_name(b"\xd0\xc2.txt".decode("utf-8", "surrogateescape")) == "\\xd0\\xc2.txt"


def test_a_folder_that_mindrecord_cannot_open_is_refused_in_words(folder):
    other = folder.with_name(os.fsdecode("训练集".encode("gbk")))
    folder.rename(other)
    try:
        with pytest.raises(ValueError, match="the name is not UTF-8, which MindRecord needs"):
            open_records(other)
    finally:
        other.rename(folder)
