"""run_tests.sh: which checks and tests its words stand for; interpreter and tools are stand-ins."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "run_scripts" / "run_tests.sh"
CHECKS = ["ruff check .", "ruff format --check .", "codespell", "shellcheck", "shfmt", "mypy"]
FETCH = "python -m pangu_alpha.cli.fetch vocab"


@pytest.fixture
def run(tmp_path):
    """Runs the script; gives the exit code and the commands that it printed and ran."""

    def executable(name, text):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        (tmp_path / name).chmod(0o755)

    def run(*words, without=(), fails=None):
        executable("python3.11", '[ "$1" != -c ] || echo 3.11')
        for name in {"ruff", "codespell", "shellcheck", "shfmt", "mypy"} - {*without}:
            executable(name, f"exit {int(name == fails)}")
        environment = {
            **os.environ,
            "PANGU_PYTHON": str(tmp_path / "python3.11"),
            "PATH": "/usr/bin:/bin",
        }
        command = ["bash", str(SCRIPT), *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        ran = [line[2:] for line in done.stdout.splitlines() if line.startswith("+ ")]
        return done.returncode, ran, done.stderr

    return run


def is_all_checks(ran):
    return len(ran) == len(CHECKS) and all(map(str.startswith, ran, CHECKS))


def test_without_words_all_is_checked_and_run(run):
    code, ran, _ = run()
    assert code == 0 and is_all_checks(ran[:-2]) and ran[-2] == FETCH
    assert ran[-1].startswith("python -m pytest --numprocesses auto ") and "not slow" not in ran[-1]
    assert "run_scripts/run_tests.sh" in ran[3] and ".ci/run" in ran[3]


def test_one_file_is_run_alone_in_one_process(run):
    assert run("tests/files/test_lock.py")[1] == [FETCH, "python -m pytest tests/files/test_lock.py"]
    words = ("tests/files/test_lock.py::test_x", "-k", "y")
    assert run(*words)[1] == [FETCH, "python -m pytest tests/files/test_lock.py::test_x -k y"]


@pytest.mark.parametrize(
    "words", [("tests/files",), ("tests/files/test_lock.py", "tests/files/test_paths.py")]
)
def test_several_files_are_shared_by_processes_without_checks(run, words):
    _, ran, _ = run(*words)
    assert ran[0] == FETCH and ran[1].startswith("python -m pytest --numprocesses auto ")
    assert ran[1].endswith(" ".join(words)) and len(ran) == 2


def test_fast_leaves_out_what_is_slow(run):
    _, ran, _ = run("--fast", "-x")
    assert is_all_checks(ran[:-2]) and ran[-1].endswith(" -m not slow -x")


def test_checks_run_no_test(run):
    code, ran, _ = run("--checks")
    assert code == 0 and is_all_checks(ran)


def test_options_of_pytest_come_after_the_checks(run):
    _, ran, _ = run("--long", "-m", "long")
    assert is_all_checks(ran[:-2]) and ran[-1].endswith(" --long -m long")


@pytest.mark.parametrize("fault", ["codespell", "mypy"])
def test_a_check_that_fails_ends_it(run, fault):
    code, ran, _ = run(fails=fault)
    assert code == 1 and ran[-1] == fault


def test_a_tool_that_is_missing_is_named(run):
    code, ran, said = run("--fast", without=["shfmt"])
    assert (code, ran) == (2, [])
    assert said.startswith("error: shfmt is not installed beside ") and "pip install -e '.[dev]'" in said


def test_help_names_every_word(run):
    done = subprocess.run(["bash", str(SCRIPT), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("Usage: ")
    assert all(f"  {word}" in done.stdout for word in ("--fast", "--checks", "PATH ...", "--long -m long"))
