"""The series of checkpoints of one run: which are there, which is the newest whole one, which may go.

Knows folders called step_00001000; what is inside is format.py's. Deletes only older whole checkpoints
that the rule lets go, and what dead processes left half-written; anything else stays and is named.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from pangu_alpha.checkpoint.durable import is_abandoned, remove_folder, scratch_folders
from pangu_alpha.checkpoint.format import Manifest, read_checkpoint, write_checkpoint
from pangu_alpha.checkpoint.tensor_file import CheckpointError, Tensors

logger = logging.getLogger(__name__)

_FOLDER = re.compile(r"step_(\d{8,})")
_ASIDE = re.compile(r"(step_\d{8,})\.aside-\d+")


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
        return Path(self.root) / f"step_{step:08d}"

    def steps(self) -> list[int]:
        """Steps that have a folder, whole or not, in ascending order."""
        root = Path(self.root)
        matches = (_FOLDER.fullmatch(path.name) for path in (root.iterdir() if root.is_dir() else ()))
        return sorted(int(match[1]) for match in matches if match)

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
        self._remove_leftovers()
        self._undo_replacements()
        aside = _free_name(path, "aside") if path.exists() else None
        write_checkpoint(path, tensors, manifest, aside)
        if aside is not None:
            _dispose(aside, path)
        self._prune(manifest.step)
        return path

    def newest(self) -> Path | None:
        """The newest whole checkpoint, every byte of it verified; None where there is none.

        Logs a warning for every newer one that is damaged or unfinished.
        """
        self._undo_replacements()
        for scratch in scratch_folders(Path(self.root)):
            logger.warning("%s: passed over: its writing was never finished", scratch)
        for step in reversed(self.steps()):
            path = self.path(step)
            try:
                found = read_checkpoint(path).manifest.step
            except CheckpointError as error:
                logger.warning("passed over: %s", error)
                continue
            if found == step:
                return path
            logger.warning("%s: passed over: its manifest says step %d", path, found)
        return None

    def _remove_leftovers(self) -> None:
        for scratch in scratch_folders(Path(self.root)):
            if is_abandoned(scratch):
                logger.warning("%s: removed: its writer is gone and never finished it", scratch)
                _remove(scratch)

    def _undo_replacements(self) -> None:
        """Gives back its name to what was set aside by a save killed before the new one took its place."""
        root = Path(self.root)
        for aside in sorted(root.iterdir() if root.is_dir() else (), reverse=True):
            match = _ASIDE.fullmatch(aside.name)
            if match and not (path := root / match[1]).exists():
                logger.warning("%s: back in its place: the save that was to replace it was killed", path)
                aside.rename(path)

    def _prune(self, saved: int) -> None:
        """Removes whole checkpoints before `saved` beyond the rule; later ones are of another course."""
        kept = 1
        for step in reversed([step for step in self.steps() if step < saved]):
            path = self.path(step)
            try:
                read_checkpoint(path, verify=False)
            except CheckpointError as error:
                logger.warning("left where it is, remove it by hand: %s", error)
                continue
            kept += 1
            if kept > self.keep_last and not (self.keep_every and step % self.keep_every == 0):
                _remove(path)


def resolve_resume(resume: str, store: CheckpointStore) -> Path | None:
    """Decides where a run begins.

    Args:
        resume: "never" starts anew and refuses where a checkpoint lies; "auto" continues from the newest
            whole checkpoint, or starts anew where there is none; anything else is a checkpoint's path.
        store: The run's own checkpoints.

    Outputs:
        A whole checkpoint, every byte of it verified, or None to start anew.

    Raises:
        CheckpointError: "never", and a checkpoint lies there; or the path's checkpoint is missing,
            unfinished, of a newer format, cut or flipped, with the exact reason.
    """
    if resume == "auto":
        return store.newest()
    if resume != "never":
        return _verified(Path(resume), store)
    if steps := store.steps():
        raise CheckpointError(
            f"{store.root}: holds {len(steps)} checkpoints, the last of step {steps[-1]}, and resume is "
            "'never'; give another output folder, or resume=auto to continue"
        )
    return None


def _verified(path: Path, store: CheckpointStore) -> Path:
    for inner in map(CheckpointStore, (path, path / "checkpoints")):
        if steps := inner.steps():
            example = inner.path(steps[-1])
            raise CheckpointError(
                f"{path}: holds checkpoints but is none; give one of them, such as {example}"
            )
    step = read_checkpoint(path).manifest.step
    later = [other for other in store.steps() if other > step]
    if later:
        logger.warning(
            "%s: holds later checkpoints than step %d, up to step %d, which a later resume=auto would take; "
            "move them away or give another output folder",
            store.root,
            step,
            later[-1],
        )
    return path


def _free_name(path: Path, word: str) -> Path:
    names = (path.with_name(f"{path.name}.{word}-{number}") for number in count(1))
    return next(name for name in names if not name.exists())


def _dispose(aside: Path, path: Path) -> None:
    """Removes what `path` was before its replacement; if damaged, keeps it under a name that says so."""
    try:
        read_checkpoint(aside)
    except CheckpointError as error:
        damaged = _free_name(path, "damaged")
        aside.rename(damaged)
        logger.warning("replaced, kept as %s, remove it by hand: %s", damaged.name, error)
    else:
        _remove(aside)


def _remove(path: Path) -> None:
    try:
        remove_folder(path)
    except OSError as error:  # the new checkpoint stands: the run goes on
        logger.warning("%s: could not be removed (%s); remove it by hand", path, error.strerror)
