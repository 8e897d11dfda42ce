"""Watches the workers of a node: shows one log, names the first rank that fails, stops the others.

Launchers of other nodes are told by a file in the log folder, where they share it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.parallel.workers import MsrunWorkers, OwnWorkers, log_of

_POLL = 0.1  # seconds
_LAST_LINES = 20
_GRACE = 120.0  # seconds workers get to save after a signal
_CHATTER = re.compile(r"\[INFO\] DISTRIBUTED")  # MindSpore 2.9 logs it at any level
_NOISE = re.compile(rf"{_CHATTER.pattern}|^-*$|Call Stack: \(For framework|^mindspore/ccsrc/")
_HINTS = {  # what HCCL's codes mean, told where they stand in a failing rank's log
    "EI0002": "HCCL: a rank did not arrive in time; another one is slow or dead (--hccl-exec-timeout)",
    "EI0006": "HCCL: no connection between two ranks in time (--hccl-connect-timeout; check device IPs)",
    "out of memory": "memory: more tp, pp or recompute, or a smaller run.batch_size",
    "Address already in use": "the port is taken: give another --master-port",
}


@dataclass(frozen=True)
class Failure:
    """The first rank of an attempt that failed.

    Args:
        rank: Its rank; None where msrun itself failed.
        code: Exit code, -n after a signal n.
        node: Where.
        log: Its log.
    """

    rank: int | None
    code: int
    node: str
    log: str

    @property
    def exit_code(self) -> int:
        """As a shell gives it: 128 + n after a signal n."""
        return 128 - self.code if self.code < 0 else self.code

    def __str__(self) -> str:
        who = "msrun" if self.rank is None else f"rank {self.rank}"
        if self.code >= 0:
            return f"{who} on {self.node} failed first, exit code {self.code}; its log: {self.log}"
        name = signal.Signals(-self.code).name
        return f"{who} on {self.node} failed first, ended by {name} ({-self.code}); its log: {self.log}"


class Console:
    """Shows the log of one worker as it grows, and a heartbeat while its first step compiles.

    Args:
        log: The log; need not exist yet.
        heartbeat: Seconds between two heartbeats; 0 for none.
    """

    def __init__(self, log: Path, heartbeat: float) -> None:
        self._log = log
        self._heartbeat = heartbeat
        self._offset = 0
        self._compiling: float | None = None
        self._last_beat = 0.0

    def update(self) -> None:
        """Shows what has come since."""
        lines = [line for line in self._read().splitlines() if not _CHATTER.search(line)]
        if lines:
            print(*lines, sep="\n", flush=True)
            self._compiling = self._last_beat = time.monotonic()
            if not lines[-1].startswith("compiling "):
                self._compiling = None
        elif self._heartbeat and self._compiling is not None:
            self._beat()

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._last_beat >= self._heartbeat:
            self._last_beat = now
            print(f"compiling for {now - self._compiling:.0f} s ...", flush=True)

    def _read(self) -> str:
        try:
            with self._log.open("rb") as file:
                file.seek(self._offset)
                whole = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return ""
        self._offset += len(whole[0]) + len(whole[1])
        return (whole[0] + whole[1]).decode("utf-8", errors="replace")


class Signals:
    """Takes SIGTERM and SIGINT while it is entered; `number` is the first that came, 0 before."""

    def __init__(self) -> None:
        self.number = 0
        self._before: Mapping[int, object] = {}

    def __enter__(self) -> Signals:
        self._before = {
            number: signal.signal(number, self._take) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: object) -> None:
        self.number = self.number or number


class Bulletin:
    """The file that tells launchers on other nodes of a failure; one from before this launch is ignored.

    Args:
        root: Log folder of the job, perhaps shared by all nodes.
        marker: Folder just made on the same storage, whose clock is the one that counts.
        attempt: Number of the attempt, from 0, which is the same on all nodes: late news is not of the next.
    """

    def __init__(self, root: Path, marker: Path, attempt: int = 0) -> None:
        self._file = root / f"failed_{attempt}.json"
        self._since = marker.stat().st_mtime_ns

    def read(self) -> Failure | None:
        """The failure another node has seen."""
        try:
            if self._file.stat().st_mtime_ns <= self._since:
                return None
            return Failure(**json.loads(self._file.read_text("utf-8")))
        except FileNotFoundError:
            return None

    def write(self, failure: Failure) -> None:
        """Tells the others, unless one was faster."""
        if self.read() is None:
            scratch = self._file.with_suffix(f".{socket.gethostname()}.{os.getpid()}")
            scratch.write_text(json.dumps(failure.__dict__), "utf-8")
            scratch.replace(self._file)


def watch(
    workers: OwnWorkers | MsrunWorkers,
    console: Console,
    signals: Signals,
    bulletin: Bulletin,
    node: str,
    folder: Path,
) -> Failure | None:
    """Waits until all workers have ended well or one has failed; no worker runs when it returns.

    Args:
        workers: Of this node.
        console: Shows a log.
        signals: A signal is passed on as SIGTERM; workers then save and stop.
        bulletin: News from and for other nodes.
        node: Name of this node.
        folder: Of the workers' logs.

    Returns:
        None when all ended well or were told to stop.
    """
    deadline = None
    try:
        while True:
            done = workers.finished()  # before the codes: what ends in between is seen by them
            codes = workers.codes()
            console.update()
            if signals.number:
                if deadline is None:
                    print(f"signal {signals.number}: the workers save and stop", flush=True)
                    deadline = time.monotonic() + _GRACE
                workers.terminate()
                if None not in codes.values() or time.monotonic() > deadline:
                    return None
            failure = None if deadline else _failed(workers, codes, done, node, folder) or bulletin.read()
            if failure is not None:
                bulletin.write(failure)
                return failure
            if done is not None:
                return None
            time.sleep(_POLL)
    finally:
        workers.kill()
        console.update()


def _failed(
    workers: OwnWorkers | MsrunWorkers,
    codes: Mapping[int, int | None],
    done: int | None,
    node: str,
    folder: Path,
) -> Failure | None:
    failed = [rank for rank, code in sorted(codes.items()) if code]
    if failed:
        rank = workers.first(failed)
        return Failure(rank, codes[rank], node, str(log_of(folder, rank)))
    if done:
        return Failure(None, done, node, str(folder / "msrun.log"))
    return None


def last_lines(log: Path) -> list[str]:
    """The end of a failing rank's log without MindSpore's chatter, from its last traceback on if there is
    one, and what to do about the codes in it."""
    try:
        text = log.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return [f"(no log {log})"]
    lines = [line for line in text.splitlines() if not _NOISE.search(line)][-200:]
    places = [place for place, line in enumerate(lines) if line.startswith("Traceback")]
    lines = lines[max(places[-1] if places else 0, len(lines) - _LAST_LINES) :]
    hints = [hint for word, hint in _HINTS.items() if any(word in line for line in lines)]
    return lines + [f"hint: {hint}" for hint in hints]
