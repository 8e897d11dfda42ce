"""Finds what killed processes left beside checkpoints, describes it, and removes it where that is safe.

Knows names of scratch folders, not their content. Links are neither followed nor removed, and nothing is
removed that a user named or that a living process may still write.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pangu_alpha.checkpoint.moving.resumable import JOURNAL, MADE_NAMES, MERGED, MERGING
from pangu_alpha.checkpoint.native.durable import (
    Writer,
    open_own_folder,
    remove_folder,
    remove_own_folder,
    writer_of,
)
from pangu_alpha.checkpoint.native.folders import replaced_name, step_of
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.files.paths import is_real_folder

_SIGN = re.compile(r"\.shared-(?P<writer>.+)")
_MERGING = re.compile(re.escape(MERGING) + r"(?P<name>.+)")
_MERGED = re.compile(re.escape(MERGED) + r"(?P<name>.+)-[0-9a-f]{16}")
# Names that files.writing gives them, and gave them in earlier versions.
_DRAFT = re.compile(r"\.(?P<name>.+)\.(?P<pid>[0-9]+)(-[0-9a-f]{16})?\.draft")
_DAMAGED = re.compile(r"(?P<name>.+)\.damaged-[0-9]+")

State = Literal["gone", "alive", "elsewhere", "interrupted", "kept"]


@dataclass(frozen=True)
class Leftover:
    """A file or folder that an interrupted save, merge or export left behind.

    Args:
        what: Description in words.
        host: Host of its writer; empty if its name does not tell.
        state: "gone": nobody writes it any more; "alive": its writer runs on this host; "elsewhere": its
            writer belongs to another host, whose processes cannot be seen from here; "interrupted": work that
            the same command would resume; "kept": set aside for the user to examine.
        bytes: Size on disk, without the targets of links in it.
        written: Time of the last change of its newest file. Unit: seconds since 1970.
    """

    path: Path
    what: str
    host: str
    state: State
    bytes: int
    written: float

    @property
    def is_removable(self) -> bool:
        """Whether it is known that nobody needs it."""
        return self.state == "gone"


def leftovers(path: Path) -> list[Leftover]:
    """Returns the leftovers in a run's folder, in its checkpoints and beside a merge's target, by path.

    Args:
        path: A run's output folder or its `checkpoints`, a folder in which merges or exports were made, or
            the target of one that was interrupted.

    Raises:
        CheckpointError: There is no such folder.
    """
    beside = [_described(each) for each in _entries(path.absolute().parent) if _name_of(each) == path.name]
    if not path.is_dir() and not any(beside):
        what = "no folder" if os.path.lexists(path) else "no such folder, and nothing unfinished beside it"
        raise CheckpointError(f"{path}: there is {what}; give a run's output folder, or that of a merge")
    inside = [_described(each) for folder in _folders(path) for each in _entries(folder)]
    return sorted((one for one in (*beside, *inside) if one is not None), key=lambda one: one.path)


def remove(found: Sequence[Leftover], hosts: Sequence[str] = ()) -> Iterator[tuple[Leftover, str]]:
    """Removes the leftovers that nobody needs.

    Args:
        found: The result of `leftovers`.
        hosts: Other hosts of which the user asserts that none of their processes is still writing.

    Yields:
        A leftover, and why it could not be removed; the text is empty if it was removed.

    Raises:
        CheckpointError: No leftover belongs to one of the hosts, or a host is this one.
    """
    others = {one.host for one in found if one.state == "elsewhere"}
    for host in hosts:
        if host == socket.gethostname():
            raise CheckpointError(f"--host {host}: is this host, whose processes are known; leave it out")
        if host not in others:
            known = f"; there is something of {', '.join(sorted(others))}" if others else ""
            raise CheckpointError(f"--host {host}: nothing here is of that host{known}")
    for one in found:
        if one.is_removable or (one.state == "elsewhere" and one.host in hosts):
            yield one, _removed(one.path)


def _removed(path: Path) -> str:
    """Removes one leftover; returns why that failed, or an empty text."""
    try:
        if _MERGED.fullmatch(path.name):
            remove_own_folder(path, MADE_NAMES)
            return "something else lies in it" if path.exists() else ""
        if stat.S_ISDIR(os.lstat(path).st_mode):
            remove_folder(path)
        else:
            path.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _folders(path: Path) -> Iterator[Path]:
    """Yields the folder, its checkpoints, and the steps' folders in both, which may hold parts of nodes."""
    for root in (path, path / "checkpoints"):
        if root.is_dir():
            yield root
            steps = (each for each in _entries(root) if step_of(each.name) is not None)
            yield from filter(is_real_folder, steps)


def _entries(folder: Path) -> list[Path]:
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def _name_of(path: Path) -> str | None:
    """Returns what a scratch folder was to become, or None for any other name."""
    if (writer := writer_of(path.name)) is not None:
        return writer.name
    match = _MERGING.fullmatch(path.name) or _MERGED.fullmatch(path.name)
    return match["name"] if match else None


def _described(path: Path) -> Leftover | None:
    """Describes a path as a leftover; None if this project did not leave it."""
    if path.is_symlink():
        return None
    name, is_folder = path.name, is_real_folder(path)
    sign = _SIGN.fullmatch(name) if path.is_file() else None
    writer = writer_of(name) if is_folder else writer_of(f".tmp-sign-{sign['writer']}") if sign else None
    if writer is not None:
        what = f"an unfinished {writer.name}" if is_folder else "a sign for other ranks"
        return _leftover(path, what, writer.host, _state_of(writer))
    if not is_folder:
        match = _DRAFT.fullmatch(name) if path.is_file() else None
        return _leftover(path, _draft_of(match), "", "kept") if match else None
    if (match := _MERGED.fullmatch(name)) is not None:
        return _leftover(path, f"of the merge or export into {match['name']}, which was finished", "", "gone")
    if (match := _MERGING.fullmatch(name)) is not None:
        what = f"an unfinished merge or export into {match['name']}{_progress(path)}"
        return _leftover(path, what, "", "alive" if _is_locked(path) else "interrupted")
    if (step := replaced_name(name)) is not None:
        if os.path.lexists(path.with_name(step)):
            return _leftover(path, "a checkpoint that another of its step replaced", "", "kept")
        what = f"the only {step}: a killed save set it aside, the run's next start gives it its name back"
        return _leftover(path, what, "", "interrupted")
    if (match := _DAMAGED.fullmatch(name)) is not None and step_of(match["name"]) is not None:
        return _leftover(path, "a damaged checkpoint that another of its step replaced", "", "kept")
    return None


def _draft_of(match: re.Match[str]) -> str:
    return f"a draft of {match['name']} by process {match['pid']} of a host that it does not say"


def _state_of(writer: Writer) -> State:
    if writer.host != socket.gethostname():
        return "elsewhere"
    return "gone" if writer.is_gone else "alive"


def _leftover(path: Path, what: str, host: str, state: State) -> Leftover:
    size, written = 0, os.lstat(path).st_mtime
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):  # it may have been removed meanwhile
                status = os.lstat(Path(folder, name))
                size += min(status.st_size, status.st_blocks * 512)  # it may be a sparse file
                written = max(written, status.st_mtime)
    return Leftover(path, what, host, state, size, written)


def _progress(path: Path) -> str:
    """Returns how far a merge has come according to its journal."""
    try:
        descriptor = os.open(path / JOURNAL, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            done = sum(line.endswith(b"\n") for line in file) - 1
    except OSError:
        return ""
    return f", {max(0, done):,} tensors done" if done >= 0 else ""


def _is_locked(path: Path) -> bool:
    """Whether a process works on a merge; on a file system without locks this cannot be seen."""
    try:
        descriptor = open_own_folder(path)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
