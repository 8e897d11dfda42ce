"""The checkpoints of one run: which exist, which is the newest complete one, and which may be removed.

Knows folders with names such as step_00001000; format.py knows their content. Removes only older complete
checkpoints that the retention rule does not keep, and what dead processes left half-written.
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
        """Returns the arrays of all processes, by rank."""


class Alone:
    """A group of one process."""

    rank = 0
    size = 1

    def gather(self, array: np.ndarray) -> np.ndarray:
        """Returns the array as that of the only rank."""
        return array[None]


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run.

    Args:
        root: Their folder; made by the first save.
        keep_last: Number of newest complete checkpoints that are kept.
        keep_every: Checkpoints whose step is a multiple of this are kept for ever; None keeps no others.
    """

    root: Path
    keep_last: int = 2
    keep_every: int | None = None

    def path(self, step: int) -> Path:
        """Returns the folder of a step's checkpoint, whether it exists or not."""
        return Path(self.root) / step_name(step)

    def steps(self) -> list[int]:
        """Returns the steps that have a folder, complete or not, in ascending order."""
        root = Path(self.root)
        found = (step_of(path.name) for path in (root.iterdir() if root.is_dir() else ()))
        return sorted(step for step in found if step is not None)

    def save(self, tensors: Mapping[str, Tensors], manifest: Manifest) -> Path:
        """Writes the checkpoint of `manifest.step`, then removes those that the retention rule does not keep.

        An existing checkpoint of the same step is replaced when the new one is complete; if it is damaged, it
        is renamed and not removed.

        Args:
            tensors: Arrays by name for every file's stem, for example {"model": ..., "optimizer": ...}.

        Returns:
            The checkpoint's folder.

        Raises:
            CheckpointError: The checkpoint could not be written; all earlier ones are still there.
        """
        path = self.path(manifest.step)
        self.tidy()
        aside = _free_name(path, "aside") if os.path.lexists(path) else None
        write_checkpoint(path, tensors, manifest, aside)
        self._settle(path, aside, manifest.step)
        return path

    def publish(self, scratch: Path, step: int) -> Path:
        """Makes a finished scratch folder the checkpoint of a step, and then does the same as `save`.

        Raises:
            OSError: The rename failed; `scratch` is still there.
        """
        path = self.path(step)
        aside = _free_name(path, "aside") if os.path.lexists(path) else None
        publish_folder(scratch, path, aside)
        self._settle(path, aside, step)
        return path

    def tidy(self) -> None:
        """Removes folders that dead processes left half-written, and restores those that they set aside."""
        for scratch in scratch_folders(Path(self.root)):
            if is_abandoned(scratch):
                logger.warning("%s: removed: its writer is gone and never finished it", scratch)
                remove_quietly(scratch)
        self._undo_replacements()

    def newest(self, group: Group | None = None) -> Path | None:
        """Returns the newest complete checkpoint after verifying every byte of it, or None if there is none.

        Logs a warning for every newer checkpoint that is damaged or unfinished.

        Args:
            group: Processes that all call this method and share the reading; all get the same result.
        """
        group = group or Alone()
        if group.rank == 0:
            self._undo_replacements()
            for scratch in scratch_folders(Path(self.root)):
                logger.warning("%s: passed over: its writing was never finished", scratch)
        step = agree_on_newest(group, self.steps(), lambda step: self._fingerprint(step, group))
        return None if step is None else self.path(step)

    def _fingerprint(self, step: int, group: Group) -> int:
        """Returns a fingerprint of a step's complete checkpoint; 0, and a warning, if it is incomplete."""
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
        """Restores a folder's name if the save that set it aside died before the new one took its place."""
        root = Path(self.root)
        for aside in sorted(root.iterdir() if root.is_dir() else (), reverse=True):
            name = replaced_name(aside.name)
            if name is not None and not os.path.lexists(path := root / name):
                logger.warning("%s: back in its place: the save that was to replace it was killed", path)
                aside.rename(path)

    def _prune(self, saved: int) -> None:
        """Removes complete checkpoints before `saved` that the rule does not keep.

        Later steps stay: they belong to another course of the run, which was resumed from an earlier step.
        """
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
        """Returns, of the steps with complete checkpoints, those that the retention rule does not keep."""
        return [
            step
            for step in sorted(whole)[: -self.keep_last]
            if not (self.keep_every and step % self.keep_every == 0)
        ]


def agree_on_newest(group: Group, steps: Iterable[int], print_of: Callable[[int], int]) -> int | None:
    """Returns the newest step whose checkpoint all processes find complete and identical, or None.

    Args:
        group: Processes that all call this function.
        steps: Steps that this process knows.
        print_of: Verifies this process's share of a step and returns its fingerprint, or 0 if incomplete.
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
    """Returns a positive number of 60 bits that identifies the data."""
    return int(checksum(data)[:15], 16) + 1


def verify_share(path: Path, group: Group) -> Manifest:
    """Verifies every byte of a checkpoint, each process of a group its share of the files.

    Raises:
        CheckpointError: This process's share is damaged or incomplete; see `read_checkpoint`.
    """
    manifest = read_manifest(path)
    verify = group.rank == 0 or bool(manifest.parts)
    read_checkpoint(path, verify, parts=sorted(manifest.parts)[group.rank :: group.size])
    return manifest


def resolve_resume(resume: str, store: CheckpointStore, group: Group | None = None) -> Path | None:
    """Decides where a run begins.

    Args:
        resume: "never" starts anew, and is refused if a checkpoint exists; "auto" continues from the newest
            complete checkpoint, or starts anew if there is none; anything else is a checkpoint's path.
        store: The run's own checkpoints, to which "never" and "auto" refer.
        group: See `CheckpointStore.newest`.

    Returns:
        A complete checkpoint, every byte of it verified; or a path with a checkpoint of another form, which
            is
        not verified; or None to start anew.

    Raises:
        CheckpointError: With "never", a checkpoint exists; with "auto", none of the existing ones is
            complete; with a path, the checkpoint is missing, unfinished, of a newer format, truncated or
            corrupted.
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
    """Whether a path exists and is not a checkpoint of our form, not even an incomplete one."""
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
    """Removes the checkpoint that was replaced; if it is damaged, keeps it under a name that says so."""
    try:
        read_checkpoint(aside)
    except CheckpointError as error:
        damaged = _free_name(path, "damaged")
        aside.rename(damaged)
        reason = str(error).replace(str(aside), damaged.name)  # replaces its temporary name
        logger.warning("replaced, kept as %s, remove it by hand: %s", damaged.name, reason)
    else:
        remove_quietly(aside)


def remove_quietly(path: Path) -> None:
    """Removes a folder, or logs a warning that this failed; of a link, only the link is removed."""
    if path.is_symlink():
        logger.warning("%s: a link, removed; what it points to, %s, stays", path, os.readlink(path))
    try:
        remove_folder(path)
    except OSError as error:  # the new checkpoint is complete, so the run goes on
        logger.warning("%s: could not be removed (%s); remove it by hand", path, error.strerror or error)
