"""The worker processes of one node: starts them, reads their exit codes, stops them. Linux only.

A worker's log is worker_<rank>.log in the folder of its attempt.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from pangu_alpha.files.lock import process_birth
from pangu_alpha.launcher.commands import Command
from pangu_alpha.processes.belonging import MARK, kill_marked

_MSRUN_ERROR = re.compile(r"Worker process (\d+) exit with exception. Error code: (-?\d+)")


def log_of(folder: Path, rank: int) -> Path:
    """Returns the path of a worker's log."""
    return folder / f"worker_{rank}.log"


def _start(command: Command, environment: Mapping[str, str], log: Path) -> subprocess.Popen:
    with log.open("xb") as file:
        return subprocess.Popen(
            command.words,
            env={**os.environ, **environment, **command.environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's signals go to the launcher only, which passes them on
        )


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself
        os.killpg(pid, number)


def _kill_started(environment: Mapping[str, str]) -> None:
    """Kills whatever else this launcher started: a scheduler without its msrun, children of workers."""
    if (mark := environment.get(MARK)) is not None:
        kill_marked(mark)


class OwnWorkers:
    """Workers that are children of this process.

    Args:
        commands: One for each worker.
        environment: Variables that all workers get.
        folder: Folder of their logs.
    """

    def __init__(self, commands: Sequence[Command], environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._processes: dict[int, subprocess.Popen] = {}
        self._asked: set[int] = set()
        try:
            for command in commands:
                rank = command.rank
                assert rank is not None  # a worker's command has one, only msrun's has none
                self._processes[rank] = _start(command, environment, log_of(folder, rank))
        except OSError:
            self.kill()
            raise

    def codes(self) -> dict[int, int | None]:
        """Returns the exit code of every rank: None while it runs, -n after a signal n."""
        return {rank: process.poll() for rank, process in self._processes.items()}

    def finished(self) -> int | None:
        """Returns 0 when all workers have succeeded, None while one runs, else a failed one's exit code."""
        codes = self.codes().values()
        return None if None in codes else next((code for code in codes if code), 0)

    def first(self, ranks: Sequence[int]) -> int:
        """Returns, of ranks that have ended since the last check, the one to report."""
        return ranks[0]

    def terminate(self) -> None:
        """Asks the workers that have not been asked before to save and stop."""
        for process in self._processes.values():
            if process.pid not in self._asked and process.poll() is None:
                self._asked.add(process.pid)
                process.terminate()

    def kill(self) -> None:
        """Kills all workers at once."""
        for process in self._processes.values():
            if process.poll() is None:
                _signal_group(process.pid, signal.SIGKILL)
            process.wait()
        _kill_started(self._environment)


class MsrunWorkers:
    """Workers that msrun has started; they are msrun's children, not this process's.

    Args:
        command: The msrun command, with --join=True.
        environment: Variables that all workers get.
        folder: Folder of msrun's own log; the workers' logs go to its --log_dir.
        size: Number of workers on this node.
    """

    def __init__(self, command: Command, environment: Mapping[str, str], folder: Path, size: int) -> None:
        self._log = folder / "msrun.log"
        self._environment = environment
        self._size = size
        self._msrun = _start(command, environment, self._log)
        self._ranks: dict[int, int] = {}  # by process id
        self._births: dict[int, str | None] = {}  # by process id
        self._codes: dict[int, int] = {}  # by process id
        self._asked: set[int] = set()

    def codes(self) -> dict[int, int | None]:
        """Returns the exit code of every rank seen so far: None while it runs, -n after a signal n."""
        if len(self._ranks) < self._size:
            self._find()
        for pid in self._ranks:
            if pid not in self._codes and (code := self._exit_code(pid)) is not None:
                self._codes[pid] = code
        return {rank: self._codes.get(pid) for pid, rank in self._ranks.items()}

    def finished(self) -> int | None:
        """Returns msrun's own exit code, or None while it runs."""
        return self._msrun.poll()

    def terminate(self) -> None:
        """Asks the workers that have not been asked before to save and stop."""
        for pid in self._alive(self._ranks):
            if pid not in self._asked:
                self._asked.add(pid)
                with contextlib.suppress(ProcessLookupError):  # it ended by itself
                    os.kill(pid, signal.SIGTERM)  # the worker alone: its data readers must go on

    def kill(self) -> None:
        """Kills the workers, msrun, and the scheduler, which would wait half a minute for a dead worker."""
        self._find()
        for pid in self._alive(self._ranks):
            _signal_group(pid, signal.SIGKILL)
        if self._msrun.poll() is None:
            _signal_group(self._msrun.pid, signal.SIGKILL)
        self._msrun.wait()
        _kill_started(self._environment)

    def first(self, ranks: Sequence[int]) -> int:
        """Returns, of ranks that have ended since the last check, the one that msrun saw end first."""
        logged = [self._ranks[pid] for pid, _ in self._logged() if pid in self._ranks]
        return next((rank for rank in logged if rank in ranks), ranks[0])

    def _find(self) -> None:
        try:
            children = psutil.Process(self._msrun.pid).children()
        except psutil.Error:
            return
        for child in children:
            try:
                environment = child.environ()
            except (psutil.Error, OSError):  # it has ended, or does not yet run the worker's program
                continue
            rank = environment.get("RANK_ID", "")
            if (
                environment.get("MS_ROLE") == "MS_WORKER"
                and rank.isdecimal()
                and child.pid not in self._ranks
            ):
                self._births[child.pid] = process_birth(child.pid)
                self._ranks[child.pid] = int(rank)

    def _alive(self, pids: Mapping[int, int]) -> list[int]:
        return [pid for pid in pids if pid not in self._codes and self._exit_code(pid) is None]

    def _exit_code(self, pid: int) -> int | None:
        """Returns the exit code of a process that is not a child of this one.

        The kernel knows it until msrun has collected it; after that msrun's log does.
        """
        try:
            stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
        except OSError:
            return dict(self._logged()).get(pid, 0)
        fields = stat.rpartition(")")[2].split()
        if fields[0] in "ZX":
            return os.waitstatus_to_exitcode(int(fields[-1]))  # proc(5): the last field, as of waitpid(2)
        if self._births.get(pid) not in (None, fields[19]):  # the system has reused the process id
            return dict(self._logged()).get(pid, 0)
        return None

    def _logged(self) -> list[tuple[int, int]]:
        try:
            text = self._log.read_text("utf-8", errors="replace")
        except OSError:
            return []
        return [(int(pid), int(code)) for pid, code in _MSRUN_ERROR.findall(text)]
