"""The series of checkpoints of one run: which are there, which is the newest whole one, which may go.

Knows folders called step_00001000; what is inside is format.py's. Deletes only older whole checkpoints
that the rule lets go, and what dead processes left half-written; anything else stays and is named.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

import numpy as np

from pangu_alpha.checkpoint.native.durable import is_abandoned, publish_folder, remove_folder, scratch_folders
from pangu_alpha.checkpoint.native.folders import replaced_name, step_name, step_of
from pangu_alpha.checkpoint.native.format import (
    MANIFEST,
    MARKER,
    Manifest,
    read_checkpoint,
    read_manifest,
    write_checkpoint,
)
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError, Tensors, checksum

logger = logging.getLogger(__name__)


class Group(Protocol):
    """The processes that resume together; parallel.world.World is one."""

    rank: int
    size: int

    def gather(self, array: np.ndarray) -> np.ndarray:
        """The arrays of all, by rank."""


class Alone:
    """A group of one."""

    rank = 0
    size = 1

    def gather(self, array: np.ndarray) -> np.ndarray:
        """The array, as that of the only rank."""
        return array[None]


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run.

    Args:
        root: Their folder; made by the first save.
        keep_last: How many of the newest whole ones stay.
        keep_every: Those whose step is a multiple of this stay for ever; None keeps none so.
    """

    root: Path
    keep_last: int = 2
    keep_every: int | None = None

    def path(self, step: int) -> Path:
        """Folder of a step's checkpoint, whether it is there or not."""
        return Path(self.root) / step_name(step)

    def steps(self) -> list[int]:
        """Steps that have a folder, whole or not, in ascending order."""
        root = Path(self.root)
        found = (step_of(path.name) for path in (root.iterdir() if root.is_dir() else ()))
        return sorted(step for step in found if step is not None)

    def save(self, tensors: Mapping[str, Tensors], manifest: Manifest) -> Path:
        """Writes the checkpoint of `manifest.step`, then removes those the rule lets go.

        One of the same step gives way once the new one stands; a damaged one is set aside, not removed.

        Args:
            tensors: Arrays by name for every file's stem, say {"model": ..., "optimizer": ...}.
            manifest: What to say about them.

        Outputs:
            The checkpoint's folder.

        Raises:
            CheckpointError: It could not be written; all earlier checkpoints are still there.
        """
        path = self.path(manifest.step)
        self.tidy()
        aside = _free_name(path, "aside") if os.path.lexists(path) else None
        write_checkpoint(path, tensors, manifest, aside)
        self._settle(path, aside, manifest.step)
        return path

    def publish(self, scratch: Path, step: int) -> Path:
        """Makes a finished scratch folder the checkpoint of a step; then as `save`.

        Raises:
            OSError: The disk does not take it; then `scratch` is still there.
        """
        path = self.path(step)
        aside = _free_name(path, "aside") if os.path.lexists(path) else None
        publish_folder(scratch, path, aside)
        self._settle(path, aside, step)
        return path

    def tidy(self) -> None:
        """Ends what processes that are gone began: half-written folders go, folders set aside come back."""
        for scratch in scratch_folders(Path(self.root)):
            if is_abandoned(scratch):
                logger.warning("%s: removed: its writer is gone and never finished it", scratch)
                remove_quietly(scratch)
        self._undo_replacements()

    def newest(self, group: Group | None = None) -> Path | None:
        """The newest whole checkpoint, every byte of it verified; None where there is none.

        Logs a warning for every newer one that is damaged or unfinished.

        Args:
            group: Processes that all call this and share the reading; they get the same answer.
        """
        group = group or Alone()
        if group.rank == 0:
            self._undo_replacements()
            for scratch in scratch_folders(Path(self.root)):
                logger.warning("%s: passed over: its writing was never finished", scratch)
        step = agree_on_newest(group, self.steps(), lambda step: self._fingerprint(step, group))
        return None if step is None else self.path(step)

    def _fingerprint(self, step: int, group: Group) -> int:
        """What tells a step's whole checkpoint from any other; 0, and a warning, if it is not whole."""
        path = self.path(step)
        try:
            found = verify_share(path, group).step
            if found != step:
                raise CheckpointError(f"{path}: its manifest says step {found}")
            return fingerprint((path / MARKER).read_bytes())
        except (CheckpointError, OSError) as error:
            logger.warning("passed over: %s", error)
            return 0

    def _settle(self, path: Path, aside: Path | None, step: int) -> None:
        if aside is not None:
            _dispose(aside, path)
        self._prune(step)

    def _undo_replacements(self) -> None:
        """Gives back its name to what was set aside by a save killed before the new one took its place."""
        root = Path(self.root)
        for aside in sorted(root.iterdir() if root.is_dir() else (), reverse=True):
            name = replaced_name(aside.name)
            if name is not None and not os.path.lexists(path := root / name):
                logger.warning("%s: back in its place: the save that was to replace it was killed", path)
                aside.rename(path)

    def _prune(self, saved: int) -> None:
        """Removes whole checkpoints before `saved` beyond the rule; later ones are of another course."""
        whole = []
        for step in (step for step in self.steps() if step < saved):
            try:
                read_checkpoint(self.path(step), verify=False)
                whole.append(step)
            except CheckpointError as error:
                logger.warning("left where it is, remove it by hand: %s", error)
        for step in self.outdated([*whole, saved]):
            remove_quietly(self.path(step))

    def outdated(self, whole: Iterable[int]) -> list[int]:
        """Of the steps whose checkpoints are whole, those that the rule lets go."""
        return [
            step
            for step in sorted(whole)[: -self.keep_last]
            if not (self.keep_every and step % self.keep_every == 0)
        ]


def agree_on_newest(group: Group, steps: Iterable[int], print_of: Callable[[int], int]) -> int | None:
    """The newest step whose checkpoint all processes of a group find whole, and the same; None without one.

    Args:
        group: All of them call this.
        steps: Those that this process knows.
        print_of: Verifies this process's share of a step; gives its fingerprint, 0 where it is not whole.
    """
    limit = 1 << 62
    while True:
        mine = max((step for step in steps if step < limit), default=-1)
        limit = int(group.gather(np.array(mine, np.int64)).max())
        if limit < 0:
            return None
        prints = group.gather(np.array(print_of(limit), np.int64))
        if prints.min() == prints.max() != 0:
            return limit


def fingerprint(data: bytes) -> int:
    """A positive number of 60 bits that tells contents apart."""
    return int(checksum(data)[:15], 16) + 1


def verify_share(path: Path, group: Group) -> Manifest:
    """Verifies every byte of a checkpoint, each process of a group its share of the files.

    Raises:
        CheckpointError: This process's share is not whole; see `read_checkpoint`.
    """
    manifest = read_manifest(path)
    verify = group.rank == 0 or bool(manifest.parts)
    read_checkpoint(path, verify, parts=sorted(manifest.parts)[group.rank :: group.size])
    return manifest


def resolve_resume(resume: str, store: CheckpointStore, group: Group | None = None) -> Path | None:
    """Decides where a run begins.

    Args:
        resume: "never" starts anew and refuses where a checkpoint lies; "auto" continues from the newest
            whole checkpoint, or starts anew where none lies; anything else is a checkpoint's path.
        store: The run's own checkpoints.
        group: See `CheckpointStore.newest`.

    Outputs:
        A whole checkpoint, every byte of it verified; a path of another form, as it is; or None to start
        anew.

    Raises:
        CheckpointError: "never", and a checkpoint lies there; "auto", and none that lie there is whole; or
            the path's checkpoint is missing, unfinished, of a newer format, cut or flipped, with the exact
            reason.
    """
    if resume == "auto":
        newest = store.newest(group)
        if newest is None and (steps := store.steps()):
            raise CheckpointError(
                f"{store.root}: none of its {len(steps)} checkpoints is whole, see the warnings; mend one, "
                "or to start anew, move them away or give another output folder"
            )
        return newest
    if resume != "never":
        return _verified(Path(resume), store, group or Alone())
    if steps := store.steps():
        raise CheckpointError(
            f"{store.root}: holds {len(steps)} checkpoints, the last of step {steps[-1]}, and resume is "
            "'never'; give another output folder, or --resume auto (run.resume=auto) to continue"
        )
    return None


def is_foreign(path: Path) -> bool:
    """Whether what lies at a path is none of our checkpoints, whole or not."""
    return path.exists() and not ((path / MARKER).exists() or (path / MANIFEST).exists())


def _verified(path: Path, store: CheckpointStore, group: Group) -> Path:
    for inner in map(CheckpointStore, (path, path / "checkpoints")):
        if steps := inner.steps():
            example = inner.path(steps[-1])
            raise CheckpointError(
                f"{path}: holds checkpoints but is none; give one of them, such as {example}"
            )
    if is_foreign(path):
        return path
    step = verify_share(path, group).step
    later = [other for other in store.steps() if other > step]
    if later:
        logger.warning(
            "%s: holds later checkpoints than step %d, up to step %d, which a later --resume auto would "
            "take; move them away or give another output folder",
            store.root,
            step,
            later[-1],
        )
    return path


def _free_name(path: Path, word: str) -> Path:
    names = (path.with_name(f"{path.name}.{word}-{number}") for number in count(1))
    return next(name for name in names if not os.path.lexists(name))


def _dispose(aside: Path, path: Path) -> None:
    """Removes what `path` was before its replacement; if damaged, keeps it under a name that says so."""
    try:
        read_checkpoint(aside)
    except CheckpointError as error:
        damaged = _free_name(path, "damaged")
        aside.rename(damaged)
        reason = str(error).replace(str(aside), damaged.name)  # its name until now
        logger.warning("replaced, kept as %s, remove it by hand: %s", damaged.name, reason)
    else:
        remove_quietly(aside)


def remove_quietly(path: Path) -> None:
    """Removes a folder, or logs a warning that it could not be; of a link, only the link."""
    if path.is_symlink():
        logger.warning("%s: a link, removed; what it points to, %s, stays", path, os.readlink(path))
    try:
        remove_folder(path)
    except OSError as error:  # the new checkpoint stands: the run goes on
        logger.warning("%s: could not be removed (%s); remove it by hand", path, error.strerror or error)
