"""Text to records: nothing lost, the same for any number of processes, continued after a kill."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.cli.preprocess import main
from pangu_alpha.data.manifest import Manifest, open_records, verify
from pangu_alpha.data.packing import token_dtype
from pangu_alpha.data.preprocess import PreprocessConfig, preprocess
from pangu_alpha.files.lock import LOCK_NAME, FolderInUseError, hold_folder
from pangu_alpha.text.clean import Cleaner
from pangu_alpha.text.documents.reading import DocumentReader
from pangu_alpha.text.tokenizer import PanguTokenizer


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code), *arguments], check=False, text=True)


def stream_of(config: PreprocessConfig) -> list[int]:
    """The corpus as one list of ids, by the plainest code."""
    tokenizer = PanguTokenizer(config.tokenizer)
    ids: list[int] = []
    for source in config.inputs:
        cleaner = Cleaner(config.clean)
        for document in cleaner.clean_all(DocumentReader(source, config.read)):
            ids += [*tokenizer.encode(document), tokenizer.eod_id]
    return ids


def windows_of(folder: str) -> np.ndarray:
    from mindspore.mindrecord import FileReader

    rows = []
    for file in open_records(folder).files:
        reader = FileReader(file)
        rows += [row["input_ids"] for row in reader.get_next()]
        reader.close()
    return np.stack(rows)


def test_tokens_in_are_tokens_out_and_remainder(config, records):
    manifest, windows, ids = Manifest.read(records), windows_of(records), stream_of(config)
    assert len(manifest.shards) > 2 and manifest.windows == len(windows)
    assert windows.shape[1] == config.seq_length + 1 and windows.dtype == np.int32
    assert manifest.tokens == len(ids) == windows.size + manifest.remainder
    assert windows.ravel().tolist() == ids[: windows.size]
    assert manifest.documents == ids.count(PanguTokenizer(config.tokenizer).eod_id) == 81
    assert manifest.inputs[1].documents == 0  # the empty file
    assert sorted(os.listdir(records)) == ["manifest.json", *sorted(names(manifest))]


def names(manifest: Manifest) -> list[str]:
    return [file.name for shard in manifest.shards for file in (shard.data, shard.index)]


def digests(manifest: Manifest) -> list[str]:
    return [file.sha256 for shard in manifest.shards for file in (shard.data, shard.index)]


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_processes_changes_no_byte(config, records, tmp_path, workers):
    # A shard as large as the corpus keeps MindSpore out of the worker processes, which saves their start.
    one = preprocess(dataclasses.replace(config, output=str(tmp_path / "1"), windows_per_shard=None))
    many = dataclasses.replace(config, output=str(tmp_path / "n"), windows_per_shard=None, workers=workers)
    assert digests(preprocess(many)) == digests(one)
    assert np.array_equal(windows_of(many.output), windows_of(records))


def test_shards_written_by_two_processes_are_the_same(config, records, tmp_path):
    assert digests(preprocess(dataclasses.replace(config, output=str(tmp_path), workers=2))) == digests(
        Manifest.read(records)
    )


def test_pad_last_keeps_the_tail(config, tmp_path):
    padded = dataclasses.replace(config, output=str(tmp_path / "v"), pad_last=True, seq_length=1000)
    manifest, ids = preprocess(padded), stream_of(config)
    windows = windows_of(padded.output)
    assert manifest.remainder == 0 and manifest.padding == windows.size - len(ids) > 0
    assert windows.ravel().tolist() == ids + [manifest.vocabulary.pad_id] * manifest.padding


KILLED = """
    import os, signal, sys
    from pangu_alpha.data import records, tokens
    from pangu_alpha.data.preprocess import PreprocessConfig, preprocess
    place, vocabulary, output, *inputs = sys.argv[1:]
    places = {"tokenizing": (tokens, "_removed", 3), "writing": (records.shutil, "copymode", 7)}
    module, name, calls = places[place]
    real = getattr(module, name)
    def deadly(*arguments):
        global calls
        calls -= 1
        if not calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)
    setattr(module, name, deadly)
    preprocess(PreprocessConfig(tuple(inputs), vocabulary, output, seq_length=16, windows_per_shard=50))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("place", "tokenized", "written"), [("tokenizing", 2, 0), ("writing", 5, 3)])
def test_a_killed_run_is_continued(config, records, tmp_path, place, tokenized, written):
    output = tmp_path / "records"
    killed = run_python(KILLED, place, config.tokenizer, str(output), *config.inputs)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(ValueError, match="incomplete"):
        open_records(output)
    receipts = sorted((output / "unfinished").glob("*.tokens.json"))
    assert len(receipts) == tokenized
    assert len(list((output / "unfinished").glob("*.mindrecord.json"))) == written
    kept = list(output.glob("windows-00000.mindrecord")) if written else []
    times = [file.stat().st_mtime_ns for file in kept]
    manifest = preprocess(dataclasses.replace(config, output=str(output)))
    assert digests(manifest) == digests(Manifest.read(records))
    assert verify(output) == [] and sorted(os.listdir(output)) == sorted(os.listdir(records))
    assert [file.stat().st_mtime_ns for file in kept] == times  # not written a second time


def test_an_input_changed_between_two_runs_is_read_again(config, corpus, tmp_path):
    changing = tmp_path / "changing.jsonl"
    changing.write_text(Path(corpus[2]).read_text(encoding="utf-8"), encoding="utf-8")
    ours = dataclasses.replace(config, inputs=(corpus[0], str(changing)), output=str(tmp_path / "records"))
    killed = run_python(KILLED, "writing", ours.tokenizer, ours.output, *ours.inputs)
    assert killed.returncode == -signal.SIGKILL
    assert "windows-00002.mindrecord" in os.listdir(ours.output)
    text = json.dumps({"text": "天下大势" * 30}, ensure_ascii=False)
    changing.write_text(f"{text}\n", encoding="utf-8")
    manifest = preprocess(ours)
    assert manifest.inputs[1].documents == 1
    # The third file of the first run is gone, for the new windows fill two.
    assert sorted(os.listdir(ours.output)) == ["manifest.json", *sorted(names(manifest))]
    assert len(manifest.shards) == 2
    assert windows_of(ours.output).ravel().tolist() == stream_of(ours)[: manifest.windows * 17]
    changing.write_text(f"{text}\n\n\n", encoding="utf-8")
    with pytest.raises(ValueError, match="changing.jsonl: changed since"):
        preprocess(ours)


def test_a_second_run_finds_the_records_complete(config, records):
    before = {name: os.stat(os.path.join(records, name)).st_mtime_ns for name in os.listdir(records)}
    assert preprocess(config) == Manifest.read(records)
    after = {name: os.stat(os.path.join(records, name)).st_mtime_ns for name in os.listdir(records)}
    assert after == before


def test_what_a_kill_at_the_very_end_left_is_taken_away(config, records, tmp_path):
    output = shutil.copytree(records, tmp_path / "records")
    (output / "unfinished").mkdir()
    for name in ("settings.json", "00000.tokens", "00004.tokens.json", "windows-00001.mindrecord.json"):
        (output / "unfinished" / name).write_text("{}")
    (output / "unfinished" / "thesis.doc").write_text("mine")
    preprocess(dataclasses.replace(config, output=str(output)))
    assert os.listdir(output / "unfinished") == ["thesis.doc"]


def test_a_full_disk_is_said_and_the_next_run_goes_on(config, records, tmp_path):
    output = tmp_path / "records"
    assert run_python(FULL_DISK, config.tokenizer, str(output), *config.inputs).returncode == 0
    assert len(list((output / "unfinished").glob("*.tokens"))) == 5
    manifest = preprocess(dataclasses.replace(config, output=str(output)))
    assert digests(manifest) == digests(Manifest.read(records)) and verify(output) == []
    assert not (output / "unfinished").exists()


FULL_DISK = """
    import resource, signal, sys
    from pangu_alpha.data.preprocess import PreprocessConfig, preprocess
    vocabulary, output, *inputs = sys.argv[1:]
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    try:
        preprocess(PreprocessConfig(tuple(inputs), vocabulary, output, seq_length=16, windows_per_shard=50))
    except OSError as error:
        sys.exit("is the disk full?" not in str(error))
    sys.exit(1)
"""


def test_a_folder_of_other_settings_is_refused_and_left_alone(config, records):
    before = sorted(os.listdir(records))
    other = dataclasses.replace(config, seq_length=32, end_of_document="<eot>")
    with pytest.raises(ValueError) as caught:
        preprocess(other)
    assert "seq_length: 16 there, 32 now" in str(caught.value)
    assert "end_of_document: <eod> there, <eot> now" in str(caught.value)
    assert sorted(os.listdir(records)) == before and verify(records) == []


def test_a_folder_with_files_of_others_is_refused_and_left_alone(config, tmp_path):
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        preprocess(dataclasses.replace(config, output=str(tmp_path)))
    assert os.listdir(tmp_path) == ["thesis.doc"]


def test_inputs_without_text_make_no_records(config, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    with pytest.raises(ValueError, match="0 documents, 0 tokens"):
        preprocess(dataclasses.replace(config, inputs=(str(empty),), output=str(tmp_path / "records")))


def test_all_bad_inputs_are_named_at_once(config, corpus, tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_text("")
    inputs = (corpus[0], "missing.txt", str(tmp_path), str(picture), corpus[0])
    with pytest.raises(ValueError) as caught:
        preprocess(dataclasses.replace(config, inputs=inputs, output=str(tmp_path / "records")))
    message = str(caught.value)
    assert "missing.txt: no such file" in message and f"{tmp_path}: a folder" in message
    assert "picture.png: unknown kind" in message and "a.txt: named twice" in message


def test_a_document_cannot_end_with_ordinary_text(config, tmp_path):
    with pytest.raises(ValueError, match="'天' may occur in text"):
        preprocess(dataclasses.replace(config, end_of_document="天", output=str(tmp_path / "records")))
    with pytest.raises(ValueError, match="did you mean '<eod>'"):
        preprocess(dataclasses.replace(config, end_of_document="eod", output=str(tmp_path / "records")))


def test_what_mindrecord_cannot_hold_is_refused_at_once(config):
    with pytest.raises(ValueError, match="windows_per_shard: 200000 do not fit"):
        dataclasses.replace(config, seq_length=1024, windows_per_shard=200_000)
    with pytest.raises(ValueError, match="seq_length: 1000000 ids do not fit"):
        dataclasses.replace(config, seq_length=10**6)


def test_a_vocabulary_above_two_bytes_is_stored_in_four():
    assert token_dtype(100_000).itemsize == 4


def test_the_command_line(vocab_file, corpus, tmp_path, capsys):
    output = str(tmp_path / "records")
    fixed = ["--vocabulary", vocab_file, "--output", output, "--seq-length", "8", "--workers", "1"]
    rules = ["--clean", "min_document_characters=5", "drop_duplicate_lines=false", "--split", "blank_line"]
    assert main(["--input", corpus[0], *fixed, *rules, "--end-of-document", "<eot>"]) == 0
    printed = capsys.readouterr()
    manifest = Manifest.read(output)
    assert f"windows    {manifest.windows:,} of 8 + 1 tokens" in printed.out
    assert "ended by <eot>" in printed.out and "tokenizing" in printed.err
    assert 30 < manifest.documents <= 40  # one a paragraph
    assert manifest.settings["clean.min_document_characters"] == "5"
    with pytest.raises(ValueError, match="drop_duplicate_line: unknown key.*drop_duplicate_lines"):
        main(["--input", corpus[0], *fixed, "--clean", "drop_duplicate_line=false"])


ORPHANS = """
import sys
if __name__ == "__main__":
    from pangu_alpha.processes import workers
    import orphan_job
    workers.run_jobs(orphan_job.sleep, [sys.argv[1] + "/a", sys.argv[1] + "/b"], 2, lambda *_: None)
"""
JOB = """
import os, pathlib, time
def sleep(path, advance):
    pathlib.Path(path).write_text(str(os.getpid()))
    time.sleep(60)
"""


def test_workers_leave_with_a_killed_parent(tmp_path):
    (tmp_path / "orphan_job.py").write_text(JOB)
    (tmp_path / "main.py").write_text(ORPHANS)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "main.py"), str(tmp_path)])
    wait_for(lambda: all((tmp_path / name).is_file() and (tmp_path / name).read_text() for name in "ab"))
    parent.kill()
    parent.wait()
    children = [int((tmp_path / name).read_text()) for name in "ab"]
    wait_for(lambda: not any(alive(child) for child in children))
    assert [alive(child) for child in children] == [False, False]


def alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0]
    except FileNotFoundError:
        return False


def wait_for(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_what_needs_no_mindspore_imports_none():
    modules = ["order", "packing", "manifest", "tokens", "records", "preprocess", "batches"]
    imports = "; ".join(f"import pangu_alpha.data.{module}" for module in modules)
    assert run_python(f"{imports}; import sys; assert 'mindspore' not in sys.modules").returncode == 0


def test_characters_in_are_characters_kept_and_dropped_and_ids_are_kept_and_unknown(config, corpus, tmp_path):
    odd = tmp_path / "odd.txt"
    line = "分久必合" * 9
    odd.write_bytes(f"天下大势\r\n\u200b\n天　下\0大势😀。\n\n{line}\n{line}".encode())
    ours = dataclasses.replace(config, inputs=(*corpus, str(odd)), output=str(tmp_path / "records"))
    manifest = preprocess(ours)
    ledger = manifest.inputs[-1].characters
    assert ledger.given == len(odd.read_bytes().decode()) and ledger.missing == 0
    assert ledger.dropped == {
        "nul_characters": 1,
        "invisible_characters": 1,
        "line_ends": 1,
        "blank_lines": 2,
        "duplicate_lines": 37,
    }
    assert manifest.inputs[-1].unknown == 1 == manifest.unknown  # the smile
    whole = manifest.characters
    assert whole.given == sum(file.characters.given for file in manifest.inputs) and whole.missing == 0
    assert Manifest.read(ours.output).characters == whole


def test_a_fault_in_the_count_of_characters_is_not_passed_over(config, tmp_path, monkeypatch):
    real = Cleaner.clean
    monkeypatch.setattr(Cleaner, "clean", lambda self, text: real(self, text)[:-1])
    with pytest.raises(AssertionError, match="were handed on, .* arrived; please report this"):
        preprocess(dataclasses.replace(config, output=str(tmp_path / "records")))
    assert not (tmp_path / "records" / "manifest.json").exists()


def test_a_vocabulary_that_loses_spaces_is_refused(config, tmp_path):
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = proto.ModelProto()
    model.ParseFromString(Path(config.tokenizer).read_bytes())
    for piece in model.pieces:
        if piece.piece in "\u2582\u2583":
            piece.type = proto.ModelProto.SentencePiece.CONTROL
    bad = tmp_path / "bad.model"
    bad.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="never yields its pieces for space and line feed"):
        preprocess(dataclasses.replace(config, tokenizer=str(bad), output=str(tmp_path / "records")))
    assert not (tmp_path / "records").exists()


def test_all_files_of_another_encoding_are_named_before_any_work(config, corpus, tmp_path):
    for name in ("1.txt", "2.txt"):
        (tmp_path / name).write_bytes(("天下大势，分久必合。" * 20).encode("gbk"))
    inputs = (str(tmp_path / "1.txt"), *corpus, str(tmp_path / "2.txt"))
    with pytest.raises(ValueError) as caught:
        preprocess(dataclasses.replace(config, inputs=inputs, output=str(tmp_path / "records")))
    assert str(caught.value).count("in gb18030 it is Chinese text") == 2
    assert not (tmp_path / "records").exists()


def test_many_faults_are_cut(config, tmp_path):
    missing = tuple(f"{number}.txt" for number in range(5000))
    with pytest.raises(ValueError, match=r"19\.txt: no such file\n  - inputs: and 4,980 more like these"):
        preprocess(dataclasses.replace(config, inputs=missing, output=str(tmp_path / "records")))


def test_two_runs_into_one_folder(config, records, tmp_path):
    output = tmp_path / "records"
    with hold_folder(output, "preprocess.py"), pytest.raises(FolderInUseError, match="records: in use since"):
        preprocess(dataclasses.replace(config, output=str(output)))
    assert not output.exists() or os.listdir(output) == []
    (output / LOCK_NAME).write_text("{}")  # of a process that was killed as it began
    manifest = preprocess(dataclasses.replace(config, output=str(output)))
    assert digests(manifest) == digests(Manifest.read(records)) and LOCK_NAME not in os.listdir(output)


def test_two_real_runs_into_one_folder_make_the_records_once(config, records, tmp_path):
    output = tmp_path / "records"
    code = (
        "import sys; from pangu_alpha.data.preprocess import PreprocessConfig, preprocess\n"
        "try: preprocess(PreprocessConfig(tuple(sys.argv[3:]), sys.argv[1], sys.argv[2], seq_length=16, "
        "windows_per_shard=50))\n"
        "except ValueError as error: print(error)"
    )
    command = [sys.executable, "-c", code, config.tokenizer, str(output), *config.inputs]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate()[0] for process in both)
    assert said[0] == "" and (said[1] == "" or "in use since" in said[1])
    assert digests(Manifest.read(output)) == digests(Manifest.read(records)) and verify(output) == []
    assert sorted(os.listdir(output)) == sorted(os.listdir(records))


def test_complete_records_on_a_read_only_disk_are_found(config, records, monkeypatch):
    def no(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pangu_alpha.data.preprocess.hold_folder", no)
    assert preprocess(config) == Manifest.read(records)


def test_names_that_are_not_utf8(config, corpus, tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), "新闻".encode("gbk"))
    os.mkdir(folder)
    source = os.fsdecode(os.path.join(folder, "三国.txt".encode("gbk")))
    shutil.copy(corpus[0], source)
    ours = dataclasses.replace(config, inputs=(source,), output=str(tmp_path / "records"))
    manifest = preprocess(ours)
    assert manifest.inputs[0].path.endswith(r"/\xd0\xc2\xce\xc5/\xc8\xfd\xb9\xfa.txt")
    assert preprocess(ours) == manifest  # found complete
    with pytest.raises(ValueError, match="output: .*the name is not UTF-8, which MindRecord needs"):
        dataclasses.replace(config, output=os.fsdecode(folder))


def test_records_made_before_the_newer_options_are_of_the_same_settings(config):
    read = [key for key in config.settings("digest") if key.startswith("read.")]
    assert read == ["read.split", "read.field", "read.invalid_utf8", "read.broken"]
    other = dataclasses.replace(config.read, encoding="gbk", largest_document=10**9)
    changed = dataclasses.replace(config, read=other).settings("digest")
    assert changed["read.encoding"] == "gbk" and changed["read.largest_document"] == "1000000000"


def test_a_damaged_token_file_of_an_interrupted_run_is_made_anew(config, records, tmp_path):
    output = tmp_path / "records"
    assert run_python(KILLED, "tokenizing", config.tokenizer, str(output), *config.inputs).returncode < 0
    tokens = output / "unfinished" / "00002.tokens"
    content = bytearray(tokens.read_bytes())
    content[5] ^= 1
    tokens.write_bytes(content)
    assert digests(preprocess(dataclasses.replace(config, output=str(output)))) == digests(
        Manifest.read(records)
    )


def test_the_command_line_takes_folders_and_lists_and_warns_of_unknown_characters(
    vocab_file, corpus, tmp_path, capsys
):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in corpus:
        shutil.copy(name, folder)
    (folder / "README.md").write_text("about")
    (tmp_path / "list").write_text(f"{tmp_path}/smile.txt\n")
    (tmp_path / "smile.txt").write_text("天下😀" * 20, encoding="utf-8")
    fixed = ["--vocabulary", vocab_file, "--seq-length", "8", "--workers", "1"]
    words = ["--input", str(folder), "--input-list", str(tmp_path / "list"), "--output", str(tmp_path / "r")]
    assert main([*fixed, *words]) == 0
    printed = capsys.readouterr()
    manifest = Manifest.read(tmp_path / "r")
    assert [Path(file.path).name for file in manifest.inputs] == [*map(os.path.basename, corpus), "smile.txt"]
    assert f"= {manifest.tokens - manifest.documents - 20:,} of text + 20 <unk> + " in printed.out
    ledger = manifest.characters
    assert f"characters {ledger.given:,} in = {ledger.kept:,} kept" in printed.out
    assert (
        "not read, as their names say nothing of text, or as links to folders:" in printed.out
        and "README.md" in printed.out
    )
    assert "warning: in 1 of 6 input file(s) more than 1% of the tokens are <unk>" in printed.err
    assert "smile.txt: 25.0%" in printed.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--seq-length", "0"], "argument --seq-length: '0' is not a whole number of at least 1"),
        (["--workers", "0"], "argument --workers"),
        (["--workers", "9" * 5000], "argument --workers"),
        (["--windows-per-shard", "-1"], "argument --windows-per-shard"),
        (["--largest-document", "0"], "argument --largest-document"),
    ],
)
def test_numbers_of_the_command_line(vocab_file, corpus, tmp_path, capsys, words, reason):
    fixed = ["--input", corpus[0], "--vocabulary", vocab_file, "--output", str(tmp_path / "r")]
    with pytest.raises(SystemExit) as caught:
        main([*fixed, "--seq-length", "8", *words])
    assert caught.value.code == 2 and reason in capsys.readouterr().err


def test_shares_and_missing_inputs_are_refused(vocab_file, corpus, tmp_path, capsys):
    fixed = ["--vocabulary", vocab_file, "--output", str(tmp_path / "r"), "--seq-length", "8"]
    for share, reason in (
        ("nan", "'nan' is not a finite number"),
        ("-1", "-1.0 must lie in [0, 1]"),
        ("2", "2.0 must lie in [0, 1]"),
    ):
        with pytest.raises(SystemExit):
            main([*fixed, "--input", corpus[0], "--invalid-share", share])
        assert f"--invalid-share: {reason}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no input; give --input FILE"):
        main(fixed)
    (tmp_path / "list").write_text("\n")
    with pytest.raises(ValueError, match="names no file"):
        main([*fixed, "--input-list", str(tmp_path / "list")])


def test_a_long_document_is_encoded_by_parts_to_the_same_ids(config, tmp_path, monkeypatch):
    lines = ["天下大势，分久必合。", "", "周末七国分争", "😀"] * 500
    source = tmp_path / "long.txt"
    source.write_text("\n".join(lines), encoding="utf-8")
    ours = dataclasses.replace(config, inputs=(str(source),), output=str(tmp_path / "records"))
    expected = stream_of(ours)
    monkeypatch.setattr("pangu_alpha.text.tokenizer._MAX_CHARACTERS", 1000)
    monkeypatch.setattr("pangu_alpha.data.tokens._LOAD", 100)
    manifest = preprocess(ours)
    assert windows_of(ours.output).ravel().tolist() == expected[: manifest.windows * 17]
    assert (manifest.tokens, manifest.documents) == (len(expected), 1)
    assert manifest.unknown == expected.count(PanguTokenizer(config.tokenizer).unk_id) > 0


def test_inputs_and_rules_given_one_by_one_all_count(vocab_file, corpus, tmp_path):
    words = [word for path in corpus for word in ("--input", path)]
    rules = ["--clean", "min_line_characters=1", "--clean", "min_line_han=0.01"]
    fixed = ["--vocabulary", vocab_file, "--output", str(tmp_path / "r"), "--seq-length", "8"]
    assert main([*words, *rules, *fixed]) == 0
    manifest = Manifest.read(tmp_path / "r")
    assert [file.path for file in manifest.inputs] == list(corpus) and len(corpus) > 1
    assert manifest.settings["clean.min_line_characters"] == "1"
    assert manifest.settings["clean.min_line_han"] == "0.01"


def test_a_working_folder_that_is_not_utf8_is_refused_in_words(vocab_file, corpus, tmp_path, monkeypatch):
    """MindRecord writes to the whole path of a folder that is given by a part of it."""
    folder = tmp_path / os.fsdecode("新闻".encode("gbk"))
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match="output: .*the name is not UTF-8, which MindRecord needs"):
        main(["--input", corpus[0], "--vocabulary", vocab_file, "--output", "r", "--seq-length", "8"])


@pytest.mark.parametrize(
    "place", ["unfinished", "unfinished/00000.tokens.partial", "unfinished/a.mindrecord.partial"]
)
def test_links_in_the_place_of_intermediate_files_are_refused(config, tmp_path, place):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "settings.json").write_text("{")
    (mine / "00000.tokens.partial").write_text("years of work")
    path = tmp_path / "records" / place
    path.parent.mkdir(parents=True)
    path.symlink_to(mine / "00000.tokens.partial" if place.endswith("tokens.partial") else mine)
    if place == "unfinished":
        (mine / "settings.json").unlink()
    before = sorted(mine.iterdir())
    with pytest.raises(ValueError, match="a link"):
        preprocess(dataclasses.replace(config, output=str(tmp_path / "records")))
    assert sorted(mine.iterdir()) == before
    assert (mine / "00000.tokens.partial").read_text() == "years of work"
    assert path.is_symlink()
