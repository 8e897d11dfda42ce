"""Which processes a launcher has started, through msrun or not, and what becomes of them when it ends.

All of them carry the launcher's mark in their environment. A process is known by its number and its birth,
for numbers are handed out again. Of processes that end while they are looked at, nothing is said. Linux only.
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
OUTPUT = "PANGU_OUTPUT"  # folder of the run, so that the next start finds what is left of the last one
_POLL = 0.5  # seconds
_KILLED_WITHIN = 30.0  # seconds; a process in the midst of a write to a slow disk takes its time


@dataclass(frozen=True)
class Launcher:
    """A launcher as its workers know it.

    Args:
        pid: Its process.
        birth: Start of that process.
        grace: Seconds that workers get to save when they are to stop.
    """

    pid: int
    birth: str
    grace: int

    @classmethod
    def this(cls, grace: int) -> Launcher:
        """This process as a launcher."""
        return cls(os.getpid(), process_birth(os.getpid()) or "0", grace)

    @classmethod
    def parse(cls, mark: str | None) -> Launcher | None:
        """The launcher that a mark names; None if it names none."""
        try:
            pid, birth, grace = (mark or "").split()
            return cls(int(pid), birth, int(grace))
        except ValueError:
            return None

    @property
    def mark(self) -> str:
        """Value of MARK in the environment of all it starts."""
        return f"{self.pid} {self.birth} {self.grace}"

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return process_birth(self.pid) == self.birth


def launcher_of_this_process() -> Launcher | None:
    """The launcher that started this process; None if it was started otherwise."""
    return Launcher.parse(os.environ.get(MARK))


def marked(mark: str) -> list[int]:
    """The processes that carry a mark."""
    return [pid for pid, environment in _environments() if environment.get(MARK) == mark]


def orphans(output: str) -> list[int]:
    """The processes that work for a run's folder and whose launcher is gone."""
    found = []
    for pid, environment in _environments():
        launcher = Launcher.parse(environment.get(MARK))
        if launcher is not None and environment.get(OUTPUT) == output and not launcher.alive:
            found.append(pid)
    return found


def wait_for_orphans(output: str, grace: float) -> None:
    """Returns when no process whose launcher is gone works for a run's folder: they end by themselves.

    Args:
        output: The folder, without links.
        grace: Seconds they get; they may have been started with another number.

    Raises:
        ValueError: Some are still there.
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
    """Ends all processes that carry a mark, and returns when they are gone."""
    deadline = time.monotonic() + _KILLED_WITHIN
    while (left := marked(mark)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def end_with_launcher() -> None:
    """Makes this process end when its launcher does, if it has one: by SIGTERM, so that a training saves.

    What still runs after the launcher's grace is killed with its process group. The launcher may be gone
    already; that is seen at the first look. Call it before there are threads: MindSpore's scheduler, which
    has to stay until the workers have saved, is watched by a forked process.
    """
    launcher = launcher_of_this_process()
    if launcher is None or process_birth(os.getpid()) is None:
        return
    if os.environ.get("MS_ROLE") != "MS_SCHED":
        threading.Thread(target=_end_worker, args=(launcher,), daemon=True).start()
        return
    scheduler = os.getpid()
    if os.fork() == 0:  # MindSpore 2.9's scheduler keeps Python's lock: no thread would run
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
            os.killpg(0, signal.SIGKILL)  # msrun is of this group, too
        time.sleep(_POLL)


def _workers(mark: str) -> list[int]:
    roles = ((pid, env.get("MS_ROLE")) for pid, env in _environments() if env.get(MARK) == mark)
    return [pid for pid, role in roles if role == "MS_WORKER"]


def _environments() -> Iterator[tuple[int, Mapping[str, str]]]:
    """Number and environment of every living process of this user."""
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            content = Path("/proc", name, "environ").read_bytes()
        except OSError:  # another user's, or gone
            continue
        if MARK.encode() not in content or process_birth(int(name)) is None:
            continue
        words = (word.partition("=") for word in os.fsdecode(content).split("\0"))
        yield int(name), {key: value for key, _, value in words}
