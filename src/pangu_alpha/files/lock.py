"""One process at a time in a folder: the second is refused in words; the lock of a dead one does not stay.

A file in the folder says who holds it. Three things decide whether the holder still lives, the surest first:
flock, which the system itself takes from a process that ends in any way; for a process of this host, whether
it runs; for one of another host, which flock may not reach on shared storage, whether the file was touched
within SILENCE seconds (its holder does so every _BEAT seconds). Only what is dead by these is taken over.
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
SILENCE = 1800  # seconds without a touch until a process of another host counts as dead
_BEAT = 60
_MOST_BYTES = 4096
_ATTEMPTS = 20


class FolderInUseError(ValueError):
    """Another process works in the folder; says which, since when, and what to do."""


@dataclass(frozen=True)
class Holder:
    """Who holds a folder, as its lock file says.

    Args:
        doing: What it does there, for people.
        host: Its host's name.
        boot: Identity of that host since its last start; containers on one host share it.
        processes: The host's table of processes in which `pid` counts; containers have their own.
        pid: Its process.
        birth: Start of the process, see `process_birth`.
        since: When it took the folder, UTC.
        token: Belongs to this one taking of the folder.
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
    """Keeps a folder for this process while the block runs. The folder is made if there is none.

    The lock lies in the folder as LOCK_NAME and is gone when the block ends. It ends with the process, too,
    however that ends: the next one on this host takes over what it left without a question.

    Args:
        folder: The folder to be worked in.
        doing: What this process does there, such as "training"; the next one shows it.

    Raises:
        FolderInUseError: Another process holds it, or may hold it.
        OSError: What lies there is no folder, or it cannot be written.
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
        if os.getpid() == holder.pid:  # a forked child that leaves this block ends nothing
            beat.join()
            _remove_ours(path, descriptor)
        os.close(descriptor)


def holder_of(folder: str | Path) -> Holder | None:
    """Who holds a folder, or held it and left no other trace; None if its lock file names nobody."""
    try:
        return _parsed((Path(folder) / LOCK_NAME).read_bytes()[:_MOST_BYTES])
    except OSError:
        return None


def process_birth(pid: int) -> str | None:
    """Start of a living process in clock ticks since boot (field 22 of /proc/PID/stat, see proc(5)).

    A process is known by its number and its birth: numbers are handed out again.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()  # the name before ")" may hold blanks
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
    """The descriptor of the lock file, which now names this process."""
    for _ in range(_ATTEMPTS):
        descriptor, made = _opened(path)
        try:
            if _take(path, descriptor, made, holder):
                return descriptor
        except BaseException as error:
            if made and isinstance(error, OSError):  # a full disk; an empty one would be left
                _remove_ours(path, descriptor)
            os.close(descriptor)
            if isinstance(error, OSError) and error.filename is None:
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise
        os.close(descriptor)  # its last holder has just removed it
    raise FolderInUseError(
        f"{shown(path.parent)}: taken and left again by other processes all the time; try later"
    )


def _opened(path: Path) -> tuple[int, bool]:
    """The lock file's descriptor, and whether it was made just now."""
    while True:
        with suppress(FileExistsError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), True
        try:
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK), False
        except FileNotFoundError:  # its holder has just removed it
            continue
        except PermissionError as error:
            raise FolderInUseError(
                f"{shown(path)}: is another user's, who may still work in the folder; if nobody does, remove "
                "it, or give another folder"
            ) from error


def _take(path: Path, descriptor: int, made: bool, holder: Holder) -> bool:
    """Names this process in the file; False if the file is no longer the one of that name."""
    locked = _locked(path, descriptor)
    if not _is_at(path, descriptor):
        return False
    if not made:
        before = _read(descriptor)
        _require_dead(path, descriptor, before, locked)
        if not locked:  # nothing keeps a second one from taking over at this moment but a name's uniqueness
            return _set_aside(path, descriptor)
    content = json.dumps(asdict(holder), ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")
    os.ftruncate(descriptor, 0)
    write_all_at(descriptor, content, 0)
    return _is_at(path, descriptor)


def _locked(path: Path, descriptor: int) -> bool:
    """Whether flock was taken; False on a file system without it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            return False
        raise FolderInUseError(_in_use(path, _read(descriptor))) from error
    return True


def _require_dead(path: Path, descriptor: int, before: Holder | None, locked: bool) -> None:
    """Raises FolderInUseError unless the process that the file names is known to be gone."""
    if before is not None and (before.boot, before.processes) == (_boot(), _processes()) and before.birth:
        if process_birth(before.pid) != before.birth:
            return
        raise FolderInUseError(_in_use(path, before))  # some file systems only pretend to lock
    if locked and (before is None or before.boot == _boot() != ""):
        return  # the system would have kept flock for it; a file without a name is of one that died at once
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
    """The present by the clock of the file system, which on shared storage is not this host's."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.write(descriptor, b"\n")
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        probe.unlink()


def _set_aside(path: Path, descriptor: int) -> bool:
    """Takes a dead process's lock file away where there is no flock; the next attempt makes a new one."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        os.rename(path, aside)
        if not _is_at(aside, descriptor):  # another one took over in between, and this is its lock
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
        with suppress(OSError):  # a server that is away for a while
            os.utime(descriptor)


def _remove_ours(path: Path, descriptor: int) -> None:
    with suppress(OSError):  # a folder that was removed or became read-only keeps nothing from ending
        if _is_at(path, descriptor):
            path.unlink()
