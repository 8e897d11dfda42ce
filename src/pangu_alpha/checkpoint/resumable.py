"""A folder that long work fills: what was done survives a kill, and the work run again goes on from there.

Beside DST lies .merging-DST with the folder `content` and a journal of the steps whose bytes are on the disk.
`content` becomes DST by rename. Unlike other scratch folders it is never removed as abandoned.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pangu_alpha.checkpoint.durable import durable_file, sync_folder, write_all
from pangu_alpha.checkpoint.tensor_file import CheckpointError

_CONTENT, _JOURNAL = "content", "journal.jsonl"


class ResumableFolder:
    """One piece of work in its folder.

    Args:
        path: What is to appear.
        digest: Of the work. What other work left half-done under the same name is removed.
        only: The one file of the folder that becomes `path`; None makes the whole folder that.
    """

    def __init__(self, path: Path, digest: str, only: str | None = None) -> None:
        self.path = path.absolute()
        self.scratch = self.path.with_name(f".merging-{path.name}")
        self.content = self.scratch / _CONTENT
        self._digest, self._only = digest, only
        self._journal = self.scratch / _JOURNAL
        self.done: dict[str, list[str]] = {}  # step -> what was recorded of it

    def is_finished(self) -> bool:
        """Whether this very work was done, but for the removal of its scratch folder.

        Raises:
            CheckpointError: Something else lies at `path`.
        """
        if not self.path.exists():
            return False
        made = self.content / self._only if self._only else self.content
        emptied = self.scratch.is_dir() and not any(self.scratch.iterdir())
        if emptied or (self._read_journal() is not None and not made.exists()):
            self._remove_scratch()
            return True
        raise CheckpointError(f"{self.path}: exists already; a checkpoint never overwrites anything")

    @contextmanager
    def open(self) -> Iterator[bool]:
        """Locks the folder for the block; yields whether half-done work of this digest is in it.

        Raises:
            CheckpointError: Another process works on it, or it cannot be made.
        """
        try:
            self.scratch.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.scratch, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            where = error.filename or self.scratch
            raise CheckpointError(f"{self.path}: not written: {error.strerror} ({where})") from error
        locked = False
        try:
            self._lock(descriptor)
            locked = True
            done = self._read_journal()
            if done is None:
                for stale in self.scratch.iterdir():
                    shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
            self.done = done or {}
            yield done is not None
        finally:
            if locked and not self._journal.exists():  # nothing to go on from
                shutil.rmtree(self.scratch, ignore_errors=True)
            os.close(descriptor)

    def begin(self) -> None:
        """Starts the journal, once all that a later run relies on is on the disk."""
        sync_folder(self.scratch)
        with durable_file(self._journal) as descriptor:
            write_all(descriptor, json.dumps({"digest": self._digest}).encode() + b"\n")
        sync_folder(self.scratch)

    def record(self, steps: Mapping[str, list[str]]) -> None:
        """Adds finished steps, whose bytes must be on the disk already, to the journal."""
        text = "".join(json.dumps([step, values]) + "\n" for step, values in steps.items())
        descriptor = os.open(self._journal, os.O_WRONLY | os.O_APPEND)
        try:
            write_all(descriptor, text.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.done.update(steps)

    def publish(self) -> None:
        """Gives the finished content its name and removes the rest."""
        for folder in (self.content, *(each for each in self.content.rglob("*") if each.is_dir())):
            sync_folder(folder)
        if self.path.exists():  # made meanwhile; a rename would take the place of a file
            raise CheckpointError(f"{self.path}: exists already; the work done lies in {self.content}")
        os.rename(self.content / self._only if self._only else self.content, self.path)
        sync_folder(self.path.parent)
        self._remove_scratch()

    def _remove_scratch(self) -> None:
        """Removes the scratch folder, the journal last: by it a later run knows that the work is done."""
        if self.content.exists():
            shutil.rmtree(self.content)
        self._journal.unlink(missing_ok=True)
        self.scratch.rmdir()

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return  # a file system without locks
            raise CheckpointError(f"{self.path}: another process is writing it; wait for its end") from error

    def _read_journal(self) -> dict[str, list[str]] | None:
        """The finished steps of this work; None where there is no journal of it."""
        if not self._journal.is_file():
            return None
        head, *lines = self._journal.read_bytes().split(b"\n")
        if head != json.dumps({"digest": self._digest}).encode():
            return None
        # A kill or a full disk may cut the last line; it then has no newline behind it.
        return dict(json.loads(line) for line in lines[:-1])
