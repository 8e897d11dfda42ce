"""Lets one process at a time work in a folder, and recovers the lock of a process that has died.

A file in the folder names the holder. Three checks decide whether the holder still lives, the most reliable
first: flock, which the system releases however a process ends; for a process of this host, whether it runs;
for one of another host, which flock may not reach on shared storage, whether its holder, which touches the
file every _BEAT seconds, has done so within SILENCE seconds. Only a dead holder's lock is taken over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path

from pangu_alpha.files.shown import quoted, shown
from pangu_alpha.files.writing import write_all_at

logger = logging.getLogger(__name__)

LOCK_NAME = ".in-use.json"
SILENCE = 1800  # seconds after which a process of another host that did not touch its file counts as dead
_BEAT = 60
_MOST_BYTES = 4096
_ATTEMPTS = 20


class FolderInUseError(ValueError):
    """Another process works in the folder; the message names it, says since when, and what to do."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a folder, as its lock file describes it.

    Args:
        doing: What the process does in the folder, to be shown to people.
        boot: Identity of the host since its last start; containers on one host share it.
        processes: The host's process id namespace, in which `pid` counts; containers have their own.
        birth: Start time of the process, see `process_birth`.
        since: Time at which it took the folder, UTC.
        token: A random identity of this lock.
    """

    doing: str
    host: str
    boot: str
    processes: str
    pid: int
    birth: str
    since: str
    token: str


@contextmanager
def hold_folder(folder: str | Path, doing: str) -> Iterator[None]:
    """Reserves a folder for this process while the block runs. The folder is made if it does not exist.

    The lock is the file LOCK_NAME in the folder and is removed when the block ends. If the process dies, the
    system releases the lock, and the next process on this host takes over without asking.

    Args:
        doing: What this process does there, such as "training"; a process that finds the folder in use shows
            it.

    Raises:
        FolderInUseError: Another process holds the folder, or may hold it.
        OSError: The path is not a folder, or cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        kind = "a link to nothing" if folder.is_symlink() else "no folder"
        raise NotADirectoryError(
            errno.ENOTDIR, f"is {kind}; give the path of a folder", str(folder)
        ) from error
    path, holder = folder / LOCK_NAME, _ourselves(doing)
    descriptor = _taken(path, holder)
    ended = threading.Event()
    beat = threading.Thread(target=_touch_until, args=(descriptor, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        if os.getpid() == holder.pid:  # a forked child must not release its parent's lock
            beat.join()
            _remove_ours(path, descriptor)
        os.close(descriptor)


def holder_of(folder: str | Path) -> Holder | None:
    """Returns the process that a folder's lock file names, dead or alive; None if it names none."""
    try:
        return _parsed((Path(folder) / LOCK_NAME).read_bytes()[:_MOST_BYTES])
    except OSError:
        return None


def process_birth(pid: int) -> str | None:
    """Returns the start of a living process in clock ticks since boot (field 22 of /proc/PID/stat).

    Together with the process id it identifies a process, because the system reuses ids; see proc(5). Returns
    None for a process that has ended, and without /proc.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()  # the program's name before ")" may contain blanks
    return None if state in "ZX" else rest[18]


def _ourselves(doing: str) -> Holder:
    pid = os.getpid()
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    birth = process_birth(pid) or ""
    return Holder(doing, socket.gethostname(), _boot(), _processes(), pid, birth, now, uuid.uuid4().hex)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _processes() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _taken(path: Path, holder: Holder) -> int:
    """Returns the descriptor of the lock file after writing `holder` into it."""
    for _ in range(_ATTEMPTS):
        descriptor, made = _opened(path)
        try:
            if _take(path, descriptor, made, holder):
                return descriptor
        except BaseException as error:
            if made and isinstance(error, OSError):  # a full disk: do not leave an empty lock file
                _remove_ours(path, descriptor)
            os.close(descriptor)
            if isinstance(error, OSError) and error.filename is None:
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise
        os.close(descriptor)  # its last holder has just removed the file
    raise FolderInUseError(
        f"{shown(path.parent)}: taken and left again by other processes all the time; try later"
    )


def _opened(path: Path) -> tuple[int, bool]:
    """Returns the lock file's descriptor, and whether this call created the file."""
    while True:
        with suppress(FileExistsError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), True
        try:
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK), False
        except FileNotFoundError:  # its holder has just removed the file
            continue
        except PermissionError as error:
            raise FolderInUseError(
                f"{shown(path)}: is another user's, who may still work in the folder; if nobody does, remove "
                "it, or give another folder"
            ) from error


def _take(path: Path, descriptor: int, made: bool, holder: Holder) -> bool:
    """Writes `holder` into the file; returns False if the path no longer refers to this file."""
    locked = _locked(path, descriptor)
    if not _is_at(path, descriptor):
        return False
    if not made:
        before = _read(descriptor)
        _require_dead(path, descriptor, before, locked)
        if not locked:  # only a rename, which succeeds once, keeps a second process from taking over, too
            return _set_aside(path, descriptor)
    content = json.dumps(asdict(holder), ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")
    os.ftruncate(descriptor, 0)
    write_all_at(descriptor, content, 0)
    return _is_at(path, descriptor)


def _locked(path: Path, descriptor: int) -> bool:
    """Returns whether flock was acquired; False on a file system that has no flock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            return False
        raise FolderInUseError(_in_use(path, _read(descriptor))) from error
    return True


def _require_dead(path: Path, descriptor: int, before: Holder | None, locked: bool) -> None:
    """Raises FolderInUseError unless the process that the file names is known to have ended."""
    if before is not None and (before.boot, before.processes) == (_boot(), _processes()) and before.birth:
        if process_birth(before.pid) != before.birth:
            return
        raise FolderInUseError(_in_use(path, before))  # some file systems accept flock but do not enforce it
    if locked and (before is None or before.boot == _boot() != ""):
        return  # a living holder would have flock; a file that names nobody is left by one that died at once
    silent = _now_there(path) - os.fstat(descriptor).st_mtime
    if silent <= SILENCE:
        raise FolderInUseError(_in_use(path, before, silent))
    who = f"{before.doing}, process {before.pid} on {before.host}" if before else "an unknown process"
    logger.warning(
        "%s: taken over from %s, which has given no sign of life for %s minutes",
        shown(path.parent),
        shown(who),
        f"{silent / 60:,.0f}",
    )


def _in_use(path: Path, holder: Holder | None, silent: float | None = None) -> str:
    folder = shown(path.parent)
    if holder is None:
        return f"{folder}: another process is working in it; wait for its end, or give another folder"
    here = holder.boot == _boot()
    where = "this host" if here else f"host {quoted(holder.host)}"
    doing = shown(holder.doing, 80)
    text = f"{folder}: in use since {shown(holder.since, 40)} by {doing}, process {holder.pid} on {where}"
    if here and holder.processes == _processes() and process_birth(holder.pid) != holder.birth:
        return (
            f"{text}; that process has ended, but one that it started still runs: end it, then start again "
            f"(`fuser {shown(path)}` names it)"
        )
    text += "; wait for its end, or give another folder"
    if silent is None:
        return text
    return (
        f"{text}. It gave a sign of life {max(silent, 0):,.0f} seconds ago; if you are sure that it has "
        f"ended, remove {shown(path)}, or start again when it has been silent for {SILENCE // 60} minutes"
    )


def _now_there(path: Path) -> float:
    """Returns the time by the clock of the file system, which on shared storage is not this host's."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(descriptor, b"\n")
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        probe.unlink()


def _set_aside(path: Path, descriptor: int) -> bool:
    """Renames a dead process's lock file where flock is missing; the next attempt creates a new one."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        os.rename(path, aside)
        if not _is_at(aside, descriptor):  # another process took over in between, and this is its lock
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()
    return False


def _read(descriptor: int) -> Holder | None:
    try:
        return _parsed(os.pread(descriptor, _MOST_BYTES, 0))
    except OSError:
        return None


def _parsed(content: bytes) -> Holder | None:
    try:
        values = json.loads(content)
        holder = Holder(**{field.name: values[field.name] for field in fields(Holder)})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = [value for name, value in asdict(holder).items() if name != "pid"]
    return holder if isinstance(holder.pid, int) and all(isinstance(text, str) for text in texts) else None


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _touch_until(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(_BEAT):
        with suppress(OSError):  # a storage server may be unreachable for a while
            os.utime(descriptor)


def _remove_ours(path: Path, descriptor: int) -> None:
    with suppress(OSError):  # a folder that was removed or became read-only must not hide the block's end
        if _is_at(path, descriptor):
            path.unlink()
