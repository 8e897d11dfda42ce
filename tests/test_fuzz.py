"""The front doors under damaged files: a small part of benchmarks/fuzz.py, the same cases in every run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"
CASES = {
    "documents": 250,
    "vocabulary": 150,
    "training a vocabulary": 12,
    "config": 250,
    "overrides": 250,
    "rank table": 250,
    "hosts": 250,
    "prompts": 250,
    "checkpoints": 250,
}


@pytest.mark.parametrize("door", CASES)
def test_damaged_files_are_refused_in_a_sentence_or_read_without_loss(door):
    words = [sys.executable, str(BENCHMARK), "--door", door, "--cases", str(CASES[door])]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'"cases": {CASES[door]}, "faults": 0' in done.stdout


def test_every_door_is_tried():
    shown = subprocess.run([sys.executable, str(BENCHMARK), "--help"], capture_output=True, text=True).stdout
    listed = shown.partition("--door {")[2].partition("}")[0].split(",")
    assert sorted(listed) == sorted(CASES)


def test_the_rule_is_held(tmp_path, monkeypatch):
    """A reader that ends in a traceback, that Python refuses for, or that loses something is a fault."""
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    import front_doors
    import fuzz

    from pangu_alpha.files.reading import parse_json

    def loses():
        raise front_doors.LossError("2 of 3 lines")

    assert fuzz.attempt(lambda: None) == (True, None)
    assert fuzz.attempt(lambda: parse_json("[", "x")) == (False, None)
    assert fuzz.attempt(loses) == (False, "lost without a word: 2 of 3 lines")
    assert fuzz.attempt(lambda: int("x")) == (False, "ValueError of Python's own at ?")
    assert fuzz.attempt(lambda: {}["x"]) == (False, "KeyError at ?")
    assert fuzz.attempt(Path("/no/such/file").read_bytes) == (False, None)
    assert fuzz.attempt(lambda: bytearray(600 << 20)) == (True, "took more than 500 MB")
