"""Where every parameter lies under a plan: how it is cut, on which stage, and which ranks hold it.

The table of parameters has the axes that a parameter is cut over; a found table of operators overrides them.
The proof compares the layouts with what MindSpore really did.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.network.parameters import TIED_TABLE, ParameterSpec, layer_count, parameter_table
from pangu_alpha.network.rows import Axes, Stage
from pangu_alpha.parallel.axes import degree, grid, part_at, single
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.sharding import HAND_MADE, OperatorTable, table_of

_BYTES = 4  # size of a stored element: parameters, moments and gradient sums are float32


@dataclass(frozen=True)
class Layout:
    """One parameter under a plan.

    Args:
        shape: Shape of the whole parameter, including padding.
        axes: For each dimension, the axis of the grid that it is cut over.
        parts: For each dimension, the number of parts into which these axes cut it.
        optimizer_parts: Number of parts into which the optimizer's sharding cuts the rows of such a slice.
        stage: The stage that trains it.
    """

    shape: tuple[int, ...]
    axes: Axes
    parts: tuple[int, ...]
    optimizer_parts: int
    stage: int

    @property
    def slice_shape(self) -> tuple[int, ...]:
        """Shape of the part that one device holds."""
        first, *rest = (size // parts for size, parts in zip(self.shape, self.parts, strict=True))
        return (first // self.optimizer_parts, *rest)

    def share(self, plan: ParallelPlan) -> float:
        """1 / number of devices that train each element."""
        return math.prod(self.parts) * self.optimizer_parts / Mesh.of(plan).stage_size

    def start(self, plan: ParallelPlan, rank: int) -> tuple[int, ...] | None:
        """Where a rank's slice begins in the whole; None for a rank of another stage.

        The ranks of the stage that hold a slice divide its rows in the order of the ranks.
        """
        coordinates = Mesh.of(plan).digits(rank)
        if coordinates["pp"] != self.stage:
            return None
        sizes = grid(plan)
        cut_by = [single(axis, plan) for axis in self.axes]
        begins = [
            part_at(names, sizes, coordinates) * (size // parts)
            for names, size, parts in zip(cut_by, self.shape, self.parts, strict=True)
        ]
        cutting = set(itertools.chain.from_iterable(cut_by))
        holder = part_at([name for name in sizes if name not in cutting], sizes, coordinates)
        begins[0] += holder % self.optimizer_parts * self.slice_shape[0]
        return tuple(begins)


def layouts(model: Any, plan: ParallelPlan) -> dict[str, Layout]:
    """Returns the layout of every parameter of a network.

    Args:
        model: The network's configuration, of a type with registered rows (network.parameters).
        plan: A plan that fits it.
    """
    table = table_of(plan)
    known: dict[tuple[str, Axes, int], Layout] = {}  # the layers of a stage repeat a few layouts
    placed = {}
    for name, spec in parameter_table(model).items():
        key = (spec.row.name, axes_of(spec, table), stage_of(spec, model, plan))
        if key not in known:
            known[key] = _layout(spec, *key[1:], plan)
        placed[name] = known[key]
    return placed


def slices_of_rank(
    placed: Mapping[str, Layout], plan: ParallelPlan, rank: int
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The slices that a rank trains: name -> (where the slice begins, its shape)."""
    begins = {name: layout.start(plan, rank) for name, layout in placed.items()}
    return {name: (begin, placed[name].slice_shape) for name, begin in begins.items() if begin is not None}


def slice_writers(
    placed: Mapping[str, Layout], plan: ParallelPlan, names: Collection[str] | None = None
) -> dict[str, dict[tuple[int, ...], int]]:
    """Which rank writes each slice into a checkpoint, so that each is written once: name -> begin -> rank.

    Ranks that hold the same slices take turns, parameter by parameter.

    Args:
        placed: Layouts of all parameters, because the turns depend on all of them.
        names: Parameters to return; None is all.
    """
    writers: dict[str, dict[tuple[int, ...], int]] = {}
    holders: dict[Layout, dict[tuple[int, ...], list[int]]] = {}  # layers repeat a few layouts
    for number, (name, layout) in enumerate(sorted(placed.items())):
        if names is None or name in names:
            if layout not in holders:
                holders[layout] = _holders(layout, plan)
            writers[name] = {begin: own[number % len(own)] for begin, own in holders[layout].items()}
    return writers


def _holders(layout: Layout, plan: ParallelPlan) -> dict[tuple[int, ...], list[int]]:
    """The ranks that hold each slice, by the place where the slice begins."""
    found: dict[tuple[int, ...], list[int]] = {}
    for rank in Mesh.of(plan).stage_ranks(layout.stage):
        begin = layout.start(plan, rank)
        assert begin is not None
        found.setdefault(begin, []).append(rank)
    return found


def written_slices(placed: Mapping[str, Layout], plan: ParallelPlan, rank: int) -> dict[str, tuple[int, ...]]:
    """The slices that a rank writes into a checkpoint: name -> where the slice begins."""
    writers = slice_writers(placed, plan)
    return {
        name: begin for name, slices in writers.items() for begin, writer in slices.items() if writer == rank
    }


def axes_of(spec: ParameterSpec, table: OperatorTable = HAND_MADE) -> Axes:
    """For each dimension of a parameter, the axis of the grid that it is cut over by a table of operators."""
    if table is HAND_MADE or not spec.row.uses:
        return spec.axes
    cell, operator, place = spec.row.uses[0]
    kind = cell.split()[0]
    path = [*spec.name.split(".")[:-1], kind.lower()]
    return table.split(table.key(path, kind), operator).inputs[place]


def stage_of(spec: ParameterSpec, model: Any, plan: ParallelPlan) -> int:
    """The stage that trains a parameter; in each step, the first sends a tied table to the last."""
    if spec.stage is Stage.LAYER:
        assert spec.layer is not None
        return plan.stage_of_layer(spec.layer, layer_count(model))
    return 0 if spec.stage is Stage.FIRST else plan.pp - 1


def padded_vocabulary(vocab_size: int, plan: ParallelPlan) -> int:
    """Number of rows of the tied table under a plan: the next multiple of the parts it is cut into."""
    return _next_multiple(vocab_size, degree(TIED_TABLE.axes[0], plan))


def shards_tied_table(plan: ParallelPlan) -> bool:
    """Whether the optimizer's sharding may cut the tied table, which two operators read.

    It may not if the table is on two stages, nor under level3: MindSpore 2.9 then adds the gradient of one
    use, which is scattered, to that of the other, which is whole. It can once MindSpore scatters both.
    """
    return plan.pp == 1 and plan.optimizer_parallel != "level3"


def _layout(spec: ParameterSpec, axes: Axes, stage: int, plan: ParallelPlan) -> Layout:
    parts, shape = tuple(degree(axis, plan) for axis in axes), spec.shape
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
    return Layout(shape, axes, parts, spread if sharded else 1, stage)


def _next_multiple(size: int, parts: int) -> int:
    return -(-size // parts) * parts
