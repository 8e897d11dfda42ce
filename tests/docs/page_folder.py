"""A scratch folder that looks like a checkout, in which the commands of a page run as a reader types them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from page_commands import ROOT

LINKED = (
    "LICENSE", "README.md", "benchmarks", "model_zoo", "pyproject.toml", "rank_tables", "run_scripts",
    "setup.py", "src", "tests",
)  # fmt: skip
_WRAPPERS = {
    "python": 'exec "{python}" "$@"',
    "pangu-alpha": 'exec "{python}" -m pangu_alpha "$@"',
    "pytest": 'exec "{python}" -m pytest "$@"',
}
_TIMES = re.compile(r"\b\d+(\.\d+)? (s|ms|minutes?|h)\b|\b\d+(\.\d+)? (GB/s|tokens/s)|peak memory \d+ MB")
_NUMBER = re.compile(r"\d[\d,.]*(e[+-]\d+)?")


@dataclass
class Done:
    """Exit code of a command and what it printed, standard error included."""

    code: int
    text: str


class Folder:
    """The checkout in which a reader works: links to everything that a page may name, and what he has made.

    A command that changes the shell (`export`, `cd`) holds for all that follow.
    """

    def __init__(self, path: Path, shelf: Path | None = None):
        self.path = path
        self.shelf = shelf or path.parent  # what several pages need, to be copied
        path.mkdir(parents=True, exist_ok=True)
        for name in LINKED:
            (path / name).symlink_to(ROOT / name)
        (path / "docs/images").mkdir(parents=True)
        self._bin = path / ".bin"
        self._bin.mkdir()
        for name, text in _WRAPPERS.items():
            wrapper = self._bin / name
            wrapper.write_text(f"#!/bin/sh\n{text.format(python=sys.executable)}\n", "utf-8")
            wrapper.chmod(0o755)
        self._before: list[str] = []

    def write(self, name: str, text: str) -> None:
        """Makes a file that the page shows."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    def has(self, name: str) -> bool:
        """Whether a name or pattern, relative to this folder or absolute, stands for something."""
        return bool(glob(str(self.path / name.rstrip("/")), recursive=True))

    def run(self, command: str, timeout: float) -> Done:
        """Runs a command of a page."""
        if re.match(r"(export|cd) ", command):
            self._before.append(command)
        script = "\n".join(["set -eo pipefail", *self._before, command])
        return self._process(["bash", "-c", script], timeout)

    def run_python(self, program: str, timeout: float) -> Done:
        """Runs a Python program of a page."""
        return self._process([sys.executable, "-c", program], timeout)

    def _process(self, words: Sequence[str], timeout: float) -> Done:
        environment = {
            **os.environ,
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "PANGU_PYTHON": str(self._bin / "python"),
            "PYTHONPATH": "",
            "OMP_NUM_THREADS": "1",
            "GLOG_v": "3",
            "LOG_MF_PATH": str(self.path / "output"),
        }
        done = subprocess.run(
            words, cwd=self.path, env=environment, timeout=timeout, check=False, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return Done(done.returncode, done.stdout)

    def remove(self) -> None:
        """Gives the disk back."""
        shutil.rmtree(self.path, ignore_errors=True)


def small(command: str, words: str, replaced: Sequence[tuple[str, str]]) -> str:
    """A command with words in the place of others, and with words added before a pipe or redirection."""
    for old, new in replaced:
        assert old in command, f"{command!r} has no {old!r}"
        command = command.replace(old, new)
    head = re.search(r"\s*(?:\s[|>&]{1,2}\s?.*)?$", command, re.S)
    return f"{command[: head.start()]} {words}{head[0]}" if words else command


def missing_lines(shown: str, printed: str, exact: bool) -> list[str]:
    """Lines of a page's output that a command did not print, in their order.

    A line `...` stands for any lines, and `...` at a line's end for its rest. Times and rates never count;
    unless `exact`, no number does.
    """
    lines = [_plain(line, exact) for line in printed.split("\n")]
    at, missing = 0, []
    for line in shown.strip("\n").split("\n"):
        if not line.strip() or line.strip() == "...":
            continue
        wanted = _plain(line, exact)
        rest = wanted.endswith("...")
        wanted = wanted.removesuffix("...").rstrip()
        found = (n for n in range(at, len(lines)) if _fits(lines[n], wanted, rest))
        place = next(found, None)
        if place is None:
            missing.append(line)
        else:
            at = place + 1
    return missing


def _fits(line: str, wanted: str, rest: bool) -> bool:
    return line.startswith(wanted) if rest else line == wanted


def _plain(line: str, exact: bool) -> str:
    line = _TIMES.sub("# \\2", line.rstrip())
    line = line if exact else _NUMBER.sub("#", line)
    return " ".join(re.sub(r"-{3,}", "---", line).split())


def quoted(words: Sequence[str]) -> str:
    """Words as bash reads them."""
    return " ".join(map(shlex.quote, words))
