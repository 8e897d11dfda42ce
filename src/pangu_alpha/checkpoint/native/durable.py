"""Files and folders that a kill or a power cut leaves either whole or absent.

A folder is filled under a scratch name beside its place, flushed to the disk and renamed. The scratch
name tells which process wrote it, so that what a dead one left behind can be known from a live one's work.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.files.lock import process_birth
from pangu_alpha.files.paths import is_real_folder
from pangu_alpha.files.writing import sync_folder

_SCRATCH = re.compile(r"\.tmp-(?P<name>.+)-(?P<pid>[0-9]+)-(?P<birth>[0-9]+)@(?P<host>.+)")


class ForeignFolderError(OSError):
    """What lies in the place of a folder that this user made before is none."""


@contextmanager
def appearing_folder(path: Path, aside: Path | None = None) -> Iterator[Path]:
    """Makes `path` appear whole: yields a scratch folder, renamed to `path` when the block succeeds.

    Args:
        path: The folder to make.
        aside: New name of the folder that lies at `path` until then; None where none does.

    Raises:
        OSError: The disk does not take it. Nothing is left behind.
    """
    scratch = scratch_path(path)
    scratch.mkdir()
    try:
        yield scratch
        publish_folder(scratch, path, aside)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def publish_folder(scratch: Path, path: Path, aside: Path | None = None) -> None:
    """Gives a finished scratch folder its name; see `appearing_folder`.

    Raises:
        OSError: The disk does not take it; then `scratch` is still there.
    """
    sync_folder(scratch)
    if aside is not None:
        os.rename(path, aside)
    os.rename(scratch, path)
    sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Removes a folder so that a kill half-way leaves a recognised scratch folder, never half of `path`.

    Of a link only the link is removed, never what it points to.

    Raises:
        OSError: It cannot be renamed or removed.
    """
    if path.is_symlink():
        path.unlink()
        sync_folder(path.parent)
        return
    if not _SCRATCH.fullmatch(path.name):
        scratch = scratch_path(path)
        os.rename(path, scratch)
        sync_folder(path.parent)
        path = scratch
    shutil.rmtree(path)


def scratch_folders(root: Path) -> list[Path]:
    """The scratch folders in `root`, of live and dead processes; no links, nothing a user named himself."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if _SCRATCH.fullmatch(path.name) and is_real_folder(path))


def is_abandoned(scratch: Path) -> bool:
    """Whether the process that made a scratch folder is known to be gone.

    A process is known by its number and its birth, because a container started again hands out the same
    numbers. That of another machine, or of a system without /proc, is never known to be gone.
    """
    writer = writer_of(scratch.name)
    assert writer is not None, f"{scratch} is not a scratch folder"
    return writer.is_gone


@dataclass(frozen=True)
class Writer:
    """What the name of a scratch folder says.

    Args:
        name: Of the folder that it was to become.
        pid: Number of the process that made it.
        birth: Its start, see `process_birth`; "0" on a system without /proc.
        host: Where it ran.
    """

    name: str
    pid: int
    birth: str
    host: str

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended; see `is_abandoned`."""
        if self.host != socket.gethostname() or process_birth(os.getpid()) is None:
            return False
        return process_birth(self.pid) != self.birth


def writer_of(name: str) -> Writer | None:
    """Who made a scratch folder, by its name; None for any other name."""
    match = _SCRATCH.fullmatch(name)
    return Writer(match["name"], int(match["pid"]), match["birth"], match["host"]) if match else None


def writer_name() -> str:
    """What this process is called in the names of its scratch folders; no other process is called so."""
    pid = os.getpid()
    return f"{pid}-{process_birth(pid) or 0}@{socket.gethostname()}"


def scratch_path(path: Path, writer: str | None = None) -> Path:
    """Where a process fills the folder that is to be `path`.

    Args:
        path: The folder to make.
        writer: Its `writer_name`; this process's when left out.
    """
    return path.with_name(f".tmp-{path.name}-{writer or writer_name()}")


def open_own_folder(path: Path) -> int:
    """Opens a folder that this user made; a link is not followed.

    Returns:
        Its descriptor.

    Raises:
        ForeignFolderError: It is a link, a file, or another user's; says which.
        OSError: There is nothing, or it cannot be opened.
    """
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise ForeignFolderError("is a link" if path.is_symlink() else "is no folder")
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    if not _is_own(os.fstat(descriptor).st_uid, path.parent):
        os.close(descriptor)
        raise ForeignFolderError("is another user's")
    return descriptor


def _is_own(owner: int, parent: Path) -> bool:
    """Whether what this process makes in a folder gets that owner: a server may write root's as nobody's."""
    if owner == os.geteuid():
        return True
    with suppress(OSError), tempfile.TemporaryDirectory(prefix=".tmp-owner-", dir=parent) as probe:
        return os.stat(probe).st_uid == owner
    return False


def remove_own_folder(path: Path, names: Collection[str]) -> None:
    """Removes the folders and files of these names from a folder of this user's, and it, if it is empty then.

    Never raises: what cannot be removed, what is a link or another user's, and what has another name stays.
    """
    with suppress(OSError):
        descriptor = open_own_folder(path)
        try:
            remove_names(descriptor, names)
        finally:
            os.close(descriptor)
        os.rmdir(path)


def remove_names(descriptor: int, names: Collection[str]) -> None:
    """Removes the folders, with all in them, and files of these names from an open folder; nothing else."""
    for name in sorted({*os.listdir(descriptor)} & {*names}):
        if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
            _remove_tree(name, descriptor)
        else:
            os.unlink(name, dir_fd=descriptor)


def _remove_tree(name: str, descriptor: int) -> None:
    """As shutil.rmtree with dir_fd, which Python 3.10 does not have. Links are removed, not followed."""
    for _, folders, files, inside in os.fwalk(name, topdown=False, onerror=_raise, dir_fd=descriptor):
        for file in files:
            os.unlink(file, dir_fd=inside)
        for folder in folders:
            is_link = stat.S_ISLNK(os.lstat(folder, dir_fd=inside).st_mode)
            (os.unlink if is_link else os.rmdir)(folder, dir_fd=inside)
    os.rmdir(name, dir_fd=descriptor)


def _raise(error: OSError) -> None:
    raise error
