"""Folders rank_0, rank_1, ... as MindSpore's ModelCheckpoint fills them: which files make up one save.

Knows names of files, not their content.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pangu_alpha.checkpoint.native.tensor_file import CheckpointError

_RANK = re.compile(r"rank_(\d{1,6})")
# PREFIX-EPOCH_STEP. MindSpore 2.9 adds _1, _2, ... to PREFIX where files of an earlier start lie already.
_SAVED = re.compile(r"(?P<prefix>.*)-(?P<epoch>\d{1,18})_(?P<step>\d{1,18})")


class Save(NamedTuple):
    """The parts of the file names of one save.

    Args:
        prefix: With {rank} in the place of the rank's number if the name contains it, as in the official
            code.
        step: Step within the epoch.
    """

    prefix: str
    epoch: int
    step: int


def rank_folders(path: Path) -> dict[int, Path]:
    """Returns the ranks' folders at a path; nothing if the path is not a folder."""
    if not path.is_dir():
        return {}
    matches = ((_RANK.fullmatch(one.name), one) for one in path.iterdir())
    return {int(match[1]): one for match, one in matches if match and one.is_dir()}


def saved_files(folder: Path) -> list[Path]:
    """Returns the checkpoints in a rank's folder."""
    return sorted(
        one
        for one in folder.iterdir()
        if one.suffix in (".ckpt", ".safetensors")
        and not one.stem.endswith("_breakpoint")
        and "strategy" not in one.name
    )


def choose_save(path: Path, folders: Mapping[int, Path]) -> tuple[dict[int, Path], list[str]]:
    """Returns the newest save that every rank has.

    Args:
        path: The folder around the ranks' folders, for errors.
        folders: By rank.

    Returns:
        The ranks' files, and sentences for the user.

    Raises:
        CheckpointError: A rank has no save, the ranks have none in common, or a rank has that epoch and step
            under several names.
    """
    found = {rank: saved_files(folder) for rank, folder in folders.items()}
    if empty := [rank for rank, files in found.items() if not files]:
        raise CheckpointError(f"{path}: no checkpoint in the folders of ranks {ranges(empty)}")
    saves = {rank: dict(_saves(rank, files)) for rank, files in found.items()}
    single = all(len(files) == 1 for files in found.values())
    if single and not all(saves.values()):
        return {rank: files[0] for rank, files in found.items()}, []
    common = set.intersection(*map(set, saves.values()))
    if not common:
        raise CheckpointError(
            f"{path}: no save PREFIX-EPOCH_STEP that all ranks have; leave the files of one save"
        )
    newest = max(common, key=lambda save: (save.epoch, save.step, save.prefix))
    _refuse_doubles(path, newest, found)
    note = f"several saves; took the newest that all ranks have, {newest.prefix}-{newest.epoch}_{newest.step}"
    return {rank: own[newest] for rank, own in saves.items()}, [] if single else [note]


def ranges(numbers: Sequence[int]) -> str:
    """Returns numbers as text: "3, 7 to 9"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _saves(rank: int, files: Sequence[Path]) -> Iterator[tuple[Save, Path]]:
    """Yields the possible meanings of each name: any number in a prefix that equals the rank may be it."""
    for file in files:
        if match := _SAVED.fullmatch(file.stem):
            prefix, numbers = match["prefix"], (int(match["epoch"]), int(match["step"]))
            yield Save(prefix, *numbers), file
            for digits in re.finditer(r"\d+", prefix):
                if digits[0] == str(rank):
                    yield Save(f"{prefix[: digits.start()]}{{rank}}{prefix[digits.end() :]}", *numbers), file


def _refuse_doubles(path: Path, save: Save, found: Mapping[int, Sequence[Path]]) -> None:
    """Refuses an epoch and step under two names: they are of two starts, and either may be wanted."""
    for rank, files in sorted(found.items()):
        matches = ((_SAVED.fullmatch(file.stem), file.name) for file in files)
        same = [
            name
            for match, name in matches
            if match and (int(match["epoch"]), int(match["step"])) == (save.epoch, save.step)
        ]
        if len(same) > 1:
            raise CheckpointError(
                f"{path}: rank {rank} has epoch {save.epoch} step {save.step} under several names, "
                f"{', '.join(same)}: of several starts of a run; leave the files of one of them"
            )
