"""run_serve.sh: what is trained before it serves, and what is served, with a stand-in for Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "run_scripts"
PYTHON = """#!/usr/bin/env bash
echo "$*" >>"$CALLS"
[[ $1 != -c ]] || echo 3.11
[[ $* != *cli.fetch* ]] || seq 120 >data/sanguo.jsonl
if [[ $* == *train.py* ]]; then
    mkdir -p run/checkpoints
    exit "${TRAINING:-0}"
fi
"""


@pytest.fixture
def start(tmp_path):
    """start(words, **environment): runs the script in a checkout; what became of it, and Python's calls."""
    shutil.copytree(SCRIPTS, tmp_path / "run_scripts")
    python, calls = tmp_path / "python", tmp_path / "calls"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(*words, **environment):
        calls.write_text("")
        done = subprocess.run(
            ["bash", str(tmp_path / "run_scripts/run_serve.sh"), *words],
            capture_output=True,
            text=True,
            env={**os.environ, "PANGU_PYTHON": str(python), "CALLS": str(calls), **environment},
            check=False,
        )
        return done, calls.read_text()

    return run


def test_without_a_checkpoint_the_quickstarts_model_is_trained_once(start, tmp_path):
    work = tmp_path / "runs/quickstart"
    served = f"src/serve.py --checkpoint {work}/run --vocabulary {work}/data/vocab.model --port 8001"
    done, calls = start("--port", "8001")
    assert done.returncode == 0 and "no trained model is in" in done.stdout, done.stderr
    assert calls.index("src/train.py") < calls.index(served)
    done, calls = start("--port", "8001")
    assert served in calls and "train.py" not in calls and "preprocess.py" not in calls


def test_a_training_that_was_broken_off_is_finished_before_its_model_is_served(start):
    done, calls = start(TRAINING="130")
    assert done.returncode == 130 and "serve.py" not in calls
    done, calls = start()
    assert done.returncode == 0 and calls.index("src/train.py") < calls.index("src/serve.py")


@pytest.mark.parametrize("words", [["--checkpoint", "runs/mine"], ["--checkpoint=runs/mine", "--slots", "4"]])
def test_a_checkpoint_is_served_as_it_is(start, words):
    done, calls = start(*words)
    assert done.returncode == 0 and calls.endswith(f"src/serve.py {' '.join(words)}\n")
    assert "train.py" not in calls
