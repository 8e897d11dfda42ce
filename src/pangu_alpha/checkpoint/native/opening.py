"""Opens a checkpoint of our own form: of one process, of many ranks, or of nodes without a common disk.

Opening examines names, shapes and headers. Checksums are compared when the bytes are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.checkpoint.frozen import moment_shapes
from pangu_alpha.checkpoint.naming import parameter_of
from pangu_alpha.checkpoint.native.distributed import part_pieces
from pangu_alpha.checkpoint.native.folders import newest_first, part_name, rank_of
from pangu_alpha.checkpoint.native.format import MANIFEST, MARKER, Manifest, read_checkpoint
from pangu_alpha.checkpoint.native.store import CheckpointStore
from pangu_alpha.checkpoint.native.tensor_file import checksum
from pangu_alpha.checkpoint.tensors import Box, Piece, Source, Stored
from pangu_alpha.checkpoint.untrusted import MOST_LAYERS, few, read_bytes
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import ConfigError, build
from pangu_alpha.files.shown import quoted
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.parallel.layout import layouts, slice_writers

_STEMS = ("model", "optimizer")
_MOST_RANKS = 1 << 20  # a damaged plan must not make us allocate more memory than there is
Section = TypeVar("Section", ModelConfig, ParallelPlan)


class _Part(NamedTuple):
    name: str
    path: Path
    manifest: Manifest


def is_ours(path: Path) -> bool:
    """Whether a path holds checkpoints of our form, finished or not."""
    return any(_candidates(path)) or (path / MANIFEST).is_file() or (path / MARKER).is_file()


def _candidates(path: Path) -> Iterator[Path]:
    """Yields folders that may hold a checkpoint of our form, the newest first."""
    if (path / MARKER).is_file() or any(_part_folders(path)):
        yield path
        return
    for store in map(CheckpointStore, (path, path / "checkpoints")):
        yield from map(store.path, reversed(store.steps()))


def _part_folders(path: Path) -> Iterator[Path]:
    if path.is_dir():
        ranks = {rank: each for each in path.iterdir() if (rank := rank_of(each.name)) is not None}
        yield from (ranks[rank] for rank in sorted(ranks) if (ranks[rank] / MARKER).is_file())


def open_ours(paths: Sequence[Path], boxes: Mapping[str, Box] | None) -> Source:
    """Opens the newest complete checkpoint, with notes about those that were skipped.

    Args:
        paths: Folders of nodes that each hold some ranks' parts, or a single one.
        boxes: See `checkpoint.open.open_source`.

    Raises:
        CheckpointError: None is complete; every reason is listed.
    """
    found = {path: [*_candidates(path)] for path in paths}
    for path in paths:
        if not found[path]:
            raise CheckpointError(
                f"{path}: unfinished or no checkpoint: it has no file {MARKER} and no finished part"
            )
    if all(each == [path] for path, each in found.items()):
        return _open_folders(paths, boxes)
    passed: list[str] = []
    for name in newest_first({each.name for many in found.values() for each in many}):
        try:
            folders = [each for many in found.values() for each in many if each.name == name]
            source = _open_folders(folders, boxes)
        except CheckpointError as error:
            passed.append(f"passed over: {error}")
        else:
            return replace(source, notes=(*passed, *source.notes))
    raise CheckpointError("\n  - ".join([f"{paths[0]}: none of its checkpoints is whole:", *passed]))


def _open_folders(folders: Sequence[Path], boxes: Mapping[str, Box] | None) -> Source:
    if len(folders) == 1 and (folders[0] / MARKER).is_file():
        return _open_whole(folders[0], boxes)
    parts: dict[str, _Part] = {}
    for folder in folders:
        for path in _part_folders(folder):
            manifest = read_checkpoint(path, verify=False).manifest
            if path.name in parts:
                raise CheckpointError(f"{path}: is in {parts[path.name].path.parent}, too; leave one away")
            parts[path.name] = _Part(path.name, path, manifest)
    where = ", ".join(map(str, folders))
    if not parts:
        raise CheckpointError(f"{where}: unfinished or no checkpoint: no file {MARKER}, no finished part")
    return _put_together(folders[0], where, parts)


def _open_whole(path: Path, boxes: Mapping[str, Box] | None) -> Source:
    manifest = read_checkpoint(path, verify=False, parts=()).manifest
    # Never a path: files elsewhere do not belong to the checkpoint.
    if strange := [name for name in manifest.parts if rank_of(name) is None]:
        raise CheckpointError(
            f"{path / MANIFEST}: malformed: a part is called {quoted(strange[0])}, not rank_00000"
        )
    if manifest.kind == "part":
        raise CheckpointError(f"{path}: one rank's part of a checkpoint; give the folder around it")
    if not manifest.parts:
        form = "one process's checkpoint" if manifest.kind == "training" else "weights in one file"
        return Source(path, form, manifest, _tensors([_Part("", path, manifest)]))
    form = f"slices of {len(manifest.parts)} ranks"
    if boxes is not None and (tensors := _tensors_for(boxes, path, manifest)):
        return Source(path, form, manifest, tensors)
    if "parallel" in manifest.config:
        devices = section_of(path, manifest, ParallelPlan, "parallel").devices
        if devices != len(manifest.parts):
            raise CheckpointError(
                f"{path / MANIFEST}: names the parts of {len(manifest.parts)} ranks, its plan is of {devices}"
            )
    parts = [_open_part(path / name, digest) for name, digest in sorted(manifest.parts.items())]
    return Source(path, form, manifest, _tensors(parts))


def _tensors_for(
    boxes: Mapping[str, Box], path: Path, manifest: Manifest
) -> dict[str, dict[str, Stored]] | None:
    """Returns all tensors, with the pieces of the ranks that hold the boxes; None if those are too few."""
    model = section_of(path, manifest, ModelConfig, "model")
    plan = section_of(path, manifest, ParallelPlan, "parallel")
    if plan.devices != len(manifest.parts):
        return None
    shapes = parameter_shapes(model)
    placed = layouts(model, plan)
    writers = slice_writers(placed, plan, boxes)
    if writers.keys() != boxes.keys():
        return None
    names = {
        part_name(rank)
        for name, box in boxes.items()
        for begin, rank in writers[name].items()
        if Box(begin, placed[name].slice_shape).intersect(box)
    }
    if not names <= manifest.parts.keys():
        return None
    found = _tensors(_open_part(path / name, manifest.parts[name]) for name in sorted(names))
    for stem, group in found.items():
        wanted = moment_shapes(shapes, manifest, path) if stem == "optimizer" else shapes
        found[stem] = {name: Stored(shape, ()) for name, shape in wanted.items()} | group
        held = {name: boxes[parameter_of(name)] for name in wanted if parameter_of(name) in boxes}
        if any(found[stem][name].missing(box) for name, box in held.items()):
            return None
    return found


def _open_part(path: Path, expected: str) -> _Part:
    """Opens a rank's part, whose manifest has the checksum `expected`."""
    if not path.is_dir():
        raise CheckpointError(f"{path}: missing: a rank's part of a checkpoint that was whole")
    found = checksum(read_bytes(path / MANIFEST)) if (path / MANIFEST).is_file() else "none"
    if found != expected:
        raise CheckpointError(
            f"{path / MANIFEST}: damaged, or of another save: expected xxh3_128 {expected}, found {found}"
        )
    return _Part(path.name, path, read_checkpoint(path, verify=False).manifest)


def _put_together(path: Path, where: str, parts: Mapping[str, _Part]) -> Source:
    """Combines parts without a common marker, as nodes without shared storage write them."""
    first = parts[min(parts)].manifest
    plan = section_of(parts[min(parts)].path, first, ParallelPlan, "parallel")
    if plan.devices > _MOST_RANKS:
        raise CheckpointError(f"{parts[min(parts)].path}: of a plan of {plan.devices:,} devices: damaged?")
    wanted = [part_name(rank) for rank in range(plan.devices)]
    missing = [name for name in wanted if name not in parts]
    if missing:
        raise CheckpointError(
            f"{where}: {len(missing)} of the plan's {plan.devices} parts are missing: {few(missing, 8)}; "
            "give the folders of all nodes"
        )
    for part in (parts[name] for name in wanted):
        for what in ("step", "attempt"):
            ours, theirs = getattr(first, what), getattr(part.manifest, what)
            if ours != theirs:
                raise CheckpointError(f"{part.path}: of {what} {theirs!r}, but other parts of {ours!r}")
        if part.manifest.config.get("parallel") != first.config.get("parallel"):
            raise CheckpointError(f"{part.path}: of another plan than other parts")
    manifest = replace(first, kind="slices", files={}, slices={})
    form = f"slices of {plan.devices} ranks, of nodes"
    return Source(path, form, manifest, _tensors([parts[name] for name in wanted]))


def section_of(path: Path, manifest: Manifest, kind: type[Section], key: str) -> Section:
    """Builds a section of the configuration from a manifest.

    Raises:
        CheckpointError: The section is missing or breaks a rule.
    """
    values = manifest.config.get(key, {})
    if isinstance(values.get("table"), str):  # a path; a run saves the operator table's content instead
        raise CheckpointError(
            f"{path / MANIFEST}: {key}.table: names a file; a checkpoint holds the table's content"
        )
    try:
        section = build(kind, values, key)
    except ConfigError as error:
        raise CheckpointError(f"{path / MANIFEST}: {error}") from error
    if type(section) is ModelConfig and section.num_layers > MOST_LAYERS:
        raise CheckpointError(
            f"{path / MANIFEST}: model.num_layers is {section.num_layers:,}, which no network has"
        )
    return section


def _tensors(parts: Iterable[_Part]) -> dict[str, dict[str, Stored]]:
    """Returns every tensor of some parts; each element is in exactly one piece."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    pieces: dict[str, dict[str, list[Piece]]] = {}
    for part in parts:
        for stem in part.manifest.files:
            if stem in _STEMS:
                for name, shape, piece in part_pieces(part.path, part.manifest, stem, part.name):
                    known = shapes.setdefault(stem, {}).setdefault(name, shape)
                    if known != shape:
                        raise CheckpointError(
                            f"{piece.file}: {name}: of a whole {list(shape)}, elsewhere {list(known)}"
                        )
                    pieces.setdefault(stem, {}).setdefault(name, []).append(piece)
    return {
        stem: {name: Stored(shapes[stem][name], tuple(pieces[stem][name])) for name in sorted(pieces[stem])}
        for stem in _STEMS
        if stem in pieces
    }
