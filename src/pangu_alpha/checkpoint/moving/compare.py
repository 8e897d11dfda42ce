"""Compares two checkpoints of any form, or one with its checksums, in bounded memory.

Reads by names and boxes; does not know how a form is stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pangu_alpha.checkpoint.foreign.torch.torch_file import damaged_entries, is_torch_file
from pangu_alpha.checkpoint.moving.reading import (
    Files,
    PieceReader,
    coverage_problems,
    is_transposed,
    read_box,
    row_boxes,
)
from pangu_alpha.checkpoint.native.distributed import COPIES
from pangu_alpha.checkpoint.native.format import MARKER, read_manifest
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError, find_damage
from pangu_alpha.checkpoint.tensors import Box, Piece, Source, Stored, whole

_ROWS = 4 << 20  # elements compared at a time
_TURNED = 32 << 20  # the same if one side is stored transposed and must be read whole for every part
_EXACT = ("float32", "float16", "bfloat16")  # types whose values float32 represents exactly
_READ = 2 << 20  # elements read at a time to verify

Progress = Callable[[int], object]


@dataclass(frozen=True)
class Difference:
    """A difference between two checkpoints in one tensor.

    Args:
        stem: "model" or "optimizer".
        name: Our name of the tensor; empty if one checkpoint has no tensors of the stem at all.
        kind: "missing" or "extra" in the second checkpoint, "shape" or "values".
        detail: Description of both sides in words.
        largest: Largest absolute difference of values; infinite where only one side is finite.
        place: Index of that element.
    """

    stem: str
    name: str
    kind: str
    detail: str = ""
    largest: float = 0.0
    place: tuple[int, ...] = ()


def compare(
    first: Source, second: Source, tolerance: float = 0.0, progress: Progress = lambda _: None
) -> Iterator[Difference]:
    """Yields every difference, tensor by tensor.

    Args:
        second: The checkpoint to compare with, of any form.
        tolerance: Absolute difference that is accepted. Two NaN at the same place are equal.
        progress: Called with the number of elements compared.

    Raises:
        CheckpointError: A file is truncated or cannot be read.
    """
    for stem in (*first.tensors, *(stem for stem in second.tensors if stem not in first.tensors)):
        ours, theirs = first.tensors.get(stem, {}), second.tensors.get(stem, {})
        if not (ours and theirs):
            side, kind = (first, "missing") if ours else (second, "extra")
            yield Difference(stem, "", kind, f"all {len(ours or theirs)} tensors here only: {side.path}")
            continue
        for name in ours:
            if name not in theirs:
                yield Difference(stem, name, "missing", f"{list(ours[name].shape)} here only: {first.path}")
            elif ours[name].shape != theirs[name].shape:
                said = f"{list(ours[name].shape)} and {list(theirs[name].shape)}"
                yield Difference(stem, name, "shape", said)
            elif found := _compare_values(name, ours[name], theirs[name], tolerance, progress):
                yield Difference(stem, name, "values", *found)
        for name in theirs:
            if name not in ours:
                yield Difference(stem, name, "extra", f"{list(theirs[name].shape)} here only: {second.path}")


def damage(source: Source, progress: Progress = lambda _: None) -> Iterator[str]:
    """Reads a whole checkpoint and yields a sentence for everything that contradicts its checksums.

    Args:
        source: An opened checkpoint; opening has already compared headers, manifests and sizes.
        progress: Called with the number of bytes read.
    """
    pieces: list[tuple[str, Piece]] = []
    for group in source.tensors.values():
        for name, stored in group.items():
            yield from coverage_problems(name, stored)
            pieces += [(name, piece) for piece in stored.pieces]
    with Files() as files:
        for name, piece in pieces:
            try:
                _read(name, piece, files, progress)
            except CheckpointError as error:
                yield str(error)
    for file in sorted({piece.file for _, piece in pieces if not piece.checksum}):
        if is_torch_file(file):
            yield from damaged_entries(file)
    for step in sorted({piece.file.parent.parent for _, piece in pieces}):
        yield from _damaged_copies(step)


def _damaged_copies(step: Path) -> Iterator[str]:
    """Yields what is wrong with the copies of other ranks' slices in node-local parts."""
    for part in sorted(step.glob("rank_*")):
        if (part / MARKER).is_file():
            files = read_manifest(part).files
            for stem in (stem for stem in files if stem.endswith(COPIES)):
                file = part / f"{stem}.safetensors"
                yield from (f"{part}/{said}" for said in find_damage(file, files[stem], deep=True))


def unchecked(source: Source) -> list[Path]:
    """Returns the files of a checkpoint whose tensors have no checksum that `damage` could compare."""
    files = {
        piece.file
        for group in source.tensors.values()
        for stored in group.values()
        for piece in stored.pieces
        if not piece.checksum
    }
    return sorted(file for file in files if not is_torch_file(file))


def _read(name: str, piece: Piece, files: Files, progress: Progress) -> None:
    plain = piece.flipped if piece.transposed else piece
    reader = PieceReader(name, plain, files, check=True)
    for box in row_boxes(plain.box, _READ):
        progress(reader.rows(box).nbytes)


def _compare_values(
    name: str, one: Stored, other: Stored, tolerance: float, progress: Progress
) -> tuple[str, float, tuple[int, ...]] | None:
    """Returns description, size and index of the largest difference above the tolerance."""
    exact = all(piece.dtype in _EXACT for stored in (one, other) for piece in stored.pieces)
    largest, count = -1.0, 0
    place: tuple[int, ...] = ()
    for box in _boxes(one, other):
        left, right = (
            read_box(s, box, np.float32 if exact else np.float64, False, name) for s in (one, other)
        )
        progress(box.size)
        if np.array_equal(left, right):
            continue
        distance = _distance(left, right)
        count += int(np.count_nonzero(distance > tolerance))
        if (most := float(distance.max(initial=0.0))) > max(largest, tolerance):
            index = np.unravel_index(int(distance.argmax()), distance.shape)
            largest = most
            place = tuple(int(at + begin) for at, begin in zip(index, box.start, strict=True))
    if not count:
        return None
    return f"{count:,} of {math.prod(one.shape):,} elements", largest, place


def _distance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns |left - right|: 0 for two NaN and equal infinities, infinite where only one side is finite."""
    with np.errstate(invalid="ignore"):
        distance = np.abs(left.astype(np.float64) - right)
    distance[(left == right) | (np.isnan(left) & np.isnan(right))] = 0.0
    distance[np.isnan(distance)] = math.inf
    return distance


def _boxes(one: Stored, other: Stored) -> Iterator[Box]:
    """Yields boxes that both sides can read without reading much else."""
    turned = [is_transposed(stored) for stored in (one, other)]
    if all(turned):
        yield from (box.flipped for box in row_boxes(whole(one.shape).flipped, _ROWS))
    else:
        yield from row_boxes(whole(one.shape), _TURNED if any(turned) else _ROWS)
