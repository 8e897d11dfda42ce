"""Replays training that continues under another plan, with the checkpoint code that training uses.

The ranks of the first plan write a checkpoint as training does; those of the second start from it, and must
compute what one process computes that trained on the same samples without interruption.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.reshard import reshard
from pangu_alpha.checkpoint.naming import MOMENTS
from pangu_alpha.checkpoint.native.distributed import SharedParts, part_name
from pangu_alpha.checkpoint.native.durable import remove_own_folder, writer_name
from pangu_alpha.checkpoint.native.format import Manifest
from pangu_alpha.checkpoint.native.store import CheckpointStore
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.parallel.layout import Layout, layouts, written_slices
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.replay.processes import ReplayError
from pangu_alpha.proof.replay.replay import ReplayReport, Setting, Start, replay
from pangu_alpha.proof.replay.rows import places
from pangu_alpha.proof.replay.suite import Change
from pangu_alpha.proof.replay.worker import STATES

_MADE = ("after", "before")  # folders in checkpoints/


def replay_change(name: str, change: Change, folder: Path, steps: int = 3) -> Iterator[ReplayReport]:
    """Replays training before and after a change of the plan; yields a report for each part.

    Args:
        name: Name in the reports.
        folder: Folder that gets before/ and after/ (see `replay`), and checkpoints/.
        steps: Number of steps under each plan.

    Raises:
        ValueError: See `replay`; or if the checkpoint could not be written, resharded or read.
    """
    yield replay(f"{name}: before", change.before, folder / "before", Setting(steps))
    setting = Setting(steps, Start(open_source(checkpoint(change, folder, steps)), change.before, steps))
    yield replay(f"{name}: after", change.after, folder / "after", setting)


def checkpoint(change: Change, folder: Path, steps: int) -> Path:
    """Makes the checkpoint from which the second plan starts, out of the first plan's replay in before/.

    Args:
        folder: Folder with before/; checkpoints/before and checkpoints/after in it are made anew.
        steps: Number of steps done under the first plan.

    Raises:
        ValueError: If something else lies in the place of these folders, or they cannot be removed.
    """
    root = folder / "checkpoints"
    remove_own_folder(root, _MADE)
    for path in (root / name for name in _MADE):
        if os.path.lexists(path) or root.is_symlink():
            raise ReplayError(
                f"{path}: not of an earlier replay, or cannot be removed; give another --output"
            )
    saved = save(change.before, folder / "before", steps, root / "before")
    if not change.resharded:
        return saved
    target = root / "after"
    reshard(open_source(saved), target, change.after.plan, limits=Limits(progress=False))
    return target


def save(job: Job, folder: Path, steps: int, root: Path) -> Path:
    """Writes the slices that all ranks of a replay hold at its end, each rank its own.

    Args:
        job: The job that was replayed from its initial values.
        folder: Folder of the replay.
        steps: Number of steps done.
        root: Folder of the checkpoints.

    Returns:
        The path of the checkpoint.
    """
    place = places(job, steps)[-1]
    config = {
        "model": to_mapping(job.model),
        "optim": to_mapping(job.optim),
        "parallel": to_mapping(job.plan),
    }
    path, placed = root, layouts(job.model, job.plan)
    for rank in reversed(range(job.plan.devices)):  # rank 0 comes last, as it waits for the others' parts
        states = np.load(folder / part_name(rank) / STATES)
        tensors, slices = _slices(job, placed, rank, states, f"{steps - 1}/state/")
        manifest = Manifest(place.step, place.samples, config, slices=slices)
        parts = SharedParts(CheckpointStore(root), rank, job.plan.devices, writer_name())
        path = parts.save(tensors, manifest)
    return path


def _slices(
    job: Job, placed: Mapping[str, Layout], rank: int, states: Mapping[str, np.ndarray], prefix: str
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, Any]]]:
    """The tensors that a rank writes, by stem and name; and their places, as in Manifest.slices."""
    tensors: dict[str, dict[str, np.ndarray]] = {}
    slices: dict[str, dict[str, Any]] = {}
    shapes = parameter_shapes(job.model)
    for name, start in written_slices(placed, job.plan, rank).items():
        for stem, kind in (("model", ""), *(("optimizer", moment) for moment in MOMENTS)):
            values = states[prefix + kind + name]
            assert values.shape == placed[name].slice_shape, (name, values.shape, placed[name])
            tensors.setdefault(stem, {})[kind + name] = values
            slices.setdefault(stem, {})[kind + name] = {"start": [*start], "shape": [*shapes[name]]}
    return tensors, slices
