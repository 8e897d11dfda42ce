"""Watches the workers of a node: shows one log, names the first rank that fails, and stops the others.

Launchers of other nodes are notified through a file in the log folder, if they share it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from pangu_alpha.files.reading import ReadError, read_json, require_file
from pangu_alpha.files.shown import quoted, shown
from pangu_alpha.files.writing import write_json
from pangu_alpha.launcher.workers import MsrunWorkers, OwnWorkers, log_of
from pangu_alpha.processes.signals import Signals, signal_name

_POLL = 0.1  # seconds
_LAST_LINES = 20
_LAST_BYTES = 1 << 20  # at the end of a log, in which its last lines are searched
GRACE = 1800  # seconds for a save under way, a step and a save; each takes minutes for 200B on slow storage
_MOST_NEWS = 1 << 16  # bytes
_CHATTER = re.compile(r"\[INFO\] DISTRIBUTED")  # MindSpore 2.9 logs it at any level
_NOISE = re.compile(rf"{_CHATTER.pattern}|^-*$|Call Stack: \(For framework|^mindspore/ccsrc/")
_HINTS = {  # advice on HCCL's codes, shown where a failed rank's log contains them
    "EI0002": "HCCL: a rank did not arrive in time; another one is slow or dead (--hccl-exec-timeout)",
    "EI0006": "HCCL: no connection between two ranks in time (--hccl-connect-timeout; check device IPs)",
    "out of memory": "memory: more tp, pp or recompute, or a smaller run.batch_size",
    "Address already in use": "the port is taken: give another --master-port",
}


@dataclass(frozen=True)
class Failure:
    """The first rank that failed in an attempt.

    Args:
        rank: None if msrun itself failed.
        code: Exit code, -n after a signal n.
        node: Name of the node on which it ran.
        log: Path of the failed process's log.
    """

    rank: int | None
    code: int
    node: str
    log: str

    @property
    def exit_code(self) -> int:
        """The code as a shell gives it: 128 + n after a signal n; 1 for a number that is not an exit code."""
        code = 128 - self.code if self.code < 0 else self.code
        return code if 0 < code < 256 else 1

    def __str__(self) -> str:
        who = f"{'msrun' if self.rank is None else f'rank {self.rank}'} on {shown(self.node)}"
        if self.code >= 0:
            return f"{who} failed first, exit code {self.code}; its log: {shown(self.log)}"
        ended = f"ended by {signal_name(-self.code)} ({-self.code})"
        return f"{who} failed first, {ended}; its log: {shown(self.log)}"


class Console:
    """Shows the log of one worker as it grows, and a heartbeat while its first step compiles.

    Args:
        log: The file, which need not exist yet.
        heartbeat: Seconds between two heartbeats; 0 for none.
    """

    def __init__(self, log: Path, heartbeat: float) -> None:
        self._log = log
        self._heartbeat = heartbeat
        self._offset = 0
        self._compiling: float | None = None
        self._last_beat = 0.0

    def update(self) -> None:
        """Shows what the log has gained since the last call."""
        lines = [line for line in self._read().splitlines() if not _CHATTER.search(line)]
        if lines:
            print(*lines, sep="\n", flush=True)
            self._compiling = self._last_beat = time.monotonic()
            if not lines[-1].startswith("compiling "):
                self._compiling = None
        elif self._heartbeat and self._compiling is not None:
            self._beat(self._compiling)

    def _beat(self, since: float) -> None:
        now = time.monotonic()
        if now - self._last_beat >= self._heartbeat:
            self._last_beat = now
            print(f"compiling for {now - since:.0f} s ...", flush=True)

    def _read(self) -> str:
        try:
            with self._log.open("rb") as file:
                file.seek(self._offset)
                whole = file.read().rpartition(b"\n")
        except OSError:  # does not exist yet, or lies on storage that is unreachable for a while
            return ""
        self._offset += len(whole[0]) + len(whole[1])
        return (whole[0] + whole[1]).decode("utf-8", errors="replace")


class News(Protocol):
    """What ends an attempt from outside; a Bulletin is one."""

    def read(self) -> Failure | None:
        """Returns why the attempt must end, or None."""

    def write(self, failure: Failure) -> None:
        """Reports a failure of this node."""


class Bulletin:
    """The file by which launchers on several nodes notify each other of a failure.

    A file that is older than this launch is ignored.

    Args:
        root: Log folder of the job, which the nodes may share.
        marker: A folder just made on the same storage; its time stamp is compared with the file's, because
            the storage's clock may differ from this host's.
        attempt: Number of the attempt, from 0, the same on all nodes; news of another attempt is ignored.
        job: Distinguishes the job from others with the same log folder; the same on all its nodes.
    """

    def __init__(self, root: Path, marker: Path, attempt: int = 0, job: str = "") -> None:
        self._file = root / f"failed_{'_'.join(filter(None, (job, str(attempt))))}.json"
        self._since = marker.stat().st_mtime_ns
        self._complained = False

    def read(self) -> Failure | None:
        """Returns the failure that another node has reported, if any.

        A file that is no such report is mentioned once and ignored.
        """
        try:
            if self._file.stat().st_mtime_ns <= self._since:
                return None
            return _parsed(read_json(require_file(self._file), most=_MOST_NEWS), self._file)
        except FileNotFoundError:
            return None
        except (OSError, ReadError) as error:
            if not self._complained:
                self._complained = True
                print(f"warning: {shown(error)}; it is not taken as news of another node", file=sys.stderr)
            return None

    def write(self, failure: Failure) -> None:
        """Reports a failure to the other nodes, unless another launcher has already reported one."""
        if self.read() is not None:
            return
        try:
            # Escaped: with a log folder's name that is not UTF-8, other nodes would refuse to read the file.
            write_json(self._file, asdict(replace(failure, log=shown(failure.log), node=shown(failure.node))))
        except OSError as error:
            print(f"warning: {shown(error)}: the other nodes are not told of the failure", file=sys.stderr)


def _parsed(value: object, where: Path) -> Failure:
    if isinstance(value, dict) and value.keys() == Failure.__annotations__.keys():
        rank, code, node, log = (value[name] for name in ("rank", "code", "node", "log"))
        numbers = [code] if rank is None else [code, rank]
        whole = all(type(number) is int and abs(number) < 1 << 31 for number in numbers)
        if whole and isinstance(node, str) and isinstance(log, str):
            return Failure(rank, code, node, log)
    raise ReadError(f"{where}: names no failure, but {quoted(value)}")


def watch(
    workers: OwnWorkers | MsrunWorkers,
    console: Console,
    signals: Signals,
    bulletin: News | None,
    node: str,
    folder: Path,
    grace: float = GRACE,
) -> Failure | None:
    """Waits until all workers have succeeded or one has failed; no worker runs when it returns.

    Args:
        signals: The first signal is passed on as SIGTERM, after which the workers save and stop. A second one
            kills them.
        bulletin: Exchanges failures with other nodes; None if there are none. What it reports ends the
            workers.
        folder: Folder of the workers' logs.
        grace: Seconds that workers get to save after a signal.

    Returns:
        None if all workers succeeded or a signal stopped them.
    """
    deadline = None
    try:
        while True:
            done = workers.finished()  # before the codes, which then include workers that end in between
            codes = workers.codes()
            console.update()
            if signals.number:
                if deadline is None:
                    deadline = _announced(signals.number, grace)
                workers.terminate()
                if None not in codes.values() or _enough(signals.again, deadline, codes):
                    return None
            failure = None if deadline else _failed(workers, codes, done, node, folder)
            if bulletin is not None and not deadline:
                failure = failure or bulletin.read()
            if failure is not None:
                if bulletin is not None:
                    bulletin.write(failure)
                return failure
            if done is not None:
                return None
            time.sleep(_POLL)
    finally:
        workers.kill()
        console.update()


def _announced(number: int, grace: float) -> float:
    """Announces what a signal leads to, and returns the time at which workers that still run are killed."""
    print(
        f"signal {number}: the workers save and stop; what still runs in {grace:g} s (--grace) is killed, "
        "and all of it at once after a second signal",
        flush=True,
    )
    return time.monotonic() + grace


def _enough(again: int, deadline: float, codes: Mapping[int, int | None]) -> bool:
    """Returns whether workers that still run are to be killed, and announces it."""
    late = time.monotonic() > deadline
    if again or late:
        ranks = ", ".join(str(rank) for rank, code in sorted(codes.items()) if code is None)
        why = f"signal {again} again" if again else "the time to save is up (--grace)"
        print(f"{why}: killed while they ran: rank {ranks}; the last whole checkpoint stands", flush=True)
    return bool(again or late)


def _failed(
    workers: OwnWorkers | MsrunWorkers,
    codes: Mapping[int, int | None],
    done: int | None,
    node: str,
    folder: Path,
) -> Failure | None:
    failed = {rank: code for rank, code in sorted(codes.items()) if code}
    if failed:
        rank = workers.first([*failed])
        return Failure(rank, failed[rank], node, str(log_of(folder, rank)))
    if done:
        return Failure(None, done, node, str(folder / "msrun.log"))
    return None


def last_lines(log: Path) -> list[str]:
    """Returns the end of a failed rank's log without MindSpore's chatter, and advice on error codes in it.

    The lines begin at the last traceback, if there is one.
    """
    try:
        with require_file(log).open("rb") as file:
            file.seek(max(log.stat().st_size - _LAST_BYTES, 0))
            text = file.read(_LAST_BYTES).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return [f"(no log {log})"]
    except (OSError, ReadError) as error:
        return [f"(the log cannot be read: {error})"]
    lines = [line for line in text.splitlines() if not _NOISE.search(line)][-200:]
    places = [place for place, line in enumerate(lines) if line.startswith("Traceback")]
    lines = lines[max(places[-1] if places else 0, len(lines) - _LAST_LINES) :]
    hints = [hint for word, hint in _HINTS.items() if any(word in line for line in lines)]
    return lines + [f"hint: {hint}" for hint in hints]
