"""The processes of a replay on CPU: a reference, or a scheduler and one worker for each rank."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pangu_alpha.proof.cann import plain_environment
from pangu_alpha.proof.replay_worker import STATES

_CHILD = "pangu_alpha.proof.replay_worker"


class ReplayError(ValueError):
    """A replay could not be carried to its end."""


def run_child(words: Sequence[str], log: Path, timeout: float) -> None:
    """Runs a process that needs no others.

    Args:
        words: Arguments of replay_worker.
        log: Gets its output.
        timeout: Seconds after which it is ended.

    Raises:
        ReplayError: It died, or took too long.
    """
    command = [sys.executable, "-m", _CHILD, *words]
    with log.open("w") as file:
        try:
            code = subprocess.run(
                command, env=_environment(), stdout=file, stderr=file, timeout=timeout
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise ReplayError(f"{words[0]}: still running after {timeout:.0f} s; log: {log}") from error
    if code:
        raise ReplayError(f"{words[0]}: ended with code {code}: {_last_lines(log)}")


def run_ranks(folder: Path, number: int, timeout: float) -> None:
    """Runs the graphs of all ranks until each has left its states; ends what has not ended by itself.

    Args:
        folder: Holds rank_NNNNN/ with what replay_worker reads.
        number: Ranks.
        timeout: Seconds for all of it.

    Raises:
        ReplayError: A rank died, or took too long.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = {"MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": str(port), "MS_WORKER_NUM": str(number)}
    environment = _environment() | cluster
    for rank in range(number):
        (folder / f"rank_{rank:05d}" / STATES).unlink(missing_ok=True)
    processes: dict[int, subprocess.Popen] = {}
    try:
        for rank in range(-1, number):
            role = {"MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(rank)} if rank >= 0 else {"MS_ROLE": "MS_SCHED"}
            target = folder / f"rank_{rank:05d}" if rank >= 0 else folder / "reference"
            words = ["rank", str(target)] if rank >= 0 else ["scheduler", ""]
            with (target / ("run.txt" if rank >= 0 else "scheduler.txt")).open("w") as log:
                command = [sys.executable, "-m", _CHILD, *words]
                processes[rank] = subprocess.Popen(
                    command, env=environment | role, stdout=log, stderr=log, cwd=target
                )
        _wait({rank: each for rank, each in processes.items() if rank >= 0}, folder, timeout)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def _wait(processes: Mapping[int, subprocess.Popen], folder: Path, timeout: float) -> None:
    """Until all have written their states; MindSpore's way out of a cluster takes longer than the steps."""
    deadline = time.monotonic() + timeout
    missing = set(processes)
    while missing:
        ended = {rank: processes[rank].poll() for rank in missing}
        missing = {rank for rank in missing if not (folder / f"rank_{rank:05d}" / STATES).exists()}
        for rank in sorted(missing):
            if ended[rank] is not None:
                log = folder / f"rank_{rank:05d}" / "run.txt"
                raise ReplayError(f"rank {rank} ended with code {ended[rank]}: {_last_lines(log)}")
        if missing and time.monotonic() > deadline:
            logs = folder / "rank_*" / "run.txt"
            raise ReplayError(f"ranks {sorted(missing)} still run after {timeout:.0f} s; logs: {logs}")
        time.sleep(0.1)


def _environment() -> dict[str, str]:
    return plain_environment(os.environ | {"OMP_NUM_THREADS": "1", "GLOG_v": "3"})


def _last_lines(log: Path) -> str:
    """What a child said last, without what MindSpore says to itself."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("[INFO]", "[WARNING]", "-----", "mindspore/"))]
    return f"{' | '.join(said[-4:])} (all of it: {log})"
