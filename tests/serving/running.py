"""A server's process in a test, and what several tests ask of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Clients whose dependencies would clash with ours stand in an environment of their own.
CLIENTS = Path(os.environ.get("PANGU_CLIENTS") or ROOT / "data/clients")
REQUIREMENTS = "tests/serving/clients/requirements.txt"


def digest(secret: str) -> str:
    """A key as a key file holds it."""
    return hashlib.sha256(secret.encode()).hexdigest()


def client_program(name: str) -> str | None:
    """Path of a program in the clients' environment; None where it is missing."""
    return shutil.which(name, path=str(CLIENTS / "bin"))


def needs_clients(name: str) -> str:
    """Why a test that runs such a program is skipped."""
    python = f"{CLIENTS}/bin/python"
    return f"needs {name}: python -m venv {CLIENTS} && {python} -m pip install -r {REQUIREMENTS}"


class Server:
    """A server's process, and how to reach it."""

    def __init__(self, folder, *words, wait=True, program=("-m", "tests.serving.fake_server")) -> None:
        self.output = folder / f"server-{time.monotonic_ns()}.txt"
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *program, "--port", "0", *map(str, words)],
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self.url = self._found(": listening")
        if wait:
            self.until_ready()

    def until_ready(self) -> None:
        """Waits until it takes requests."""
        self._found(": ready")

    @property
    def text(self) -> str:
        """All that the server has written."""
        return self.output.read_text("utf-8")

    def lines(self) -> list[dict]:
        """The lines of its log of requests."""
        return [json.loads(line) for line in self.text.split("\n") if line.startswith("{")]

    def engine(self) -> int:
        """Id of the engine's process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _found(self, words: str, seconds: float = 120.0) -> str:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            line = next((line for line in self.text.split("\n") if words in line), None)
            if line is not None:
                return line.partition(words)[0]
            assert self.process.poll() is None, self.text
            time.sleep(0.02)
        raise AssertionError(f"no {words!r} in: {self.text}")


def until(condition, seconds=40.0):
    """Waits until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.01)
