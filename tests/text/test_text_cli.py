from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from pangu_alpha.cli import fetch, vocab
from pangu_alpha.text import corpora
from pangu_alpha.text.tokenizer import PanguTokenizer

TEXT = (
    "话说天下大势，分久必合，合久必分。\n\n周末七国分争，并入于秦。\n\n及秦灭之后，楚、汉分争，又并入于汉。\n"
)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def test_fetch_lists_size_and_licence(capsys):
    assert fetch.main(["--list"]) == 0
    listed = capsys.readouterr().out
    for name, entry in corpora.corpora().items():
        assert name in listed and entry.licence in listed


def test_fetch_takes_what_is_there_and_writes_documents(tmp_path, monkeypatch, capsys):
    source = tmp_path / "sanguo.json"
    source.write_text('["第一回 甲", "第二回 乙"]', encoding="utf-8")
    monkeypatch.setattr(corpora, "_is_whole", lambda path, _: path.is_file())
    assert fetch.main(["sanguo", "--to", str(tmp_path), "--jsonl"]) == 0
    assert (tmp_path / "sanguo.jsonl").read_text(
        encoding="utf-8"
    ) == '{"text": "第一回 甲"}\n{"text": "第二回 乙"}\n'
    assert "2 documents" in capsys.readouterr().out


def test_fetch_refuses_unknown_names_in_one_line():
    done = run("pangu_alpha.cli.fetch", "sangou")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: no corpus named 'sangou'; did you mean 'sanguo'?"


def test_fetch_wants_a_name():
    with pytest.raises(ValueError, match="--list"):
        fetch.main([])


def test_vocab_trains_from_files(tmp_path, capsys):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    shutil.copy(tmp_path / "a.txt", tmp_path / "b.txt")
    inputs = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    output = tmp_path / "out" / "v.model"
    assert vocab.main(["--input", *inputs, "--size", "42", "--output", str(output), "--split", "line"]) == 0
    tokenizer = PanguTokenizer(output)
    assert tokenizer.vocab_size == 42
    said = capsys.readouterr().out
    assert tokenizer.digest in said and "empty_documents" in said


def test_vocab_replaces_nothing_unless_told(tmp_path):
    path, output = tmp_path / "a.txt", tmp_path / "v.model"
    path.write_text(TEXT, encoding="utf-8")
    output.write_bytes(b"released")
    words = ["--input", str(path), "--size", "42", "--output", str(output)]
    with pytest.raises(ValueError, match=r"v\.model: exists already.*--overwrite"):
        vocab.main(words)
    assert output.read_bytes() == b"released"
    assert vocab.main([*words, "--overwrite"]) == 0
    assert PanguTokenizer(output).vocab_size == 42


def test_vocab_errors_in_one_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")
    done = run("pangu_alpha.cli.vocab", "--input", path, "--size", 9999, "--output", tmp_path / "v.model")
    assert done.returncode == 2
    assert (
        done.stderr.startswith("error: 9999 pieces are too many for this corpus")
        and done.stderr.count("\n") == 1
    )
    done = run("pangu_alpha.cli.vocab", "--input", tmp_path / "c.txt", "--size", 50, "--output", "v.model")
    assert done.returncode == 2 and "c.txt: no such file" in done.stderr


def test_vocab_refuses_text_of_another_encoding_and_reads_it_when_told(tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes(TEXT.encode("gbk"))
    words = ["--input", str(tmp_path), "--size", "42", "--output", str(tmp_path / "gbk.model")]
    with pytest.raises(ValueError, match=r"a\.txt, line 1: byte 0xbb .* in gb18030 it is Chinese text"):
        vocab.main(words)
    assert vocab.main([*words, "--encoding", "gb18030"]) == 0
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    assert vocab.main([*words[:-1], str(tmp_path / "utf8.model")]) == 0
    digests = [PanguTokenizer(tmp_path / name).digest for name in ("gbk.model", "utf8.model")]
    assert digests[0] == digests[1]
    assert f"characters {len(TEXT)} in = {len(TEXT) - 3} kept + 3 dropped" in capsys.readouterr().out


def test_vocab_says_what_it_cannot_learn(tmp_path, capsys):
    (tmp_path / "a.txt").write_text(TEXT + "▅" * 3, encoding="utf-8")
    words = ["--input", str(tmp_path / "*.txt"), "--size", "42", "--output", str(tmp_path / "v.model")]
    assert vocab.main(words) == 0
    assert "not learnt: 3 times U+2585 (▅)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [(["--size", "-1"], "--size"), (["--threads", "0"], "--threads"), (["--size", "x"], "--size")],
)
def test_vocab_refuses_numbers(tmp_path, capsys, words, reason):
    with pytest.raises(SystemExit) as caught:
        vocab.main(["--input", "a.txt", "--size", "42", "--output", str(tmp_path / "v.model"), *words])
    assert caught.value.code == 2 and f"argument {reason}" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["2", "0.5", "nan"])
def test_vocab_refuses_shares(tmp_path, share):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    words = ["--input", str(tmp_path / "a.txt"), "--size", "42", "--output", str(tmp_path / "v.model")]
    with pytest.raises((ValueError, SystemExit), match=r"character_coverage = .*|2"):
        vocab.main([*words, "--coverage", share])
