"""predict.py's command line."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pangu_alpha.cli.predict import main

SCRIPT = Path(__file__).parents[2] / "src" / "predict.py"


@pytest.fixture
def predict(run_folder):
    """Runs the command on the run's folder."""
    return lambda *words: main(["--checkpoint", str(run_folder), "--device", "CPU", *words])


def test_prompts_samples_and_output(predict, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    words = ("--prompt", "天下大势", "--prompt", "楚汉", "--samples", "2", "--max-new-tokens", "5")
    assert predict(*words, "--output", str(out), "--no-stream") == 0
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    lines.sort(key=lambda line: line["index"])
    assert [line["prompt"] for line in lines] == ["天下大势"] * 2 + ["楚汉"] * 2
    shown = "".join(f"{line['prompt']}{line['text']}\n[{line['reason']}]\n" for line in lines)
    assert capsys.readouterr().out == shown


def test_task_from_fields_and_from_a_file(predict, tmp_path, capsys):
    words = ("--task", "couplet", "--max-new-tokens", "3", "--greedy")
    predict(*words, "--field", "first=天下大势")
    by_field = capsys.readouterr().out
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"first": "天下大势"}\n', "utf-8")
    predict(*words, "--prompt-file", str(file))
    assert capsys.readouterr().out == by_field
    assert by_field.startswith("上联：天下大势\n下联：")


def test_interactive_goes_on_after_a_bad_line(predict, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("天下\n" + "天下大势" * 200 + "\n\n楚汉\n"))
    predict("--interactive", "--max-new-tokens", "2")
    shown = capsys.readouterr()
    assert shown.out.count("\n[") == 2 and shown.out.startswith("天下") and "\n楚汉" in shown.out
    assert "error: prompt 0" in shown.err


def test_interactive_lines_are_continued_with_all_before_them(predict, monkeypatch, capsys):
    how = ("--max-new-tokens", "6", "--seed", "3")
    monkeypatch.setattr(sys, "stdin", io.StringIO("天下\n楚汉\n\n楚汉\n"))
    predict("--interactive", *how)
    first, second, alone = capsys.readouterr().out.split("\n[length]\n")[:3]
    assert first.startswith("天下") and second.startswith("楚汉") and alone.startswith("楚汉")
    predict("--prompt", "楚汉", *how)
    assert capsys.readouterr().out == f"{alone}\n[length]\n" != f"{second}\n[length]\n"


def test_a_conversation_that_is_too_long_forgets_its_older_half(predict, monkeypatch, capsys, caplog):
    monkeypatch.setattr(sys, "stdin", io.StringIO("天下大势分久必合\n" * 12))
    predict("--interactive", "--max-new-tokens", "20")
    assert capsys.readouterr().out.count("天下大势分久必合") == 12
    assert "the conversation has become too long: its first" in caplog.text


def test_slots_are_prompts_computed_together(predict, capsys, monkeypatch):
    from pangu_alpha.inference import decoder

    rows, made = [], decoder.Decoder.__init__
    monkeypatch.setattr(
        decoder.Decoder, "__init__", lambda self, *args: (rows.append(args[2]), made(self, *args))[1]
    )
    prompts = [word for text in ("天下", "大势", "分久必合") for word in ("--prompt", text)]
    shown = []
    for words in ((), ("--slots", "2"), ("--slots", "5")):
        predict(*prompts, "--max-new-tokens", "5", *words)
        shown.append(capsys.readouterr().out)
    assert rows == [3, 2, 5] and len({*shown}) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no prompt"),
        (("--task", "couplet"), "'first' is missing; the fields are first"),
        (("--task", "couplets", "--field", "first=a"), "did you mean 'couplet'"),
        (("--field", "first=a", "--prompt", "a"), "--field is for a --task"),
        (("--task", "couplet", "--field", "first"), "key=value"),
        (("--task", "couplet", "--prompt", "a"), "exclude each other"),
        (("--interactive", "--prompt", "a"), "leave out"),
        (("--prompt", "a", "--temperature", "0", "--top-p", "2"), "2 problems"),
        (("--prompt", "a", "--greedy", "--top-k", "3"), "no effect with greedy"),
        (("--prompt", ""), "prompt 0: empty"),
        (("--prompt-file", "absent.txt"), "absent.txt"),
        (("--prompt", "\t\r"), "prompt 0: empty, or only of characters that the vocabulary drops"),
        (("--prompt", "天", "--max-new-tokens", "0"), "max_new_tokens: 0 must be at least 1"),
        (("--prompt", "天", "--seed", "-1"), "seed: -1 must not be negative"),
        (("--prompt", "天", "--top-p", "-0.0"), "top_p: -0.0 must lie above 0"),
        (("--prompt", "天", "--stop", "\udcff"), "--stop .*not UTF-8"),
        (("--prompt", "天", "--stop", "🙂"), "stop: '🙂' cannot be generated; the vocabulary has no piece"),
        (("--interactive", "--output", "x"), "leave out --output and --samples"),
        (("--interactive", "--samples", "2"), "leave out --output and --samples"),
        (("--task", "couplet", "--field", "first=a", "--prompt-file", "x"), "exclude each other"),
    ],
)
def test_mistakes_are_explained(predict, words, message):
    with pytest.raises((ValueError, OSError), match=message):
        predict(*words)


def test_prompt_files_report_every_bad_line(predict, tmp_path):
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"prompt": "a"}\nnonsense\n{"text": "a"}\n[1]\n', "utf-8")
    with pytest.raises(ValueError) as error:
        predict("--prompt-file", str(lines))
    problems = str(error.value).split("\n")
    assert [re.match(rf"{lines}, line (\d)", problem)[1] for problem in problems] == ["2", "3", "4"]
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"abc\xff")
    with pytest.raises(ValueError, match="line 1: not UTF-8 text .*offset 3"):
        predict("--prompt-file", str(latin))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--samples", "0"), "'0' is not a whole number of at least 1"),
        (("--samples", "-1"), "'-1' is not a whole number of at least 1"),
        (("--slots", "0"), "'0' is not a whole number of at least 1"),
        (("--samples", "two"), "'two' is not a whole number of at least 1"),
        (("--max-new-tokens", "9" * 5000), "... 9999"),
        (("--top-k", "1.5"), "'1.5' is not a whole number"),
        (("--temperature", "nan"), "'nan' is not a finite number"),
        (("--temperature", "1e999"), "'1e999' is not a finite number"),
        (("--presence-penalty", "-inf"), "'-inf' is not a finite number"),
        (("--punctuation", "english"), "choose from"),
        (("--output", ""), "'' is no path"),
    ],
)
def test_bad_words_are_refused_before_anything_is_opened(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--checkpoint", "absent", "--prompt", "天", words[0] + "=" + words[1]])
    shown = capsys.readouterr().err
    assert ended.value.code == 2 and said in shown and len(shown.split("error:")[1]) < 300


@pytest.mark.parametrize("words", [("--temperature", "1e-320"), ("--top-p", "1e-320"), ("--greedy",)])
def test_the_limits_of_sampling_are_the_likeliest_token(predict, capsys, words):
    assert predict("--prompt", "天下大势", "--max-new-tokens", "5", *words) == 0
    limit = capsys.readouterr().out
    predict("--prompt", "天下大势", "--max-new-tokens", "5", "--greedy")
    assert limit == capsys.readouterr().out


@pytest.fixture
def says(monkeypatch, run_folder):
    """Makes the model continue every prompt with a text."""
    from pangu_alpha.text.tokenizer import PanguTokenizer

    tokenizer = PanguTokenizer(run_folder / "vocab.model")

    def make(text):
        ids = tokenizer.encode(text)

        def choose(self, logits):
            place = int(self._counts[0])
            self._counts[0] += 1
            return ids[place] if place < len(ids) else tokenizer.eod_id

        monkeypatch.setattr("pangu_alpha.inference.sampling.Sampler.__call__", choose)

    return make


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_chinese_text_gets_chinese_punctuation(predict, says, tmp_path, capsys, stream):
    out = tmp_path / "out.jsonl"
    says("，合久必分，七国，")
    words = ("--prompt", "天下", "--prompt", "a", stream, "--output", str(out))
    predict(*words)
    assert capsys.readouterr().out == "天下，合久必分，七国，\n[stop]\na，合久必分，七国，\n[stop]\n"
    assert json.loads(out.read_text("utf-8").splitlines()[0])["text"] == "，合久必分，七国，"
    predict(*words, "--punctuation", "as-is")
    assert capsys.readouterr().out == "天下,合久必分,七国,\n[stop]\na,合久必分,七国,\n[stop]\n"
    predict("--prompt", "天下", "--stop", "，七")  # stop texts are found in either form
    assert capsys.readouterr().out == "天下，合久必分\n[stop]\n"
    says(",,")
    predict("--prompt", "a")
    assert capsys.readouterr().out == "a,,\n[stop]\n"


def test_a_terminal_gets_no_control_characters_and_a_file_every_character(predict, says, monkeypatch, capsys):
    says("七国")
    prompt = "天\x1b[31m下\u202e\x07"
    predict("--prompt", prompt)
    assert capsys.readouterr().out == f"{prompt}七国\n[stop]\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    predict("--prompt", prompt)
    assert capsys.readouterr().out == "天\\x1b[31m下\\u202e\\x07七国\n[stop]\n"


def test_an_interrupted_run_keeps_the_old_file_and_what_it_finished(
    predict, says, tmp_path, monkeypatch, capsys
):
    from pangu_alpha.cli import predict as module

    out = tmp_path / "out.jsonl"
    out.write_text("old\n")
    says("七国")
    show = module._Screen.add
    words = ("--prompt", "天下", "--prompt", "大势", "--output", str(out))

    def add(self, prompt, text, reason):
        if prompt == 1 and reason:
            raise KeyboardInterrupt
        show(self, prompt, text, reason)

    monkeypatch.setattr(module._Screen, "add", add)
    with pytest.raises(KeyboardInterrupt):
        predict(*words)
    partial = tmp_path / "out.jsonl.partial"
    finished = {"index": 0, "prompt": "天下", "text": "七国", "reason": "stop"}
    assert [json.loads(line) for line in partial.read_text("utf-8").splitlines()] == [finished]
    assert out.read_text() == "old\n"
    assert f"{partial}: holds the continuations that were finished" in capsys.readouterr().err
    monkeypatch.setattr(module, "_load", lambda options: pytest.fail("opened before the refusal"))
    with pytest.raises(FileExistsError, match="out.jsonl.partial: is there already"):
        predict(*words)
    assert out.read_text() == "old\n" and len(partial.read_text("utf-8").splitlines()) == 1


def test_a_refusal_leaves_the_old_file_alone(predict, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("old\n")
    for words in (
        ("--prompt", ""),
        ("--prompt", "天下大势" * 200),
        ("--prompt", "天", "--end-of-document", "x"),
    ):
        with pytest.raises(ValueError):
            predict(*words, "--output", str(out))
    assert out.read_text() == "old\n" and [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    with pytest.raises(OSError, match="absent"):
        predict("--prompt", "天", "--output", str(tmp_path / "absent" / "x"))


def test_samples_of_a_bad_prompt_are_one_problem(predict):
    with pytest.raises(ValueError) as error:
        predict("--prompt", "天下", "--prompt", "", "--samples", "3")
    assert str(error.value).count("empty") == 1 and "prompt 3: empty" in str(error.value)


def test_an_interactive_line_that_is_not_utf8_is_refused_and_the_next_one_read(
    predict, says, monkeypatch, capsys
):
    says("七国")
    raw = "天".encode("gb18030") + "\n楚汉\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), "utf-8"))
    predict("--interactive")
    shown = capsys.readouterr()
    assert shown.out == "楚汉七国\n[stop]\n" and "error: line '" in shown.err and "not UTF-8" in shown.err


def test_the_script_ends_with_2_and_one_line(tmp_path):
    command = [sys.executable, str(SCRIPT), "--checkpoint", str(tmp_path), "--prompt", "a", "--top-k", "-1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "error: 1 problem" in done.stderr and "Traceback" not in done.stderr
