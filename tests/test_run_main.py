"""What a command leaves behind: an exit code and at most one sentence."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def run(body, **more):
    """A process whose command is `body`."""
    text = f"from pangu_alpha.cli import run_main\ndef main(words):\n    {body}\nrun_main(main)\n"
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, **more)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("return None", 0, ""),
        ("return 3", 3, ""),
        ("raise ValueError('tp: 5 does not divide 12')", 2, "error: tp: 5 does not divide 12\n"),
        ("open('nowhere.yaml')", 2, "error: nowhere.yaml: there is no such file or folder\n"),
        ("raise BrokenPipeError(32, 'Broken pipe')", 2, "error: [Errno 32] Broken pipe\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("raise KeyboardInterrupt('new: the same command goes on')", 130, "new: the same command goes on\n"),
    ],
)
def test_exit_codes(body, code, said):
    done = run(body)
    assert (done.returncode, done.stderr) == (code, said)


def test_an_error_of_ours_keeps_its_traceback():
    done = run("assert not 'this'")
    assert done.returncode == 1 and "Traceback" in done.stderr and "AssertionError" in done.stderr


def test_a_name_that_cannot_be_shown_is_no_failure():
    done = run("print('\\u76d8\\u53e4\\udcc5')", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, "\\u76d8\\u53e4\\udcc5\n")


def test_a_reader_that_has_had_enough():
    text = "from pangu_alpha.cli import run_main\nrun_main(lambda words: print('x\\n' * 10**6))"
    with subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 141)
