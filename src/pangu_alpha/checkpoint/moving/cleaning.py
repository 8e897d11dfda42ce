"""What processes that were killed left beside checkpoints: found, described, and removed where that is safe.

Knows names of scratch folders, not what is in them. Links are neither followed nor removed, and nothing is
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
# As files.writing calls them, and in earlier versions called them.
_DRAFT = re.compile(r"\.(?P<name>.+)\.(?P<pid>[0-9]+)(-[0-9a-f]{16})?\.draft")
_DAMAGED = re.compile(r"(?P<name>.+)\.damaged-[0-9]+")

State = Literal["gone", "alive", "elsewhere", "interrupted", "kept"]


@dataclass(frozen=True)
class Leftover:
    """Something that a save, a merge or an export left.

    Args:
        path: Where it lies.
        what: What it is, in words.
        host: Of its writer; empty where its name does not say that.
        state: "gone" if nobody writes it any more; "alive" if its writer runs on this host; "elsewhere" if it
            is another host's, whose processes cannot be seen from here; "interrupted" if it is work that the
            same command goes on with; "kept" if it was put aside for the user to look at.
        bytes: On the disk, without what links in it point to.
        written: When the newest file in it was changed last. Unit: seconds since 1970.
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
    """What lies in a run's folder, in its checkpoints and beside a merge's target, by path.

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
    """Removes what nobody needs.

    Args:
        found: As `leftovers` gives it.
        hosts: Other hosts of which the user says that none of their processes writes any more.

    Yields:
        What was to be removed, and why it could not be; an empty text where it is gone.

    Raises:
        CheckpointError: Nothing is of one of the hosts, or it is this one.
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
    """Removes one; says why not."""
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
    """The folder, its checkpoints, and the folders of steps in both, in which nodes leave parts."""
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
    """What a scratch folder was to become; None for any other."""
    if (writer := writer_of(path.name)) is not None:
        return writer.name
    match = _MERGING.fullmatch(path.name) or _MERGED.fullmatch(path.name)
    return match["name"] if match else None


def _described(path: Path) -> Leftover | None:
    """What a thing is; None where it is nothing that this project left."""
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
            with suppress(OSError):  # it may be gone meanwhile
                status = os.lstat(Path(folder, name))
                size += min(status.st_size, status.st_blocks * 512)  # a file made in its size may have holes
                written = max(written, status.st_mtime)
    return Leftover(path, what, host, state, size, written)


def _progress(path: Path) -> str:
    """How far the journal says that a merge has come."""
    try:
        descriptor = os.open(path / JOURNAL, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            done = sum(line.endswith(b"\n") for line in file) - 1
    except OSError:
        return ""
    return f", {max(0, done):,} tensors done" if done >= 0 else ""


def _is_locked(path: Path) -> bool:
    """Whether a process works on a merge; one on a file system without locks is not seen."""
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
