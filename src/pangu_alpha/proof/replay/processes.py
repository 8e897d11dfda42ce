"""The processes of a replay on CPU: a reference, or a scheduler and one worker for each rank."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pangu_alpha.proof.dry_run.cann import plain_environment
from pangu_alpha.proof.replay.worker import STATES

_CHILD = "pangu_alpha.proof.replay.worker"


class ReplayError(ValueError):
    """A replay could not be completed."""


def run_child(words: Sequence[str], log: Path, timeout: float, module: str = _CHILD) -> None:
    """Runs a process that needs no others, and waits for it.

    Args:
        log: File for its output.
        timeout: Seconds after which the process is ended.

    Raises:
        ReplayError: If the process died or took too long.
    """
    command = [sys.executable, "-m", module, *words]
    with log.open("w") as file:
        try:
            code = subprocess.run(
                command, env=child_environment(), stdout=file, stderr=file, timeout=timeout
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise ReplayError(f"{words[0]}: still running after {timeout:.0f} s; log: {log}") from error
    if code:
        raise ReplayError(f"{words[0]}: ended with code {code}: {last_lines(log)}")


def run_ranks(folder: Path, number: int, timeout: float) -> None:
    """Runs the graphs of all ranks until each has written its states; then kills those that still run.

    Args:
        folder: Folder with rank_NNNNN/, each with the files that worker.run_rank reads.
        number: Number of ranks.
        timeout: Seconds for all ranks together.

    Raises:
        ReplayError: If a rank died or took too long.
    """
    folders = [folder / f"rank_{rank:05d}" for rank in range(number)]
    for each in folders:
        (each / STATES).unlink(missing_ok=True)
    with Ranks(_CHILD, folders, folder / "reference" / "scheduler.txt") as ranks:
        _wait(ranks.processes, folder, timeout)


class Ranks:
    """The processes of ranks, and MindSpore's scheduler, through which they find each other.

    A context manager: entering starts them, leaving kills those that still run.

    Args:
        module: The module that the processes run, with the arguments "rank FOLDER" or "scheduler".
        folders: Folders of the ranks; each gets run.txt with its rank's output.
        scheduler_log: File for the scheduler's output.
    """

    def __init__(self, module: str, folders: Sequence[Path], scheduler_log: Path) -> None:
        self._module, self._folders, self._scheduler_log = module, folders, scheduler_log
        self._scheduler: subprocess.Popen | None = None
        self.processes: dict[int, subprocess.Popen] = {}

    def __enter__(self) -> Ranks:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        number = {"MS_WORKER_NUM": str(len(self._folders))}
        environment = (
            child_environment() | number | {"MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": str(port)}
        )
        try:
            scheduler = environment | {"MS_ROLE": "MS_SCHED"}
            self._scheduler = self._start(["scheduler", ""], self._scheduler_log, scheduler)
            for rank, folder in enumerate(self._folders):
                own = environment | {"MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(rank)}
                self.processes[rank] = self._start(["rank", str(folder)], folder / "run.txt", own)
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def _start(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen:
        command = [sys.executable, "-m", self._module, *words]
        with log.open("w") as file:
            return subprocess.Popen(command, env=environment, stdout=file, stderr=file, cwd=log.parent)

    def _kill(self) -> None:
        for process in filter(None, (self._scheduler, *self.processes.values())):
            process.kill()
            process.wait()


def _wait(processes: Mapping[int, subprocess.Popen], folder: Path, timeout: float) -> None:
    """Waits until all ranks have written their states.

    It does not wait for the processes to end, because leaving MindSpore's cluster takes longer than the
    steps.
    """
    deadline = time.monotonic() + timeout
    missing = set(processes)
    while missing:
        ended = {rank: processes[rank].poll() for rank in missing}
        missing = {rank for rank in missing if not (folder / f"rank_{rank:05d}" / STATES).exists()}
        for rank in sorted(missing):
            if ended[rank] is not None:
                log = folder / f"rank_{rank:05d}" / "run.txt"
                raise ReplayError(f"rank {rank} ended with code {ended[rank]}: {last_lines(log)}")
        if missing and time.monotonic() > deadline:
            logs = folder / "rank_*" / "run.txt"
            raise ReplayError(f"ranks {sorted(missing)} still run after {timeout:.0f} s; logs: {logs}")
        time.sleep(0.1)


def child_environment() -> dict[str, str]:
    """The environment of a process that runs on CPU."""
    return plain_environment(os.environ | {"OMP_NUM_THREADS": "1", "GLOG_v": "3"})


def last_lines(log: Path) -> str:
    """The last lines of a child's output, without MindSpore's log messages."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("[INFO]", "[WARNING]", "-----", "mindspore/"))]
    return f"{' | '.join(said[-4:])} (all of it: {log})"
