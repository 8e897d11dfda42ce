"""Which masks a rank's graph draws for dropout, whether the right ranks share them, and what they cost.

Two ranks must draw the same mask where they hold copies of a tensor, and different ones where they hold
different slices. A mask by position is right if its constants are: the numbers of the cell and of the columns
are equal on all ranks, those of the heads are those of the rank's slice; the keys of the rows come with the
batch. The device's kernel is right if its seeds differ wherever the tensor is cut.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from math import prod
from typing import Literal, NamedTuple

import numpy as np

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.data.hashing import column_numbers, device_seeds, head_numbers, salted
from pangu_alpha.network.parameters import layer_of
from pangu_alpha.network.rows import Axes
from pangu_alpha.parallel.axes import degree, grid, part_at, single
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.sharding import table_of
from pangu_alpha.proof.graph import mindir

_CELL = re.compile(r"(\w+)-(\w+)")
_OUTER = ("Default", "network", "token_loss", "model")  # scopes around the network's own cells
_KERNEL = "Dropout"  # type of the device's operator
_HEADS = "heads"
_WEIGHTS = "core.dropout"  # end of the names of cells that drop attention weights


@dataclass(frozen=True)
class Draw:
    """The mask of one cell on one rank.

    Args:
        cell: The cell's place in the network.
        way: Whether the mask is drawn by position or by the device's kernel.
        seeds: Seeds of the device's kernel; by position, a checksum of the columns' numbers, which on the
            residual stream are multiplied by the cell's number.
        heads: Numbers of the heads whose weights the rank holds, multiplied by the cell's number; () on the
            residual stream and for the kernel.
        axes: Axes of the grid that cut the tensor.
        shape: Shape of the rank's slice.
        bytes: Bytes that the cell's operators read or write in a step, forward and backward.
        kernel_bytes: Bytes that the device's kernel would move, with a mask of one bit per element.
        passes: Number of operators over the whole slice in one forward pass.
    """

    cell: str
    way: Literal["positional", "device"]
    seeds: tuple[int, ...]
    heads: tuple[int, ...]
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    bytes: int
    kernel_bytes: int
    passes: int


def draws(model: mindir.Model, plan: ParallelPlan) -> list[Draw]:
    """The masks that a rank's graph draws, in the order of the graph."""
    counts = mindir.calls(model)
    cells: dict[str, _Cell] = {}
    for function in model.functions:
        for node in function.nodes:
            if node.primitive is not None and (name := cell_of(node.scope)):
                cell = cells.setdefault(name, _Cell(name, model, [], [], set()))
                cell.add(node, function, counts[function.name])
    return [_draw(cell, plan) for cell in cells.values()]


def cell_of(scope: str) -> str:
    """The dropout cell to which an operator belongs; "" for none.

    Only operators of the forward pass and of its recomputation belong to a cell.

    Args:
        scope: For example
            "Default/network-Loss/model-Pangu/blocks-CellList/0-Block/attention_dropout-Dropout/Mul".
    """
    if not scope.removeprefix("recompute_").startswith("Default/") or "/Grad_" in scope:
        return ""
    places = _CELL.findall(scope.rpartition("/")[0])
    if not places or not places[-1][1].endswith(_KERNEL):
        return ""
    return ".".join(name for name, _ in places if name not in _OUTER)


def faults(found: Sequence[Draw], model: ModelConfig, plan: ParallelPlan, rank: int, seed: int) -> list[str]:
    """Lists what is wrong with the masks of one rank, given its coordinates: one sentence per cell.

    Args:
        found: The masks from `draws`.
    """
    mesh = Mesh.of(plan)
    place = mesh.coordinates(rank)
    axis = _dimensions(_WEIGHTS, plan)[1]
    heads = model.num_heads // degree(axis, plan)
    first = heads * part_at(single(axis, plan), grid(plan), mesh.digits(rank))
    said = []
    for each in found:
        salt = salt_of(each.cell, model)
        expected: tuple[int, ...]
        own: tuple[int, ...]
        if each.way == "device":
            expected, own = device_seeds((seed, place.data, place.tensor), salt), ()
        else:
            expected, own = _numbers_of(each, model, salt, first, heads)
        if each.seeds != expected:
            said.append(f"rank {rank}: {each.cell} has the seeds {each.seeds}, not {expected} of its place")
        elif each.heads != own:
            said.append(f"rank {rank}: {each.cell} has the masks of other heads than it holds")
    return said


def _numbers_of(
    draw: Draw, model: ModelConfig, salt: int, first: int, heads: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Seeds and heads of a correct mask by position, on a rank that holds `heads` heads from `first` on."""
    if not draw.cell.endswith(_WEIGHTS):
        return (_checksum(salted(column_numbers(model.hidden_size), salt)),), ()
    numbers = salted(head_numbers(heads, first), salt)
    return (_checksum(column_numbers(model.seq_length)),), tuple(numbers.tolist())


def shared(found: Mapping[int, Sequence[Draw]], plan: ParallelPlan) -> list[str]:
    """Lists where ranks share masks of different slices, or draw different masks for copies of one.

    Masks by position are cut like the tensor, so their numbers must be equal on all ranks of a stage.

    Args:
        found: The masks from `draws`, by rank.
    """
    mesh, said = Mesh.of(plan), []
    for one, other in combinations(sorted(found), 2):
        if mesh.stage_of(one) == mesh.stage_of(other):
            sides = [{each.cell: each for each in found[rank]} for rank in (one, other)]
            for cell in sides[0].keys() ^ sides[1].keys():
                has, lacks = (one, other) if cell in sides[0] else (other, one)
                said.append(f"{cell}: rank {has} draws a mask, rank {lacks} does not")
            both = [(each, sides[1][cell]) for cell, each in sides[0].items() if cell in sides[1]]
            said += [text for pair in both if (text := _unequal(*pair, plan, one, other))]
    return said


def _unequal(first: Draw, second: Draw, plan: ParallelPlan, one: int, other: int) -> str:
    """What is wrong with the masks that two ranks draw in one cell; "" if nothing is."""
    ranks = f"{first.cell}: ranks {one} and {other} hold"
    if first.way == "positional" or second.way == "positional":
        right = first.seeds == second.seeds and first.way == second.way
        if first.heads:
            heads = single(_dimensions(_WEIGHTS, plan)[1], plan)
            right &= (first.heads == second.heads) == same_slice(plan, heads, one, other)
        return "" if right else f"{ranks} parts of one tensor, but number its masks differently"
    copies = same_slice(plan, first.axes, one, other)
    if copies == (first.seeds == second.seeds):
        return ""
    return (
        f"{ranks} copies, but draw different masks"
        if copies
        else (f"{ranks} different slices, but draw the same mask")
    )


def same_slice(plan: ParallelPlan, axes: Sequence[str], one: int, other: int) -> bool:
    """Whether two ranks of a stage hold copies of a tensor that is cut along these axes of the grid."""
    places = [Mesh.of(plan).digits(rank) for rank in (one, other)]
    return all(places[0][axis] == places[1][axis] for axis in axes)


def _dimensions(cell: str, plan: ParallelPlan) -> Axes:
    """Axes in the sharding table for each dimension of a cell's input, by the cell's place in the network."""
    return table_of(plan).split(cell.rpartition(".")[2], "drop").inputs[0]


def salt_of(cell: str, model: ModelConfig) -> int:
    """The salt of a cell by its place, as model.pangu assigns it."""
    if cell == "embedding_dropout":
        return 0
    layer = layer_of(cell, model)
    assert layer is not None, cell
    kinds = ("attention.core.dropout", "attention_dropout", "feed_forward_dropout")
    return 3 * layer + 1 + next(i for i, kind in enumerate(kinds) if cell.endswith(kind))


class _Cell(NamedTuple):
    """The operators of a cell in a graph: those that run first, and how often a step runs each.

    Args:
        first: Operators that are not repetitions. The compiler gives a repetition the same `unique_id` as the
            operator that it repeats.
        runs: All operators, with their number of calls in a step.
        seen: The `unique_id` of each operator so far.
    """

    name: str
    model: mindir.Model
    first: list[tuple[mindir.Node, mindir.Function]]
    runs: list[tuple[mindir.Node, mindir.Function, int]]
    seen: set[int]

    def add(self, node: mindir.Node, function: mindir.Function, calls: int) -> None:
        """Adds the next operator of the graph."""
        mark = node.origin("unique_id")
        if mark is None or mark not in self.seen:
            self.first.append((node, function))
        self.seen.add(mark)
        self.runs.append((node, function, calls))

    @property
    def calls(self) -> int:
        """How often a step runs the cell, not counting recomputation."""
        return self.runs[0][2]

    @property
    def of_attention(self) -> bool:
        """Whether the cell drops attention weights."""
        return self.name.endswith(_WEIGHTS)

    def moved(self) -> int:
        """Bytes that the operators read and write in a step, with recomputation but without gradients."""
        return sum(
            calls * tensor.bytes
            for node, function, calls in self.runs
            for name in (*node.inputs, node.name)
            if (tensor := self.model.tensor(function, name))
        )


def _draw(cell: _Cell, plan: ParallelPlan) -> Draw:
    kernel = next((each for each in cell.first if each[0].type == _KERNEL), None)
    if kernel is None:
        found = [cell.model.tensor(function, node.name) for node, function in cell.first]
        tensors = [each for each in found if each]
        shape, dtype = max((each.shape for each in tensors), key=prod), tensors[-1].dtype
        whole = mindir.Tensor(shape, dtype)
        passes = sum(prod(each.shape) == prod(shape) for each in tensors)
        heads, seeds = _numbers(cell)
    else:
        node, function = kernel
        drawn = cell.model.tensor(function, node.inputs[0])
        assert drawn is not None  # the kernel's input is one tensor
        whole, passes, heads, seeds = drawn, 1, (), _seeds(node, function)
    elements, size = prod(whole.shape), whole.bytes // prod(whole.shape)
    kernel_bytes = (
        4 * elements * size + elements * 3 // 8
    ) * cell.calls  # x and y twice, the mask three times
    # The backward pass by formula: the gradient times the mask and, on the residual stream, rescaled.
    backward = elements * size * (3 if cell.of_attention else 5) * cell.calls
    if sum(node.type == "Cast" for node, *_ in cell.runs) == 1:
        # The one-byte mask is cast in both passes, but MindSpore 2.9 gives only one cast the cell's scope.
        backward += elements * (1 + size) * cell.calls
    cut_by = chain.from_iterable(single(axis, plan) for axis in _dimensions(cell.name, plan))
    return Draw(
        cell=cell.name,
        way="positional" if kernel is None else "device",
        seeds=seeds,
        heads=heads,
        axes=tuple(axis for axis in cut_by if grid(plan)[axis] > 1),
        shape=whole.shape,
        bytes=cell.moved() + backward if kernel is None else kernel_bytes,
        kernel_bytes=kernel_bytes,
        passes=passes,
    )


def _numbers(cell: _Cell) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of the heads, and a checksum of the columns' numbers."""
    constants = _constants(cell)
    return constants.get(_HEADS, ()), (_checksum(constants["columns"]),)


def _constants(cell: _Cell) -> dict[str, tuple[int, ...]]:
    """The numbers of columns and of heads: integer constants by which keys are multiplied."""
    found = {}
    for node, function in cell.first:
        for name in node.inputs if node.type == "Mul" else ():
            tensor, values = cell.model.tensor(function, name), _values(cell.model, name)
            if tensor is not None and tensor.dtype == "int32" and values is not None:
                found["columns" if len(tensor.shape) == 1 else _HEADS] = values
    return found


def _values(model: mindir.Model, name: str) -> tuple[int, ...] | None:
    """Elements of an int32 constant; None for anything else."""
    for function in model.functions:
        node = function.by_name.get(name)
        if node is not None and node.type == "Constant":
            for each in node.proto.attribute:
                if each.name == "value" and len(each.tensors) == 1:
                    return tuple(np.frombuffer(each.tensors[0].raw_data, np.int32).tolist())
    return None


def _checksum(numbers: Sequence[int] | np.ndarray) -> int:
    return zlib.crc32(np.asarray(numbers, np.int32).tobytes())


def _seeds(kernel: mindir.Node, function: mindir.Function) -> tuple[int, ...]:
    """Seed0 and Seed1 of the device's kernel: attributes, or the integers among its inputs."""
    named = [kernel.attribute(name) for name in ("Seed0", "Seed1")]
    if None not in named:
        return tuple(named)
    constants = (function.by_name.get(name) for name in kernel.inputs[1:])
    values = [
        mindir.value(each)
        for node in constants
        if node is not None and node.type == "Constant"
        for each in node.proto.attribute
        if each.name == "value"
    ]
    return tuple(value for value in values if type(value) is int)
