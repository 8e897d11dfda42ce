"""Exports to the forms of MindSpore and the release: one .ckpt, 512 slices, rank folders, unified files.

All of them only describe files for the streaming copy, so nothing is loaded whole.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib import format as npy

from pangu_alpha.checkpoint.foreign.mindspore.ckpt_file import ckpt_target
from pangu_alpha.checkpoint.foreign.mindspore.released import released_names
from pangu_alpha.checkpoint.foreign.mindspore.released_folder import TABLE_FILES
from pangu_alpha.checkpoint.foreign.mindspore.slices import HYPER, NAME_MAP, STEP
from pangu_alpha.checkpoint.foreign.mindspore.strategy_file import Cut, Strategy, strategy_bytes, strategy_of
from pangu_alpha.checkpoint.moving.copying import Limits, Slot, TargetFile, copy_into, safetensors_file
from pangu_alpha.checkpoint.naming import MOMENTS, parameter_of
from pangu_alpha.checkpoint.native.tensor_file import CheckpointError, header_of
from pangu_alpha.checkpoint.tensors import Source, whole
from pangu_alpha.checkpoint.vocabulary import find_vocabulary
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.model_families import pangu_config
from pangu_alpha.config.parallel import ParallelPlan, misfits
from pangu_alpha.network.parameters import parameter_shapes, parameter_table
from pangu_alpha.parallel.layout import layouts, stage_of
from pangu_alpha.parallel.mesh import Mesh

NameStyle = Literal["ours", "official"]

STRATEGY_FILE = "ckpt_strategy.ckpt"
_UNIFIED_FILE = 3 << 30  # bytes; MindSpore 2.9's unified_safetensors splits files at this size


@dataclass(frozen=True)
class _Export:
    """A tensor under the name that it gets in the export.

    Args:
        stem: "model" or "optimizer".
        ours: Its name in the source.
        flip: Whether its transpose is written.
        shape: Shape of the whole tensor as it is written.
    """

    stem: str
    ours: str
    flip: bool
    shape: tuple[int, ...]

    def slot(self, label: str, dtype: str) -> Slot:
        """Returns the slot of the whole tensor."""
        box = whole(self.shape)
        return Slot(self.stem, self.ours, box.flipped if self.flip else box, (), dtype, self.flip, label)

    def slice(self, label: str, cut: Cut, place: int) -> Slot:
        """Returns the slot of the slice that a device of a stage holds."""
        first, *rest = (size // parts for size, parts in zip(self.shape, cut.parts, strict=True))
        box = cut.box(place, (first // cut.optimizer_parts, *rest))
        return Slot(self.stem, self.ours, box.flipped if self.flip else box, (), "float32", self.flip, label)


def export_ckpt(source: Source, path: Path, dtype: str = "float32", limits: Limits | None = None) -> None:
    """Writes the weights into one .ckpt file under the official names, embeddings included.

    Args:
        path: The file to make.
        dtype: "float32", or "float16" as in the released merged files.

    Raises:
        CheckpointError: The source is incomplete, or the file exists or cannot be written.
    """
    path = Path(path)
    exports = _exports(source, "official", ("model",))
    slots = [one.slot(label, dtype) for label, one in exports.items()]
    target = ckpt_target(Path(path.name), slots, source.manifest.step)
    copy_into(path, source, [target], limits=limits, only=path.name)


def export_released(
    source: Source, folder: Path, dp: int = 64, mp: int = 8, limits: Limits | None = None
) -> None:
    """Writes the weights in the release's form: dp * mp slices, three .npy tables, and the strategy file.

    Args:
        folder: The folder to make.
        dp: Number of data parallel devices, which share out the rows of each slice.
        mp: Number of devices that share a matrix product.

    Raises:
        CheckpointError: The sizes do not divide, the source is incomplete, or the folder exists or cannot be
            written.
    """
    exports = _exports(source, "official", ("model",))
    config = _config(source)
    cuts = _official_cuts(exports, ParallelPlan(dp=dp, tp=mp), config, sharded=True)[0]
    tables = {label: one for label, one in exports.items() if one.ours in TABLE_FILES.values()}
    inside = {label: cut for label, cut in cuts.items() if label not in tables}
    files = [
        ckpt_target(
            Path(f"filerted_{rank}.ckpt"),
            [exports[label].slice(label, cut, rank) for label, cut in inside.items()],
        )
        for rank in range(dp * mp)
    ]
    stems = {ours: stem for stem, ours in TABLE_FILES.items()}
    files += [
        _npy_file(Path(f"{stems[one.ours]}.npy"), one.slot(label, "float32")) for label, one in tables.items()
    ]
    files += [_strategy_file({0: cuts}), *find_vocabulary(source).target_files()]
    copy_into(Path(folder), source, files, limits=limits)


def export_slices(
    source: Source,
    folder: Path,
    plan: ParallelPlan,
    names: NameStyle = "ours",
    form: Literal["ckpt", "safetensors"] = "ckpt",
    limits: Limits | None = None,
) -> None:
    """Writes what every rank of a plan holds, with the strategy file, in the form MindSpore's tools take.

    Args:
        source: Moments are written as well, if it has any.
        folder: The folder to make: rank_0, rank_1, ... and ckpt_strategy.ckpt.
        plan: How to cut. The optimizer's sharding cuts the rows under official names, but not under ours.
        names: "ours" or "official".
        form: Form of the ranks' files.

    Raises:
        CheckpointError: The plan does not fit, the source is incomplete, or the folder exists or cannot be
            written.
    """
    config = _config(source)
    if problems := [*misfits(plan, config)]:
        raise CheckpointError("\n  - ".join([f"{source.path}: the plan does not fit:", *problems]))
    if names == "official" and plan.table is not None:
        raise CheckpointError(
            f"{source.path}: parallel.table: {plan.table}: the official code cuts by its own table; leave "
            "the table out of the plan, or keep our names"
        )
    exports = _exports(source, names, ("model", "optimizer"))
    if names == "ours":
        exports, strategy = _our_cuts(exports, plan, config)
    else:
        strategy = _official_cuts(exports, plan, config, sharded=plan.optimizer_parallel != "none")
    files = [_strategy_file(strategy), *find_vocabulary(source).target_files()]
    for rank in range(plan.devices):
        stage, place = divmod(rank, Mesh.of(plan).stage_size)
        slots = [exports[label].slice(label, cut, place) for label, cut in strategy[stage].items()]
        path = Path(f"rank_{rank}", f"pangu_alpha.{form}")
        if form == "ckpt":
            files.append(ckpt_target(path, slots, source.manifest.step))
        else:
            files.append(_with_step(path, slots, source.manifest.step))
    copy_into(Path(folder), source, files, limits=limits)


def export_unified(
    source: Source,
    folder: Path,
    names: NameStyle = "ours",
    limits: Limits | None = None,
    plan: ParallelPlan | None = None,
) -> None:
    """Writes whole tensors as MindSpore's unified_safetensors does: files of some 3 GB and a map of names.

    Args:
        source: Moments are written as well, if it has any.
        folder: The folder to make.
        names: "ours" or "official".
        plan: The plan that is to load it: under our names the table then gets its padding rows, because
            MindSpore 2.9 cuts only what divides evenly.

    Raises:
        CheckpointError: The source is incomplete, or the folder exists or cannot be written.
    """
    exports = _exports(source, names, ("model", "optimizer"))
    if plan is not None and names == "ours":
        exports, _ = _our_cuts(exports, plan, _config(source))
    slots = [one.slot(label, "float32") for label, one in exports.items()]
    total = sum(slot.bytes for slot in slots)
    parts: list[list[Slot]] = [[] for _ in range(-(-total // _UNIFIED_FILE))]
    for slot in sorted(slots, key=lambda slot: -slot.bytes):
        min(parts, key=lambda part: sum(one.bytes for one in part)).append(slot)
    files = [safetensors_file(Path(f"part{index}.safetensors"), part) for index, part in enumerate(parts)]
    where = {slot.label: str(file.path) for file in files for slot in file.slots}
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=4).encode()
    files.append(TargetFile(Path(NAME_MAP), len(text), ((0, text),), ()))
    files.append(_with_step(Path(HYPER), (), source.manifest.step))
    files += find_vocabulary(source).target_files()
    copy_into(Path(folder), source, files, limits=limits)


def _config(source: Source) -> ModelConfig:
    return pangu_config(source.manifest.config["model"], "an export")


def _exports(source: Source, names: NameStyle, stems: Sequence[str]) -> dict[str, _Export]:
    """Returns every tensor by its exported name; moments are named and transposed like their parameters."""
    config, found = _config(source), {}
    official = released_names(config)
    shapes = parameter_shapes(config)
    for stem in stems:
        if stem not in source.tensors:
            continue
        for prefix in ("",) if stem == "model" else MOMENTS:
            for ours, shape in shapes.items():
                theirs, flip = official[ours] if names == "official" else (ours, False)
                found[prefix + theirs] = _Export(stem, prefix + ours, flip, shape[::-1] if flip else shape)
    return found


def _our_cuts(
    exports: Mapping[str, _Export], plan: ParallelPlan, config: ModelConfig
) -> tuple[dict[str, _Export], Strategy]:
    """Returns the plan's own layouts; the table gets its padding rows."""
    placed = layouts(config, plan)
    by_name = {label: placed[parameter_of(label)] for label in exports}
    padded = {
        label: _Export(one.stem, one.ours, one.flip, by_name[label].shape) for label, one in exports.items()
    }
    return padded, strategy_of(by_name, plan)


def _official_cuts(
    exports: Mapping[str, _Export], plan: ParallelPlan, config: ModelConfig, sharded: bool
) -> Strategy:
    """Returns the official code's cuts, which are over mp like ours.

    If `sharded`, the rows of every tensor that mp cuts are divided over dp as well.

    Raises:
        CheckpointError: A size does not divide.
    """
    stages: dict[int, dict[str, Cut]] = {stage: {} for stage in range(plan.pp)}
    table = parameter_table(config)
    for label, one in exports.items():
        spec = table[parameter_of(one.ours)]
        axes = spec.axes[:: -1 if one.flip else 1]
        cut = Cut((plan.dp, plan.tp), tuple((0,) if axis == "tp" else () for axis in axes))
        if sharded and "tp" in axes:
            cut = Cut(cut.matrix, cut.axes, plan.dp)
        first = cut.parts[0] * cut.optimizer_parts
        if any(size % n for size, n in zip(one.shape, (first, *cut.parts[1:]), strict=True)):
            raise CheckpointError(
                f"{label}: {list(one.shape)} cannot be cut for dp {plan.dp} and mp {plan.tp}: "
                f"{first} parts along the rows"
            )
        stages[stage_of(spec, config, plan)][label] = cut
    return stages


def _strategy_file(strategy: Strategy) -> TargetFile:
    content = strategy_bytes(strategy)
    return TargetFile(Path(STRATEGY_FILE), len(content), ((0, content),), ())


def _with_step(path: Path, slots: Sequence[Slot], step: int) -> TargetFile:
    """Returns a safetensors file with the number "step_num", as MindSpore's ModelCheckpoint stores it."""
    specs = {slot.label: (slot.stored_shape, slot.dtype) for slot in slots}
    header, begins = header_of({**specs, STEP: ((), "int64")})
    placed = tuple(dataclasses.replace(slot, extents=((begins[slot.label], slot.bytes),)) for slot in slots)
    number = (begins[STEP], step.to_bytes(8, "little"))
    size = len(header) + sum(slot.bytes for slot in slots) + 8
    return TargetFile(path, size, ((0, header), number), placed)


def _npy_file(path: Path, slot: Slot) -> TargetFile:
    head = io.BytesIO()
    npy.write_array_header_1_0(
        head, {"descr": np.dtype(slot.dtype).str, "fortran_order": False, "shape": slot.stored_shape}
    )
    begin, size = head.tell(), np.dtype(slot.dtype).itemsize * math.prod(slot.stored_shape)
    placed = dataclasses.replace(slot, extents=((begin, size),))
    return TargetFile(path, begin + size, ((0, head.getvalue()),), (placed,))
