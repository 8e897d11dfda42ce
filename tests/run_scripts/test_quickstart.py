"""quickstart.sh: which steps follow an evaluation, with a stand-in for Python."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "run_scripts" / "quickstart.sh"
PYTHON = """#!/usr/bin/env bash
[[ $1 != -c ]] || echo 3.11
[[ $* != *cli.fetch* ]] || seq 120 >data/sanguo.jsonl
[[ $* != *evaluate.py* ]] || exit "$EVALUATION"
"""


@pytest.mark.parametrize(("evaluation", "code", "writes"), [(0, 0, True), (1, 0, True), (2, 2, False)])
def test_it_writes_unless_the_evaluation_fails(evaluation, code, writes, tmp_path):
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment = {**os.environ, "PANGU_PYTHON": str(python), "EVALUATION": str(evaluation)}
    words = ["bash", str(SCRIPT), "--work", str(tmp_path / "work"), "run.steps=100"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code, done.stderr
    assert ("predict.py --checkpoint run" in done.stdout) == writes
    assert ("trained too little" in done.stdout) == (evaluation == 1)
    assert len((tmp_path / "work/data/train.jsonl").read_text().split()) == 108


def run(script, *words):
    """A script where no environment has been made; what it would make one with fails."""
    environment = {name: text for name, text in os.environ.items() if name != "PANGU_PYTHON"}
    environment |= {"PANGU_VENV": "/nowhere/venv", "PYTHON": "/nowhere/python"}
    words = ["bash", str(SCRIPT.parent / script), *words]
    return subprocess.run(words, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("words", [["--wrok", "x"], ["run.steps=1", "--work", "x"], ["steps"]])
def test_a_wrong_word_is_refused_before_anything_is_made(words):
    done = run("quickstart.sh", *words)
    assert done.returncode == 2 and "only --work DIR, as the first option, and words key=value" in done.stderr
