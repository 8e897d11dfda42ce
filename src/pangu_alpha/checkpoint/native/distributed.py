"""Saves a checkpoint by many ranks: each writes its own part, and all parts together are the checkpoint.

Ranks exchange data only through files, so saving can run in threads beside the training. On storage that
all ranks share, rank 0 publishes the step's folder; on node-local storage there are only parts, and the
ranks agree on one when they resume.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.native.durable import is_abandoned, scratch_folders, scratch_path, writer_name
from pangu_alpha.checkpoint.native.folders import part_name
from pangu_alpha.checkpoint.native.format import (
    MANIFEST,
    Manifest,
    read_checkpoint,
    read_manifest,
    seal_folder,
    write_checkpoint,
)
from pangu_alpha.checkpoint.native.store import (
    CheckpointStore,
    Group,
    agree_on_newest,
    fingerprint,
    remove_quietly,
)
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError, Tensors, checksum, locate_tensors
from pangu_alpha.checkpoint.tensors import Box, Piece, Source, Stored, whole

logger = logging.getLogger(__name__)

COPIES = "_copies"  # suffix of a node-local part's stems with slices that other ranks also write
_PATIENCE = 1800.0  # seconds that rank 0 waits for the last part after its own
_POLL = (0.02, 1.0)  # seconds between two checks, at first and at most
_OTHER_PLAN = -1  # sent instead of a fingerprint, which is positive
_NAME_BYTES = 512  # of a writer's name as ranks exchange it


def agree_on_attempt(group: Group) -> str:
    """Returns one name for this start of the job, the same on all ranks: the name of rank 0's process."""
    mine = np.frombuffer(writer_name().encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0"), np.uint8)
    return group.gather(mine)[0].tobytes().rstrip(b"\0").decode()


def check_shared(root: Path, attempt: str, group: Group) -> None:
    """Checks that all ranks see the same folder, so that no run starts anew beside its checkpoints.

    Raises:
        CheckpointError: Some ranks do not see the file that rank 0 wrote.
    """
    sign = root / f".shared-{attempt}"
    if group.rank == 0:
        root.mkdir(parents=True, exist_ok=True)
        sign.touch()
    group.gather(np.zeros(1, np.int64))  # a barrier: all ranks wait for rank 0
    seen = group.gather(np.array(sign.exists(), np.int64))
    if group.rank == 0:
        sign.unlink()
    if blind := [str(rank) for rank in np.flatnonzero(seen == 0)]:
        raise CheckpointError(
            f"{root}: not shared: ranks {_shorten(blind)} do not see what rank 0 writes there; give an "
            "output folder on storage that all nodes share, or run.checkpoint.storage=local"
        )


def open_part(path: Path) -> Source:
    """Describes the tensors of one rank's part in node-local storage, its copies of others' slices included.

    Raises:
        CheckpointError: The part is unfinished or damaged; tensors are not read.
    """
    manifest = read_checkpoint(path, verify=False).manifest
    tensors: dict[str, dict[str, Stored]] = {}
    for stem in manifest.slices:
        group = tensors.setdefault(stem.removesuffix(COPIES), {})
        for name, shape, piece in part_pieces(path, manifest, stem, path.name):
            group[name] = Stored(shape, (piece,))
    return Source(path, "one rank's part", manifest, tensors)


def part_pieces(
    path: Path, manifest: Manifest, stem: str, label: str
) -> Iterator[tuple[str, tuple[int, ...], Piece]]:
    """Yields the tensors of one file of a checkpoint or of a rank's part: name, shape of the whole, piece.

    Args:
        path: Folder of the checkpoint or part.
        stem: The file's name without its ending.
        label: What errors call the piece.

    Raises:
        CheckpointError: The manifest does not fit the file.
    """
    file, slices = path / f"{stem}.safetensors", manifest.slices.get(stem)
    records = manifest.files[stem].tensors if stem in manifest.files else {}
    for name, extent in locate_tensors(file).items():
        box, shape = whole(extent.shape), extent.shape
        if slices is not None:
            place = slices.get(name, {})
            box, shape = Box(tuple(place.get("start", ())), extent.shape), tuple(place.get("shape", ()))
        if name not in records or not len(box.start) == len(shape) == len(extent.shape):
            raise CheckpointError(f"{path / MANIFEST}: malformed: it does not say what {name} of {stem} is")
        where = ((extent.offset, extent.bytes),)
        yield name, shape, Piece(box, file, where, extent.dtype, False, records[name].checksum, label)


@dataclass(frozen=True)
class SharedParts:
    """Saves to storage that all ranks share.

    Until all parts are complete they lie in a scratch folder of this start of the job, so that parts of other
    starts or other plans are never mixed in.

    Args:
        rank: Rank of this process.
        ranks: Number of ranks.
        attempt: See `agree_on_attempt`.
        patience: Time that rank 0 waits for the last part. Unit: seconds.
    """

    store: CheckpointStore
    rank: int
    ranks: int
    attempt: str
    patience: float = _PATIENCE

    def save(self, tensors: Mapping[str, Tensors], manifest: Manifest) -> Path:
        """Writes this rank's part; rank 0 then waits for the other parts and publishes the checkpoint.

        Args:
            tensors: The slices that this rank writes, by stem and name; may be empty.
            manifest: The part's manifest with `slices` filled in.

        Returns:
            The step's folder. On rank 0 it already exists; on other ranks it may not yet.

        Raises:
            CheckpointError: The part could not be written, or other ranks' parts are late; earlier complete
                checkpoints are still there.
        """
        if self.rank == 0:
            self.store.tidy()
        scratch = scratch_path(self.store.path(manifest.step), self.attempt)
        manifest = dataclasses.replace(manifest, kind="part", attempt=self.attempt)
        write_checkpoint(scratch / part_name(self.rank), tensors, manifest)
        if self.rank == 0:
            self._wait(scratch)
            self._publish(scratch, manifest)
        return self.store.path(manifest.step)

    def _wait(self, scratch: Path) -> None:
        wanted = {part_name(rank) for rank in range(self.ranks)}
        deadline, pause = time.monotonic() + self.patience, _POLL[0]
        while late := sorted(wanted - {path.name for path in scratch.iterdir()}):
            if time.monotonic() > deadline:
                raise CheckpointError(
                    f"{self.store.root}: {len(late)} of {self.ranks} parts are not there after "
                    f"{self.patience:.0f} s: {_shorten(late)}; see these ranks' logs, or if their nodes do "
                    "not share this folder, set run.checkpoint.storage=local"
                )
            time.sleep(pause)
            pause = min(2 * pause, _POLL[1])

    def _publish(self, scratch: Path, manifest: Manifest) -> None:
        parts = {}
        for name in map(part_name, range(self.ranks)):
            read_manifest(scratch / name)
            parts[name] = checksum((scratch / name / MANIFEST).read_bytes())
        whole = dataclasses.replace(manifest, kind="slices", files={}, slices={}, parts=parts)
        try:
            seal_folder(scratch, whole)
            self.store.publish(scratch, manifest.step)
        except OSError as error:
            where = error.filename or self.store.root
            raise CheckpointError(f"{scratch}: not finished: {error.strerror} ({where})") from error


@dataclass
class LocalParts:
    """Saves to storage that only the ranks of one node share.

    No process sees all parts, so a step's folder has no marker. A part holds all slices of its rank,
    including those that other ranks also write, which are in files of their own: a rank resumes from its own
    part alone.

    Args:
        store: The run's checkpoints as this node sees them.
        rank: Rank of this process.
        attempt: See `agree_on_attempt`.
        plan: The parallel plan as a plain mapping; parts of another plan are refused.
        settled: The newest step that all ranks are known to have saved; the caller updates it. Newer parts do
            not count as kept, since another rank may have nothing newer than this step.
    """

    store: CheckpointStore
    rank: int
    attempt: str
    plan: Mapping[str, Any]
    settled: int = -1

    def save(self, tensors: Mapping[str, Tensors], manifest: Manifest) -> Path:
        """Writes this rank's part, then removes parts of older steps that the retention rule does not keep.

        Args:
            tensors: By stem and name; stems that end in COPIES hold slices that other ranks also write.
            manifest: The part's manifest with `slices` filled in.

        Raises:
            CheckpointError: The part could not be written; earlier parts are still there.
        """
        self._tidy()
        manifest = dataclasses.replace(manifest, kind="part", attempt=self.attempt)
        part = self.part(manifest.step)
        aside = _aside(part) if os.path.lexists(part) else None
        write_checkpoint(part, tensors, manifest, aside)
        if aside is not None:
            remove_quietly(aside)
        self._prune()
        return part

    def part(self, step: int) -> Path:
        """Returns the folder of this rank's part of a step."""
        return self.store.path(step) / part_name(self.rank)

    def newest(self, group: Group) -> Path | None:
        """Returns this rank's part of the newest step of which all ranks have complete parts.

        All these parts are of one start of the job. None if there is no such step.

        Raises:
            CheckpointError: A rank has a part of another plan; raised on all ranks.
        """
        self._tidy()
        refused: list[Exception] = []
        step = agree_on_newest(group, self._steps(), lambda step: self._fingerprint(step, refused))
        _raise_together(self.store.root, group, refused)
        return None if step is None else self.part(step)

    def verified(self, part: Path, group: Group) -> Path:
        """Returns a part, given by path, once every rank has verified its own of the same start of the job.

        Raises:
            CheckpointError: A rank's part is damaged or of another plan, or parts are of different starts;
                raised on all ranks.
        """
        mine, refused = 0, []
        try:
            manifest = read_checkpoint(part).manifest
            self._check_plan(part, manifest)
            mine = _fingerprint_of(manifest)
        except (CheckpointError, OSError) as error:
            refused.append(error)
        _raise_together(part.parent, group, refused)
        prints = group.gather(np.array(mine, np.int64))
        if prints.min() != prints.max():
            raise CheckpointError(f"{part.parent}: the ranks' parts are not of one start of the job")
        return part

    def _steps(self) -> list[int]:
        return [step for step in self.store.steps() if self.part(step).is_dir()]

    def _fingerprint(self, step: int, refused: list[Exception]) -> int:
        part = self.part(step)
        try:
            manifest = read_checkpoint(part).manifest
        except CheckpointError as error:
            logger.warning("passed over: %s", error)
            return 0
        try:
            self._check_plan(part, manifest)
        except CheckpointError as error:
            refused.append(error)
            return _OTHER_PLAN
        return _fingerprint_of(manifest) if manifest.step == step else 0

    def _check_plan(self, part: Path, manifest: Manifest) -> None:
        if manifest.config.get("parallel") != self.plan:
            raise CheckpointError(
                f"{part}: a part of the plan {manifest.config.get('parallel')}, but the run's is "
                f"{self.plan}; put all nodes' folders together with merge_checkpoint.py on storage that all "
                "share, and resume from that"
            )

    def _tidy(self) -> None:
        for step in self.store.steps():
            part = self.part(step)
            if os.path.lexists(_aside(part)) and os.path.lexists(part):
                remove_quietly(_aside(part))
            elif os.path.lexists(_aside(part)):
                logger.warning("%s: back in its place: the save that was to replace it was killed", part)
                _aside(part).rename(part)
            for scratch in scratch_folders(self.store.path(step)):
                if f"-{part_name(self.rank)}-" in scratch.name and is_abandoned(scratch):
                    logger.warning("%s: removed: its writer is gone and never finished it", scratch)
                    remove_quietly(scratch)

    def _prune(self) -> None:
        for step in self.store.outdated(step for step in self._steps() if step <= self.settled):
            if self.store.path(step).is_symlink():  # the parts of all ranks lie elsewhere
                logger.warning("%s: a link, left with all in it; remove it by hand", self.store.path(step))
                continue
            remove_quietly(self.part(step))
            try:
                self.store.path(step).rmdir()
            except OSError:  # not empty: other ranks of the node still have parts in it
                continue


def _raise_together(where: Path, group: Group, refused: Sequence[Exception]) -> None:
    """Raises an error on all ranks if one rank cannot go on, so that none waits for it.

    Raises:
        CheckpointError: This rank's own reason, or the fact that other ranks have one.
        OSError: This rank's own reason.
    """
    ranks = np.flatnonzero(group.gather(np.array(len(refused), np.int64)))
    if refused:
        raise refused[0]
    if len(ranks):
        listed = _shorten([str(rank) for rank in ranks])
        raise CheckpointError(f"{where}: ranks {listed} cannot use their parts; their logs say why")


def _fingerprint_of(manifest: Manifest) -> int:
    return fingerprint(f"{manifest.attempt} {manifest.step}".encode())


def _aside(part: Path) -> Path:
    return part.with_name(f"{part.name}.aside")


def _shorten(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
