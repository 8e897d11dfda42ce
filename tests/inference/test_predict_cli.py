"""predict.py's command line."""

from __future__ import annotations

import io
import json
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
    assert [problem.split(":")[1] for problem in str(error.value).split("\n")] == ["2", "3", "4"]
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"abc\xff")
    with pytest.raises(ValueError, match="not UTF-8 at byte 3"):
        predict("--prompt-file", str(latin))


def test_the_script_ends_with_2_and_one_line(tmp_path):
    command = [sys.executable, str(SCRIPT), "--checkpoint", str(tmp_path), "--prompt", "a", "--top-k", "-1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "error: 1 problem" in done.stderr and "Traceback" not in done.stderr
