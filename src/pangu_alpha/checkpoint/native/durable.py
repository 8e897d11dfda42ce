"""Folders that appear complete or not at all, whatever kills the process or cuts the power.

A folder is filled under a scratch name beside its destination, flushed to disk and renamed. The scratch name
identifies the process that writes it, so that a dead process's leftovers can be told from a live one's work.
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
    """The path should be a folder that this user made earlier, but is something else."""


@contextmanager
def appearing_folder(path: Path, aside: Path | None = None) -> Iterator[Path]:
    """Yields a scratch folder that is renamed to `path` when the block succeeds.

    Args:
        path: The folder to make.
        aside: New name for the folder that exists at `path`; None if there is none.

    Raises:
        OSError: The disk does not accept the files. Nothing is left behind.
    """
    scratch = scratch_path(path)
    scratch.mkdir()
    try:
        yield scratch
        publish_folder(scratch, path, aside)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def publish_folder(scratch: Path, path: Path, aside: Path | None = None) -> None:
    """Renames a finished scratch folder to its final path; see `appearing_folder`.

    Raises:
        OSError: The rename failed; `scratch` is still there.
    """
    sync_folder(scratch)
    if aside is not None:
        os.rename(path, aside)
    os.rename(scratch, path)
    sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Removes a folder so that a kill half-way leaves a recognisable scratch folder, never half of `path`.

    If the path is a link, only the link is removed, never its target.

    Raises:
        OSError: The folder cannot be renamed or removed.
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
    """Returns the scratch folders in `root`, of living and dead processes; no links, no user's folders."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if _SCRATCH.fullmatch(path.name) and is_real_folder(path))


def is_abandoned(scratch: Path) -> bool:
    """Whether the process that made a scratch folder is known to have ended.

    A process is identified by its id and start time, because a restarted container reuses ids. A process of
    another machine, or of a system without /proc, is never known to have ended.
    """
    writer = writer_of(scratch.name)
    assert writer is not None, f"{scratch} is not a scratch folder"
    return writer.is_gone


@dataclass(frozen=True)
class Writer:
    """The parts of a scratch folder's name.

    Args:
        name: Name of the folder that it was to become.
        pid: Id of the process that made it.
        birth: Start time of that process, see `process_birth`; "0" on a system without /proc.
        host: Host on which the process ran.
    """

    name: str
    pid: int
    birth: str
    host: str

    @property
    def is_gone(self) -> bool:
        """Whether the process is known to have ended; see `is_abandoned`."""
        if self.host != socket.gethostname() or process_birth(os.getpid()) is None:
            return False
        return process_birth(self.pid) != self.birth


def writer_of(name: str) -> Writer | None:
    """Parses the name of a scratch folder; None for any other name."""
    match = _SCRATCH.fullmatch(name)
    return Writer(match["name"], int(match["pid"]), match["birth"], match["host"]) if match else None


def writer_name() -> str:
    """Returns the name of this process in its scratch folders' names, which no other process shares."""
    pid = os.getpid()
    return f"{pid}-{process_birth(pid) or 0}@{socket.gethostname()}"


def scratch_path(path: Path, writer: str | None = None) -> Path:
    """Returns the scratch folder in which a process fills the folder that is to become `path`.

    Args:
        path: The folder to make.
        writer: The process's `writer_name`; by default this process's.
    """
    return path.with_name(f".tmp-{path.name}-{writer or writer_name()}")


def open_own_folder(path: Path) -> int:
    """Opens a folder that this user made, without following a link.

    Returns:
        A file descriptor.

    Raises:
        ForeignFolderError: The path is a link, a file, or another user's folder.
        OSError: The path does not exist, or cannot be opened.
    """
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise ForeignFolderError("is a link" if path.is_symlink() else "is no folder")
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    if not _is_own(os.fstat(descriptor).st_uid, path.parent):
        os.close(descriptor)
        raise ForeignFolderError("is another user's")
    return descriptor


def _is_own(owner: int, parent: Path) -> bool:
    """Whether files that this process makes in a folder get that owner: a server may map root to nobody."""
    if owner == os.geteuid():
        return True
    with suppress(OSError), tempfile.TemporaryDirectory(prefix=".tmp-owner-", dir=parent) as probe:
        return os.stat(probe).st_uid == owner
    return False


def remove_own_folder(path: Path, names: Collection[str]) -> None:
    """Removes the named entries of a folder that this user made, and then the folder itself if it is empty.

    Never raises. Whatever cannot be removed, is a link or another user's, or has another name stays.
    """
    with suppress(OSError):
        descriptor = open_own_folder(path)
        try:
            remove_names(descriptor, names)
        finally:
            os.close(descriptor)
        os.rmdir(path)


def remove_names(descriptor: int, names: Collection[str]) -> None:
    """Removes the named files and folders, with all their content, from an open folder; nothing else."""
    for name in sorted({*os.listdir(descriptor)} & {*names}):
        if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
            _remove_tree(name, descriptor)
        else:
            os.unlink(name, dir_fd=descriptor)


def _remove_tree(name: str, descriptor: int) -> None:
    """Does what shutil.rmtree does with dir_fd, which Python 3.10 lacks. Links are removed, not followed."""
    for _, folders, files, inside in os.fwalk(name, topdown=False, onerror=_raise, dir_fd=descriptor):
        for file in files:
            os.unlink(file, dir_fd=inside)
        for folder in folders:
            is_link = stat.S_ISLNK(os.lstat(folder, dir_fd=inside).st_mode)
            (os.unlink if is_link else os.rmdir)(folder, dir_fd=inside)
    os.rmdir(name, dir_fd=descriptor)


def _raise(error: OSError) -> None:
    raise error
