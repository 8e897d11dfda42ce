"""A folder for long work that survives a kill: finished steps are kept, and the work resumes after them.

Beside DST lies .merging-DST with the folder `content` and a journal of the steps whose bytes are on disk.
`content` is renamed to DST; then .merging-DST becomes .merged-DST-DIGEST, whose name alone records what was
done, until it is removed as well. Unlike other scratch folders these are never removed as abandoned. Links
in the place of any of these are not followed, and only `content` and the journal are ever removed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pangu_alpha.checkpoint.native.durable import (
    ForeignFolderError,
    open_own_folder,
    remove_names,
    remove_own_folder,
)
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError
from pangu_alpha.files.paths import is_real_folder
from pangu_alpha.files.writing import durable_file, sync_folder, write_all

MERGING, MERGED = ".merging-", ".merged-"  # prefixes of scratch folders, before and after the rename
JOURNAL = "journal.jsonl"
_CONTENT = "content"
MADE_NAMES = (_CONTENT, JOURNAL)
_SILLY = ".nfs"  # prefix of the names that NFS gives to removed files that are still open


class ResumableFolder:
    """One piece of work in its scratch folder.

    Args:
        path: The file or folder to make.
        digest: Identifies the work. Half-done work with another digest under the same name is removed.
        only: The one file of the folder that becomes `path`; None makes the whole folder `path`.
    """

    def __init__(self, path: Path, digest: str, only: str | None = None) -> None:
        self.path = path.absolute()
        self.scratch = self.path.with_name(f"{MERGING}{path.name}")
        self.content = self.scratch / _CONTENT
        self._tidied = self.path.with_name(f"{MERGED}{path.name}-{digest[:16]}")
        self._digest, self._only = digest, only
        self._journal = self.scratch / JOURNAL
        self.done: dict[str, list[str]] = {}  # step -> its recorded checksums

    def is_finished(self) -> bool:
        """Whether this work was completed, except for the removal of its scratch folder.

        Raises:
            CheckpointError: Something else lies at `path`.
        """
        if not os.path.lexists(self.path):  # a broken link counts as existing
            return False
        renamed = self._read_journal() is not None and not self._made.exists()
        if renamed or is_real_folder(self._tidied):
            self._tidy(renamed)
            return True
        raise self._exists()

    @contextmanager
    def open(self) -> Iterator[bool]:
        """Locks the folder for the block; yields whether it holds half-done work of this digest.

        Raises:
            CheckpointError: Another process works on it, `path` has appeared, or the folder cannot be made.
        """
        descriptor = self._locked()
        try:
            self._refuse_strangers(descriptor)
            if os.path.lexists(self.path):  # made by another process before we had the lock
                raise self._exists()
            remove_own_folder(self._tidied, MADE_NAMES)  # the result of that work has been removed since
            done = self._read_journal()
            if done is None:
                remove_names(descriptor, MADE_NAMES)
            else:
                self._end_journal()
            self.done = done or {}
            yield done is not None
        finally:
            if self._is_scratch(descriptor) and not self._journal.exists():  # nothing to resume
                remove_own_folder(self.scratch, MADE_NAMES)
            os.close(descriptor)

    def begin(self) -> None:
        """Starts the journal. Everything that a later run relies on must be on disk."""
        sync_folder(self.scratch)
        with durable_file(self._journal) as descriptor:
            write_all(descriptor, json.dumps({"digest": self._digest}).encode() + b"\n")
        sync_folder(self.scratch)

    def record(self, steps: Mapping[str, list[str]]) -> None:
        """Adds finished steps to the journal. Their bytes must already be on disk."""
        text = "".join(json.dumps([step, values]) + "\n" for step, values in steps.items())
        descriptor = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        try:
            write_all(descriptor, text.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.done.update(steps)

    def publish(self) -> None:
        """Gives the finished content its final name and removes the rest."""
        for folder in (self.content, *(each for each in self.content.rglob("*") if each.is_dir())):
            sync_folder(folder)
        if os.path.lexists(self.path):  # made meanwhile; a rename would replace a file
            raise CheckpointError(f"{self.path}: exists already; the work done lies in {self.content}")
        os.rename(self._made, self.path)
        sync_folder(self.path.parent)
        self._tidy(True)

    def _exists(self) -> CheckpointError:
        return CheckpointError(f"{self.path}: exists already; a checkpoint never overwrites anything")

    @property
    def _made(self) -> Path:
        """Path of the content that becomes `path`."""
        return self.content / self._only if self._only else self.content

    def _tidy(self, renames: bool) -> None:
        """Removes the scratch folder; another process that finds the work done may do so at the same time.

        An error here is not reported: the work is done, and the same command recognises that by the remains.
        """
        if renames:
            try:
                os.rename(self.scratch, self._tidied)
            except OSError:  # another entry has that name
                remove_own_folder(self.scratch, MADE_NAMES)
        remove_own_folder(self._tidied, MADE_NAMES)

    def _locked(self) -> int:
        """Makes the scratch folder, locks it, and returns its descriptor."""
        while True:
            try:
                self.scratch.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileExistsError):
                    self.scratch.mkdir(0o700)  # no other user can put a link into it
                descriptor = self._opened()
                with suppress(OSError):  # an older version may have made it accessible to others
                    os.fchmod(descriptor, 0o700)
            except OSError as error:
                vanished = isinstance(error, FileNotFoundError)
                if vanished and self.path.parent.is_dir() and not os.path.lexists(self.scratch):
                    continue  # another process has just removed it
                where = error.filename or self.scratch
                raise CheckpointError(f"{self.path}: not written: {error.strerror} ({where})") from error
            try:
                self._lock(descriptor)
            except CheckpointError:
                os.close(descriptor)
                raise
            if self._is_scratch(descriptor):
                return descriptor
            os.close(descriptor)  # its last owner has just renamed or removed the folder

    def _opened(self) -> int:
        try:
            return open_own_folder(self.scratch)
        except ForeignFolderError as error:
            raise self._refused(str(error)) from error

    def _refuse_strangers(self, descriptor: int) -> None:
        """Checks that everything in the scratch folder belongs to a merge or an export, and is not a link."""
        for name in sorted(os.listdir(descriptor)):
            kind = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
            known = {_CONTENT: stat.S_ISDIR, JOURNAL: stat.S_ISREG}.get(name)
            if not (known and known(kind)) and not name.startswith(_SILLY):
                raise self._refused(
                    f"holds {name}{', a link' * stat.S_ISLNK(kind)}, which is not of this work"
                )

    def _refused(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.scratch}: {why}; the work on {self.path.name} goes there until it is done. Nothing was "
            "touched; move it away, or give the target another name"
        )

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return  # a file system without locks
            raise CheckpointError(f"{self.path}: another process is writing it; wait for its end") from error

    def _is_scratch(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self.scratch))
        except FileNotFoundError:
            return False

    def _read_journal(self) -> dict[str, list[str]] | None:
        """Returns the finished steps of this work, or None if it has no journal."""
        if not is_real_folder(self.scratch):
            return None
        try:
            if not stat.S_ISREG(os.lstat(self._journal).st_mode):  # opening a pipe would wait
                return None
            head, *lines = self._journal.read_bytes().split(b"\n")
        except FileNotFoundError:
            return None
        if head != json.dumps({"digest": self._digest}).encode():
            return None
        return dict(filter(None, map(_step_of, lines)))

    def _end_journal(self) -> None:
        """Removes what follows the last complete line, so that the next entry begins a line."""
        descriptor = os.open(self._journal, os.O_RDWR)
        try:
            whole = self._journal.read_bytes().rfind(b"\n") + 1
            os.ftruncate(descriptor, whole)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _step_of(line: bytes) -> tuple[str, list[str]] | None:
    """Parses a line of the journal.

    None for a line that a kill or a full disk cut off, whose step is then repeated.
    """
    try:
        step, values = json.loads(line)
    except (ValueError, TypeError):  # not JSON, or not of two parts
        return None
    whole = isinstance(step, str) and isinstance(values, list) and all(isinstance(v, str) for v in values)
    return (step, values) if whole else None
