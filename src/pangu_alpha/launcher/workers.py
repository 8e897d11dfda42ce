"""The running processes of one node: started, asked for their exit codes, stopped. Linux only.

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
    """A worker's log."""
    return folder / f"worker_{rank}.log"


def _start(command: Command, environment: Mapping[str, str], log: Path) -> subprocess.Popen:
    with log.open("xb") as file:
        return subprocess.Popen(
            command.words,
            env={**os.environ, **environment, **command.environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # signals of the terminal are for the launcher, which passes them on
        )


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself
        os.killpg(pid, number)


def _kill_started(environment: Mapping[str, str]) -> None:
    """Ends what else this launcher has started: a scheduler without its msrun, children of workers."""
    if (mark := environment.get(MARK)) is not None:
        kill_marked(mark)


class OwnWorkers:
    """Workers that are children of this process.

    Args:
        commands: One for each worker.
        environment: Variables all get.
        folder: Of their logs.
    """

    def __init__(self, commands: Sequence[Command], environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._processes: dict[int, subprocess.Popen] = {}
        self._asked: set[int] = set()
        try:
            for command in commands:
                rank = command.rank
                assert rank is not None  # of a worker, not of msrun
                self._processes[rank] = _start(command, environment, log_of(folder, rank))
        except OSError:
            self.kill()
            raise

    def codes(self) -> dict[int, int | None]:
        """Exit code of every rank, None while it runs, -n after a signal n."""
        return {rank: process.poll() for rank, process in self._processes.items()}

    def finished(self) -> int | None:
        """0 when all have ended well; None as long as one runs; else one's exit code."""
        codes = self.codes().values()
        return None if None in codes else next((code for code in codes if code), 0)

    def first(self, ranks: Sequence[int]) -> int:
        """Of ranks seen to have ended between two looks, the one to name."""
        return ranks[0]

    def terminate(self) -> None:
        """Asks all to save and stop; again, those that had not been asked."""
        for process in self._processes.values():
            if process.pid not in self._asked and process.poll() is None:
                self._asked.add(process.pid)
                process.terminate()

    def kill(self) -> None:
        """Ends all at once."""
        for process in self._processes.values():
            if process.poll() is None:
                _signal_group(process.pid, signal.SIGKILL)
            process.wait()
        _kill_started(self._environment)


class MsrunWorkers:
    """Workers started by msrun, which are its children and not ours.

    Args:
        command: msrun's, with --join=True.
        environment: Variables all get.
        folder: Of msrun's log; the workers' are where its --log_dir says.
        size: Workers of this node.
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
        """Exit code of every rank seen so far, None while it runs, -n after a signal n."""
        if len(self._ranks) < self._size:
            self._find()
        for pid in self._ranks:
            if pid not in self._codes and (code := self._exit_code(pid)) is not None:
                self._codes[pid] = code
        return {rank: self._codes.get(pid) for pid, rank in self._ranks.items()}

    def finished(self) -> int | None:
        """msrun's own exit code, None while it runs."""
        return self._msrun.poll()

    def terminate(self) -> None:
        """Asks all workers to save and stop; again, those that had not been asked."""
        for pid in self._alive(self._ranks):
            if pid not in self._asked:
                self._asked.add(pid)
                with contextlib.suppress(ProcessLookupError):  # it ended by itself
                    os.kill(pid, signal.SIGTERM)  # the worker alone: its data readers must go on

    def kill(self) -> None:
        """Ends the workers, the scheduler (which else waits half a minute for a dead worker) and msrun."""
        self._find()
        for pid in self._alive(self._ranks):
            _signal_group(pid, signal.SIGKILL)
        if self._msrun.poll() is None:
            _signal_group(self._msrun.pid, signal.SIGKILL)
        self._msrun.wait()
        _kill_started(self._environment)

    def first(self, ranks: Sequence[int]) -> int:
        """Of ranks seen to have ended between two looks, the one msrun saw end first."""
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
            except (psutil.Error, OSError):  # ended, or not yet what it is to become
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
        """Of a process that is not our child: the kernel tells it until msrun has asked for it, msrun's log
        after that."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
        except OSError:
            return dict(self._logged()).get(pid, 0)
        fields = stat.rpartition(")")[2].split()
        if fields[0] in "ZX":
            return os.waitstatus_to_exitcode(int(fields[-1]))  # proc(5): the last field, as of waitpid
        if self._births.get(pid) not in (None, fields[19]):  # its number was handed out again
            return dict(self._logged()).get(pid, 0)
        return None

    def _logged(self) -> list[tuple[int, int]]:
        try:
            text = self._log.read_text("utf-8", errors="replace")
        except OSError:
            return []
        return [(int(pid), int(code)) for pid, code in _MSRUN_ERROR.findall(text)]
