"""Writes a checkpoint for another parallel plan, or for one process, from any source.

Weights, moments, position, guard state, vocabulary and configuration are kept; only the plan changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pangu_alpha.checkpoint.frozen import moment_shapes
from pangu_alpha.checkpoint.moving.copying import (
    Limits,
    Slot,
    Sums,
    TargetFile,
    copy_into,
    file_record,
    safetensors_file,
)
from pangu_alpha.checkpoint.naming import parameter_of
from pangu_alpha.checkpoint.native.folders import part_name
from pangu_alpha.checkpoint.native.format import MANIFEST, Manifest, compare_tensors, seal_folder
from pangu_alpha.checkpoint.native.tensor_file import checksum
from pangu_alpha.checkpoint.tensors import Box, Source, whole
from pangu_alpha.checkpoint.vocabulary import find_vocabulary
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan, misfits
from pangu_alpha.config.schema import ConfigError, build, to_mapping
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.parallel.layout import layouts, slice_writers


def reshard(
    source: Source,
    path: Path,
    plan: ParallelPlan | None = None,
    weights_only: bool = False,
    limits: Limits | None = None,
) -> None:
    """Writes a source as a checkpoint from which a run under a plan resumes, with its vocabulary beside it.

    Args:
        path: The folder to make.
        plan: How the new checkpoint is cut; None makes the checkpoint of a single process.
        weights_only: Leave the optimizer out.

    Raises:
        ConfigError: The plan does not fit the model.
        CheckpointError: The source is damaged, or its tensors are not the model's; see also `copy_into`.
    """
    model = build(ModelConfig, source.manifest.config["model"], "model")
    if problems := [*misfits(plan or ParallelPlan(), model)]:
        raise ConfigError(problems)
    stems = ("model",) if weights_only or "optimizer" not in source.tensors else ("model", "optimizer")
    names = _check_names(source, model, stems)
    kind = "training" if "optimizer" in stems else "weights"
    manifest = dataclasses.replace(
        source.manifest,
        config={**source.manifest.config, "parallel": to_mapping(plan or ParallelPlan())},
        kind=kind if plan is None else "slices",
        files={},
        slices={},
        parts={},
        attempt="",
    )
    if plan is None:
        files, finish = _whole_files(names, model), _finish_whole
    else:
        files, finish = _part_files(names, model, plan), partial(_finish_parts, plan=plan)
    finish = partial(finish, files=files, manifest=manifest)
    copy_into(path, source, [*files, *find_vocabulary(source).target_files()], finish, limits)


def _check_names(source: Source, model: ModelConfig, stems: Sequence[str]) -> dict[str, list[str]]:
    """Checks that a source has exactly the model's tensors, and returns their names by stem."""
    shapes = parameter_shapes(model)
    expected = {"model": shapes}
    if "optimizer" in stems:
        expected["optimizer"] = moment_shapes(shapes, source.manifest, source.path)
    for stem in stems:
        found = {name: (stored.shape, None) for name, stored in source.tensors.get(stem, {}).items()}
        wanted = {name: (shape, None) for name, shape in expected[stem].items()}
        compare_tensors(wanted, found, f"{source.path}, {stem}")
    return {stem: [*expected[stem]] for stem in stems}


def _whole_files(names: Mapping[str, Sequence[str]], model: ModelConfig) -> list[TargetFile]:
    shapes = parameter_shapes(model)
    return [
        safetensors_file(
            Path(f"{stem}.safetensors"),
            (Slot(stem, name, whole(shapes[parameter_of(name)]), label=name) for name in group),
        )
        for stem, group in names.items()
    ]


def _part_files(
    names: Mapping[str, Sequence[str]], model: ModelConfig, plan: ParallelPlan
) -> list[TargetFile]:
    placed = layouts(model, plan)
    writers = slice_writers(placed, plan)
    slots: dict[Path, list[Slot]] = {}
    for stem, group in names.items():
        for name in group:
            parameter = parameter_of(name)
            for begin, rank in writers[parameter].items():
                box = Box(begin, placed[parameter].slice_shape)
                file = Path(part_name(rank), f"{stem}.safetensors")
                slots.setdefault(file, []).append(Slot(stem, name, box, label=name))
    return [safetensors_file(path, group) for path, group in sorted(slots.items())]


def _finish_whole(folder: Path, sums: Sums, files: Sequence[TargetFile], manifest: Manifest) -> None:
    records = {file.path.stem: file_record(file, sums[file.path]) for file in files}
    seal_folder(folder, dataclasses.replace(manifest, files=records))


def _finish_parts(
    folder: Path, sums: Sums, files: Sequence[TargetFile], manifest: Manifest, plan: ParallelPlan
) -> None:
    """Seals every rank's part, and then the checkpoint."""
    shapes = parameter_shapes(build(ModelConfig, manifest.config["model"], "model"))
    owned: dict[str, list[TargetFile]] = {part_name(rank): [] for rank in range(plan.devices)}
    for file in files:
        owned[file.path.parent.name].append(file)
    checksums = {}
    for name, own in owned.items():
        part = folder / name
        part.mkdir(exist_ok=True)  # a rank that writes nothing has a part as well
        records = {file.path.stem: file_record(file, sums[file.path]) for file in own}
        slices = {file.path.stem: dict(_slices(file, shapes)) for file in own}
        said = dataclasses.replace(manifest, kind="part", files=records, slices=slices)
        seal_folder(part, said)
        checksums[name] = checksum((part / MANIFEST).read_bytes())
    seal_folder(folder, dataclasses.replace(manifest, parts=checksums))


def _slices(file: TargetFile, shapes: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for slot in file.slots:
        yield slot.label, {"start": [*slot.box.start], "shape": [*shapes[parameter_of(slot.name)]]}
