"""MindSpore's strategy files: how each parameter is cut over the devices of a pipeline stage.

Reads the protobuf (node_strategy.proto) and the JSON form, and writes the protobuf, without MindSpore.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.errors import CheckpointError, UnclearError
from pangu_alpha.checkpoint.foreign.mindspore.protobuf_wire import (
    FileBytes,
    WireError,
    length_field,
    number_field,
    signed,
)
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.tensors import Box
from pangu_alpha.checkpoint.untrusted import MOST_AXES, check_file, read_mapping
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.files.shown import quoted
from pangu_alpha.parallel.axes import grid, single
from pangu_alpha.parallel.layout import Layout

_MOST_DEVICES = 1 << 20  # of a stage; a damaged number must not make us allocate more memory than there is
_MERGED = re.compile(r"(?P<stage>\d{1,6})-(?P<name>.+)")  # a name in a file with all stages merged


@dataclass(frozen=True)
class Cut:
    """How a parameter is cut over the devices of its stage.

    Args:
        matrix: Shape of the grid of devices; the last axis varies fastest.
        axes: For every dimension the grid axes that cut it, outermost first, counted from the grid's last
            axis as MindSpore does; empty for a dimension that is whole.
        optimizer_parts: Number of parts into which the optimizer's sharding cuts the rows of such a slice.
    """

    matrix: tuple[int, ...]
    axes: tuple[tuple[int, ...], ...]
    optimizer_parts: int = 1

    @property
    def devices(self) -> int:
        """Number of devices of the stage."""
        return math.prod(self.matrix)

    @property
    def parts(self) -> tuple[int, ...]:
        """Number of parts of each dimension, without the optimizer's sharding."""
        return tuple(math.prod(self.matrix[-1 - axis] for axis in axes) for axes in self.axes)

    @property
    def slices(self) -> int:
        """Number of different slices."""
        return math.prod(self.parts) * self.optimizer_parts

    def whole(self, piece: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape of the whole tensor from that of a slice."""
        first, *rest = (size * parts for size, parts in zip(piece, self.parts, strict=True))
        return (first * self.optimizer_parts, *rest)

    def box(self, place: int, piece: Sequence[int]) -> Box:
        """Returns the box that a device holds.

        Args:
            place: Index of the device among those of its stage.
            piece: Shape of a slice.
        """
        coordinates = [int(one) for one in np.unravel_index(place, self.matrix)]
        start = [
            size * self._index(coordinates, [len(self.matrix) - 1 - axis for axis in axes])
            for size, axes in zip(piece, self.axes, strict=True)
        ]
        start[0] *= self.optimizer_parts
        cutting = {len(self.matrix) - 1 - axis for axes in self.axes for axis in axes}
        holder = self._index(coordinates, [axis for axis in range(len(self.matrix)) if axis not in cutting])
        start[0] += holder % self.optimizer_parts * piece[0]
        return Box(tuple(start), tuple(piece))

    def _index(self, coordinates: Sequence[int], axes: Sequence[int]) -> int:
        index = 0
        for axis in axes:
            index = index * self.matrix[axis] + coordinates[axis]
        return index


Strategy = Mapping[int, Mapping[str, Cut]]  # by stage and name of the parameter


def read_strategy(paths: Iterable[Path]) -> Strategy:
    """Reads one strategy file for all stages, or one or more for each.

    Raises:
        CheckpointError: A file is damaged or not a strategy file, or two contradict each other.
        OSError: A file cannot be read.
    """
    stages: dict[int, dict[str, Cut]] = {}
    paths = list(paths)
    for path in paths:
        cuts = _read_json(path) if path.suffix == ".json" else _read_protobuf(path)
        if not cuts:
            raise CheckpointError(f"{path}: no strategy file: it says of no parameter how it is cut")
        for (stage, name), cut in cuts.items():
            if stages.setdefault(stage, {}).setdefault(name, cut) != cut:
                raise CheckpointError(f"{path}: says of {name} of stage {stage} what another strategy denies")
    devices = {cut.devices for cuts in stages.values() for cut in cuts.values()}
    if len(devices) > 1 or sorted(stages) != list(range(len(stages))):
        raise CheckpointError(
            f"{', '.join(map(str, paths[:3]))}: the strategy files are of stages {quoted(sorted(stages))} "
            f"with {quoted(sorted(devices))} devices; give those of all stages of one run"
        )
    return stages


def refuse_strategy(where: Path, form: str, options: OpenOptions) -> None:
    """Refuses a strategy for a form that needs none, unless the options apply to several checkpoints.

    Raises:
        UnclearError: The options have a strategy.
    """
    if options.strategy is not None and not options.shared:
        raise UnclearError(
            f"{where}: {form}, which no strategy file places: leave --strategy {options.strategy} out"
        )


def strategy_of(layouts: Mapping[str, Layout], plan: ParallelPlan) -> Strategy:
    """Returns the strategy of a plan.

    Args:
        layouts: Layouts of the parameters by the names that they get.
    """
    stages: dict[int, dict[str, Cut]] = {stage: {} for stage in range(plan.pp)}
    sizes = grid(plan)
    places = {name: number for number, name in enumerate(reversed(sizes))}
    for name, layout in layouts.items():
        axes = tuple(
            tuple(places[each] for each in single(axis, plan)) if parts > 1 else ()
            for axis, parts in zip(layout.axes, layout.parts, strict=True)
        )
        stages[layout.stage][name] = Cut(tuple(sizes.values()), axes, layout.optimizer_parts)
    return stages


def strategy_bytes(strategy: Strategy) -> bytes:
    """Encodes the file that MindSpore 2.9's tools take as src_strategy_file, with all stages merged."""
    merged = len(strategy) > 1
    content = [number_field(1, 1)]  # current_stage
    for stage, cuts in strategy.items():
        # MindSpore 2.9 takes the stage from the first operator, so that there must be one
        operator = length_field(1, f"stage{stage}".encode()) + length_field(2, number_field(1, stage))
        content.append(length_field(2, operator))
        for name, cut in cuts.items():
            title = f"{stage}-{name}" if merged else name
            content.append(length_field(3, length_field(1, title.encode()) + length_field(2, _layout(cut))))
    return b"".join(content)


def _layout(cut: Cut) -> bytes:
    """Encodes ParallelLayouts: grid, map, split shape, offset (both empty), field, step, size of sharding."""
    if all(len(axes) < 2 for axes in cut.axes):
        maps = [[axes[0] if axes else -1 for axes in cut.axes]]
    else:
        maps = [list(axes) or [-1] for axes in cut.axes]
    sharded = cut.optimizer_parts > 1
    step = math.prod(cut.parts) if sharded else 0
    return b"".join(
        [
            length_field(1, _dims(cut.matrix)),
            *(length_field(2, _dims(axes)) for axes in maps),
            length_field(3, b""),
            length_field(4, b""),
            number_field(5, 0),
            number_field(6, step),
            number_field(7, cut.optimizer_parts if sharded else 0),
        ]
    )


def _dims(values: Iterable[int]) -> bytes:
    return b"".join(number_field(1, value) for value in values)


def _read_protobuf(path: Path) -> dict[tuple[int, str], Cut]:
    with open(check_file(path), "rb", buffering=0) as file:
        data = FileBytes(file.fileno())
        try:
            return _strategy_map(path, data)
        except (WireError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path}: damaged, or no strategy file of MindSpore ({error})") from error


def _strategy_map(path: Path, data: FileBytes) -> dict[tuple[int, str], Cut]:
    own, items = None, []
    for item in data.fields(0, data.size):
        inner = {one.number: one for one in data.fields(item.start, item.stop)} if item.value is None else {}
        if item.number == 2 and own is None and 2 in inner:  # an operator, which contains the file's stage
            numbers = data.fields(inner[2].start, inner[2].stop)
            own = next((one.value for one in numbers if one.number == 1), None)
        elif item.number == 3:
            if not {1, 2} <= inner.keys():
                raise WireError(f"byte {item.start}: a layout without name or content")
            name = data.read(inner[1].start, inner[1].stop).decode()
            items.append((name, _raw_layout(data, inner[2].start, inner[2].stop)))
    return {_titled(name, own or 0): _cut(path, name, raw) for name, raw in items}


def _raw_layout(data: FileBytes, start: int, stop: int) -> dict[str, Any]:
    raw: dict[str, Any] = {"tensor_map": [], "step": 0, "size": 0, "split": []}
    for one in data.fields(start, stop):
        if one.number == 1:
            raw["dev_matrix"] = _read_dims(data, one.start, one.stop)
        elif one.number == 2:
            raw["tensor_map"].append(_read_dims(data, one.start, one.stop))
            if len(raw["tensor_map"]) > MOST_AXES:
                raise WireError(f"byte {one.start}: a tensor of more than {MOST_AXES} dimensions")
        elif one.number == 3:
            raw["split"] = _read_dims(data, one.start, one.stop)
        elif one.number in (6, 7):
            raw["step" if one.number == 6 else "size"] = signed(one.value or 0)
    return raw


def _read_dims(data: FileBytes, start: int, stop: int) -> list[int]:
    dims: list[int] = []
    for one in data.fields(start, stop):
        if one.value is not None:
            dims.append(signed(one.value))
        else:  # packed: consecutive numbers
            dims += [signed(value) for value in data.varints(one.start, one.stop)]
        if len(dims) > MOST_AXES:
            raise WireError(f"byte {one.start}: more than {MOST_AXES} dimensions")
    return dims


def _read_json(path: Path) -> dict[tuple[int, str], Cut]:
    try:
        content = read_mapping(path)
        items = content["parallel_layout_item"]
        operators = list(content.get("parallel_strategy_item", {}).values())
        own = _number(operators[0].get("stage", 0)) if operators else 0
        raws = {
            name: {
                "dev_matrix": _numbers(item["dev_matrix"]),
                "tensor_map": [
                    _numbers(one) if isinstance(one, list) else _number(one)
                    for one in _list(item["tensor_map"])
                ],
                "step": _number(item.get("opt_weight_shard_step", 0)),
                "size": _number(item.get("opt_weight_shard_size", 0)),
                "split": item.get("param_split_shape", []),
            }
            for name, item in items.items()
        }
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{path}: damaged, or no strategy file of MindSpore ({type(error).__name__}: {error})"
        ) from error
    return {_titled(name, own): _cut(path, name, raw) for name, raw in raws.items()}


def _number(value: Any) -> int:
    """Returns the value if it is a whole number.

    Raises:
        TypeError: The value is not a whole number.
    """
    if type(value) is not int:
        raise TypeError(f"{quoted(value)} in the place of a number")
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{quoted(value)} is beyond 64 bits")
    return value


def _list(value: Any) -> list[Any]:
    """Returns the value if it is a list of at most as many entries as a tensor has dimensions.

    Raises:
        TypeError: The value is not a list.
        ValueError: The list is longer.
    """
    if not isinstance(value, list):
        raise TypeError(f"{quoted(value)} in the place of a list")
    if len(value) > MOST_AXES:
        raise ValueError(f"{len(value):,} dimensions")
    return value


def _numbers(value: Any) -> list[int]:
    return [_number(one) for one in _list(value)]


def _titled(name: str, stage: int) -> tuple[int, str]:
    match = _MERGED.fullmatch(name)
    return (int(match["stage"]), match["name"]) if match else (stage, name)


def _cut(path: Path, name: str, raw: Mapping[str, Any]) -> Cut:
    matrix = tuple(raw.get("dev_matrix") or ())
    maps = raw["tensor_map"]
    nested = [one for one in maps if isinstance(one, list)]
    if len(nested) == 1 and len(maps) == 1:
        maps = nested[0]
    axes = tuple(tuple(a for a in (one if isinstance(one, list) else [one]) if a >= 0) for one in maps)
    if raw["split"]:
        raise CheckpointError(f"{path}: {name} is cut into unequal parts, which cannot be read")
    used = [*itertools.chain(*axes)]
    if (
        not 1 <= min(matrix, default=0) <= math.prod(matrix) <= _MOST_DEVICES
        or any(axis >= len(matrix) for axis in used)
        or len(set(used)) < len(used)
    ):
        raise CheckpointError(f"{path}: {name}: tensor map {quoted(maps, 200)} on a grid {quoted(matrix)}")
    cut = Cut(matrix, axes)
    if raw["step"] == 0 or raw["size"] == 0:
        return cut
    spread = cut.devices // math.prod(cut.parts)
    parts = spread if raw["size"] < 0 else raw["size"]  # -1 stands for all devices that hold the slice
    if spread % parts:
        raise CheckpointError(f"{path}: {name}: {parts} optimizer parts over {spread} devices")
    return Cut(matrix, axes, parts)
