"""Finds the processes that a launcher started, directly or through msrun, and ends them when it is gone.

Every such process carries the launcher's mark in its environment. Because the system reuses process ids, a
process is identified by its id and its start time. Processes that end during a scan are skipped. Linux only.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.files.lock import process_birth
from pangu_alpha.files.shown import shown

MARK = "PANGU_LAUNCHER"
OUTPUT = "PANGU_OUTPUT"  # output folder, by which the next start finds processes left by the last one
_POLL = 0.5  # seconds
_KILLED_WITHIN = 30.0  # seconds; a process that is writing to a slow disk ends only after the write


@dataclass(frozen=True)
class Launcher:
    """A launcher, as its workers identify it.

    Args:
        birth: Start time of the process `pid`, see `process_birth`.
        grace: Seconds that workers get to save a checkpoint after they are asked to stop.
    """

    pid: int
    birth: str
    grace: int

    @classmethod
    def this(cls, grace: int) -> Launcher:
        """Returns this process as a launcher."""
        return cls(os.getpid(), process_birth(os.getpid()) or "0", grace)

    @classmethod
    def parse(cls, mark: str | None) -> Launcher | None:
        """Returns the launcher that a mark describes, or None if the text is no mark."""
        try:
            pid, birth, grace = (mark or "").split()
            return cls(int(pid), birth, int(grace))
        except ValueError:
            return None

    @property
    def mark(self) -> str:
        """The value of the variable MARK in the environment of every process that this launcher starts."""
        return f"{self.pid} {self.birth} {self.grace}"

    @property
    def alive(self) -> bool:
        """Whether the launcher's process is still running."""
        return process_birth(self.pid) == self.birth


def launcher_of_this_process() -> Launcher | None:
    """Returns the launcher that started this process, or None if no launcher did."""
    return Launcher.parse(os.environ.get(MARK))


def marked(mark: str) -> list[int]:
    """Returns the ids of the processes that carry a mark."""
    return [pid for pid, environment in _environments() if environment.get(MARK) == mark]


def orphans(output: str) -> list[int]:
    """Returns the ids of the processes that work for an output folder and whose launcher has ended."""
    found = []
    for pid, environment in _environments():
        launcher = Launcher.parse(environment.get(MARK))
        if launcher is not None and environment.get(OUTPUT) == output and not launcher.alive:
            found.append(pid)
    return found


def wait_for_orphans(output: str, grace: float) -> None:
    """Waits until no process of an ended launcher works for an output folder; they end by themselves.

    Args:
        output: The run's output folder with symbolic links resolved.
        grace: Seconds to wait, besides _KILLED_WITHIN. The earlier launch may have used another value.

    Raises:
        ValueError: Some of these processes are still running after that time.
    """
    deadline = time.monotonic() + grace + _KILLED_WITHIN
    said = False
    while left := orphans(output):
        names = ", ".join(map(str, left))
        if not said:
            said = True
            print(
                f"{shown(output)}: an earlier launcher is gone; waiting for its processes {names} to save "
                f"and end, at most {grace:g} s (--grace)",
                flush=True,
            )
        if time.monotonic() > deadline:
            raise ValueError(
                f"run.output: {shown(output)}: processes of an earlier start, whose launcher is gone, still "
                f"work for it: {names}; end them (kill -9 {' '.join(map(str, left))}), then start again"
            )
        time.sleep(_POLL)


def kill_marked(mark: str) -> None:
    """Kills all processes that carry a mark; returns when they have ended or _KILLED_WITHIN has passed."""
    deadline = time.monotonic() + _KILLED_WITHIN
    while (left := marked(mark)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def end_with_launcher() -> None:
    """Sends this process SIGTERM when its launcher ends, so that a training run saves before it stops.

    If the process still runs after the launcher's grace time, its process group is killed. Nothing happens in
    a process that no launcher started. The launcher may already have ended; the first check notices this.
    Call this before any thread is started, because MindSpore's scheduler, which has to keep running until the
    workers have saved, is watched by a forked process.
    """
    launcher = launcher_of_this_process()
    if launcher is None or process_birth(os.getpid()) is None:
        return
    if os.environ.get("MS_ROLE") != "MS_SCHED":
        threading.Thread(target=_end_worker, args=(launcher,), daemon=True).start()
        return
    scheduler = os.getpid()
    if os.fork() == 0:  # MindSpore 2.9's scheduler never releases Python's GIL: no thread would run
        try:
            _end_scheduler(launcher, scheduler)
        finally:
            os._exit(0)


def _end_worker(launcher: Launcher) -> None:
    while launcher.alive:
        time.sleep(_POLL)
    deadline = time.monotonic() + launcher.grace
    with suppress(OSError):
        print("the launcher has ended: this worker saves and stops", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    while time.monotonic() < deadline:
        time.sleep(_POLL)
    os.killpg(0, signal.SIGKILL)


def _end_scheduler(launcher: Launcher, scheduler: int) -> None:
    while launcher.alive and os.getppid() == scheduler:
        time.sleep(_POLL)
    deadline = time.monotonic() + launcher.grace
    while os.getppid() == scheduler:
        if time.monotonic() > deadline or not _workers(launcher.mark):
            os.killpg(0, signal.SIGKILL)  # msrun belongs to this group as well
        time.sleep(_POLL)


def _workers(mark: str) -> list[int]:
    roles = ((pid, env.get("MS_ROLE")) for pid, env in _environments() if env.get(MARK) == mark)
    return [pid for pid, role in roles if role == "MS_WORKER"]


def _environments() -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yields the id and the environment of each of this user's living processes that carries a mark."""
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            content = Path("/proc", name, "environ").read_bytes()
        except OSError:  # a process of another user, or one that has just ended
            continue
        if MARK.encode() not in content or process_birth(int(name)) is None:
            continue
        words = (word.partition("=") for word in os.fsdecode(content).split("\0"))
        yield int(name), {key: value for key, _, value in words}
