"""Where every parameter lies under a plan: cut how, on which stages, held by how many devices.

What is cut over which axes stands in the table of parameters; the proof compares it with what MindSpore did.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.network.parameters import TIED_TABLE, ParameterSpec, layer_count, parameter_table
from pangu_alpha.network.rows import Axes, Stage
from pangu_alpha.parallel.mesh import STAGE_AXES, Coordinates, Mesh, grid_axes

_BYTES = 4  # of a stored element: parameters, moments and gradient sums are float32


@dataclass(frozen=True)
class Layout:
    """One parameter under a plan.

    Args:
        shape: Of the whole, padding included.
        axes: Axis each dimension is cut over, by its name in the tables.
        cuts: The axes of the grid which that is under the plan, outermost first.
        parts: Into how many parts each dimension is cut by them.
        optimizer_parts: Into how many parts the rows of such a slice are cut by the optimizer's sharding.
        stage: The stage that trains it.
    """

    shape: tuple[int, ...]
    axes: Axes
    cuts: tuple[tuple[str, ...], ...]
    parts: tuple[int, ...]
    optimizer_parts: int
    stage: int

    @property
    def slice_shape(self) -> tuple[int, ...]:
        """What one device holds."""
        first, *rest = (size // parts for size, parts in zip(self.shape, self.parts, strict=True))
        return (first // self.optimizer_parts, *rest)

    @property
    def holding(self) -> tuple[str, ...]:
        """The axes of the grid along which the devices of a stage hold the same slice, outermost first."""
        cutting = {axis for cut in self.cuts for axis in cut}
        return tuple(axis for axis in STAGE_AXES if axis not in cutting)

    def share(self, plan: ParallelPlan) -> float:
        """1 / number of devices that train each element."""
        return math.prod(self.parts) * self.optimizer_parts / Mesh.of(plan).stage_size

    def start(self, plan: ParallelPlan, rank: int) -> tuple[int, ...] | None:
        """Where in the whole a rank's slice begins; None for a rank of another stage.

        The rows of a slice are shared by the ranks of the stage that hold it, in their order.
        """
        mesh = Mesh.of(plan)
        place = mesh.coordinates(rank)
        if place.stage != self.stage:
            return None
        begins = [
            _number(mesh, place, cut) * (size // parts)
            for size, cut, parts in zip(self.shape, self.cuts, self.parts, strict=True)
        ]
        begins[0] += _number(mesh, place, self.holding) % self.optimizer_parts * self.slice_shape[0]
        return tuple(begins)


def _number(mesh: Mesh, place: Coordinates, axes: Collection[str]) -> int:
    """Number of a place among those that differ along some axes only, the last axis the fastest."""
    number = 0
    for axis in axes:
        number = number * mesh.degree(axis) + place.along(axis)
    return number


def layouts(model: Any, plan: ParallelPlan) -> dict[str, Layout]:
    """Layout of every parameter of a network.

    Args:
        model: The network's configuration, of a type whose parameters have a table.
        plan: A plan that fits it.
    """
    return {name: _layout(spec, model, plan) for name, spec in parameter_table(model).items()}


def slices_of_rank(
    placed: Mapping[str, Layout], plan: ParallelPlan, rank: int
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The slices that a rank trains: name -> where it begins, and its shape."""
    begins = {name: layout.start(plan, rank) for name, layout in placed.items()}
    return {name: (begin, placed[name].slice_shape) for name, begin in begins.items() if begin is not None}


def slice_writers(
    placed: Mapping[str, Layout], plan: ParallelPlan, names: Collection[str] | None = None
) -> dict[str, dict[tuple[int, ...], int]]:
    """Which rank writes each slice into a checkpoint, so that each is written once: name -> begin -> rank.

    Of the ranks that hold the same slice, the parameters take turns.

    Args:
        placed: Of all parameters.
        plan: Theirs.
        names: What to tell; None is all.
    """
    writers, holders = {}, {}  # layers repeat a few layouts
    for number, (name, layout) in enumerate(sorted(placed.items())):
        if names is None or name in names:
            if layout not in holders:
                holders[layout] = _holders(layout, plan)
            writers[name] = {begin: own[number % len(own)] for begin, own in holders[layout].items()}
    return writers


def _holders(layout: Layout, plan: ParallelPlan) -> dict[tuple[int, ...], list[int]]:
    """The ranks that hold each slice, by where it begins."""
    found: dict[tuple[int, ...], list[int]] = {}
    for rank in Mesh.of(plan).stage_ranks(layout.stage):
        begin = layout.start(plan, rank)
        assert begin is not None
        found.setdefault(begin, []).append(rank)
    return found


def written_slices(placed: Mapping[str, Layout], plan: ParallelPlan, rank: int) -> dict[str, tuple[int, ...]]:
    """The slices that a rank writes into a checkpoint: name -> where it begins."""
    writers = slice_writers(placed, plan)
    return {
        name: begin for name, slices in writers.items() for begin, writer in slices.items() if writer == rank
    }


def stage_of(spec: ParameterSpec, model: Any, plan: ParallelPlan) -> int:
    """Stage that trains a parameter; the first sends a tied table to the last once a step."""
    if spec.stage is Stage.LAYER:
        return plan.stage_of_layer(spec.layer, layer_count(model))
    return 0 if spec.stage is Stage.FIRST else plan.pp - 1


def padded_vocabulary(vocab_size: int, plan: ParallelPlan) -> int:
    """Rows of the tied table under a plan: the next multiple of the parts it is cut into."""
    return _next_multiple(vocab_size, _parts(TIED_TABLE.axes, plan)[0])


def shards_tied_table(plan: ParallelPlan) -> bool:
    """Whether the optimizer's sharding may cut the tied table, which two operators read.

    Not when it is on two stages, and not under level3: MindSpore 2.9 then adds the gradient of one use,
    scattered, to that of the other, whole.
    """
    return plan.pp == 1 and plan.optimizer_parallel != "level3"


def _layout(spec: ParameterSpec, model: Any, plan: ParallelPlan) -> Layout:
    named, parts, shape = grid_axes(plan), _parts(spec.axes, plan), spec.shape
    cuts = tuple(named[axis] for axis in spec.axes)
    if spec.tied:
        shape = (_next_multiple(shape[0], parts[0]), *shape[1:])
    rows = shape[0] // parts[0]
    spread = Mesh.of(plan).stage_size // math.prod(parts)
    sharded = (
        plan.optimizer_parallel != "none"
        and rows % spread == 0
        and math.prod(shape) * _BYTES >= plan.optimizer_threshold * 1024
        and (shards_tied_table(plan) or not spec.tied)
    )
    return Layout(shape, spec.axes, cuts, parts, spread if sharded else 1, stage_of(spec, model, plan))


def _parts(axes: Axes, plan: ParallelPlan) -> tuple[int, ...]:
    """Into how many parts each dimension is cut."""
    mesh, named = Mesh.of(plan), grid_axes(plan)
    return tuple(math.prod(map(mesh.degree, named[axis])) for axis in axes)


def _next_multiple(size: int, parts: int) -> int:
    return -(-size // parts) * parts
