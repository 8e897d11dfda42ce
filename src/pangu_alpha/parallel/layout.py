"""Where every parameter lies under a plan: cut how, on which stages, held by how many devices.

Derived from the sharding table; the proof compares it with what MindSpore really did.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.parallel.axes import degree, grid, part_at, single
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.sharding import HAND_MADE, Axes, OperatorTable, table_of

_BYTES = 4  # of a stored element: parameters, moments and gradient sums are float32

# Which input of which operator a parameter is, by its last name; linears and embeddings have their own rows.
_INPUTS = {
    "weight": ("Affine", "matmul", 1),
    "bias": ("Affine", "add", 1),
    "gamma": ("Normalize", "norm", 1),
    "beta": ("Normalize", "norm", 2),
    "table": ("", "gather", 0),
}


@dataclass(frozen=True)
class Layout:
    """One parameter under a plan.

    Args:
        shape: Of the whole, padding included.
        axes: Axis of the grid each dimension is cut over.
        parts: Into how many parts each dimension is cut by them.
        optimizer_parts: Into how many parts the rows of such a slice are cut by the optimizer's sharding.
        stage: The stage that trains it.
    """

    shape: tuple[int, ...]
    axes: Axes
    parts: tuple[int, ...]
    optimizer_parts: int
    stage: int

    @property
    def slice_shape(self) -> tuple[int, ...]:
        """What one device holds."""
        first, *rest = (size // parts for size, parts in zip(self.shape, self.parts, strict=True))
        return (first // self.optimizer_parts, *rest)

    def share(self, plan: ParallelPlan) -> float:
        """1 / number of devices that train each element."""
        return math.prod(self.parts) * self.optimizer_parts / (plan.dp * plan.tp)

    def start(self, plan: ParallelPlan, rank: int) -> tuple[int, ...] | None:
        """Where in the whole a rank's slice begins; None for a rank of another stage.

        The rows of a slice are shared by the ranks of the stage that hold it, in their order.
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


def parameter_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of a network by name, without padding."""
    hidden, ffn = model.hidden_size, model.ffn_size
    shapes = {
        "word_embedding.table": (model.vocab_size, hidden),
        "position_embedding.table": (model.seq_length, hidden),
        "query_embedding.table": (model.seq_length, hidden),
    }
    for layer in [*(f"blocks.{index}" for index in range(model.num_layers - 1)), "query_layer"]:
        shapes |= {f"{layer}.{norm}": (hidden,) for norm in _names("attention_norm", "feed_forward_norm")}
        for linear in ("query", "key", "value", "output"):
            shapes |= _linear(f"{layer}.attention.{linear}", hidden, hidden)
        shapes |= _linear(f"{layer}.feed_forward.up", ffn, hidden)
        shapes |= _linear(f"{layer}.feed_forward.down", hidden, ffn)
    return shapes | dict.fromkeys(_names("final_norm"), (hidden,))


def layouts(shapes: Mapping[str, Sequence[int]], model: ModelConfig, plan: ParallelPlan) -> dict[str, Layout]:
    """Layout of every parameter.

    Args:
        shapes: Whole shape by name, without padding.
        model: The network's shape.
        plan: A plan that fits it.
    """
    table = table_of(plan)
    return {
        name: _layout(name, axes_of(name, table), tuple(shape), model, plan) for name, shape in shapes.items()
    }


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
    mesh, writers = Mesh.of(plan), {}
    for number, (name, layout) in enumerate(sorted(placed.items())):
        if names is not None and name not in names:
            continue
        holders: dict[tuple[int, ...], list[int]] = {}
        for rank in mesh.stage_ranks(layout.stage):
            holders.setdefault(layout.start(plan, rank), []).append(rank)
        writers[name] = {begin: ranks[number % len(ranks)] for begin, ranks in holders.items()}
    return writers


def written_slices(placed: Mapping[str, Layout], plan: ParallelPlan, rank: int) -> dict[str, tuple[int, ...]]:
    """The slices that a rank writes into a checkpoint: name -> where it begins."""
    writers = slice_writers(placed, plan)
    return {
        name: begin for name, slices in writers.items() for begin, writer in slices.items() if writer == rank
    }


def axes_of(name: str, table: OperatorTable = HAND_MADE) -> Axes:
    """Axis of the grid each dimension of a parameter is cut over, by a table of operators."""
    *cells, last = name.split(".")
    kind, operator, place = _INPUTS[last]
    path = [*cells, kind.lower()] if kind else cells
    return table.split(table.key(path, kind), operator).inputs[place]


def stage_of(name: str, model: ModelConfig, plan: ParallelPlan) -> int:
    """Stage that trains a parameter; the first sends the tied table to the last once a step."""
    first, *rest = name.split(".")
    if first == "blocks":
        return plan.stage_of_layer(int(rest[0]), model.num_layers)
    return 0 if first in ("word_embedding", "position_embedding") else plan.pp - 1


def padded_vocabulary(vocab_size: int, plan: ParallelPlan) -> int:
    """Rows of the embedding table under a plan: the next multiple of the parts it is cut into."""
    parts = degree("vp", plan)
    return -(-vocab_size // parts) * parts


def shards_tied_table(plan: ParallelPlan) -> bool:
    """Whether the optimizer's sharding may cut the tied table, which two operators read.

    Not when it is on two stages, and not under level3: MindSpore 2.9 then adds the gradient of one use,
    scattered, to that of the other, whole.
    """
    return plan.pp == 1 and plan.optimizer_parallel != "level3"


def is_tied(name: str) -> bool:
    """Whether a parameter is the table that embeds tokens and gives the logits."""
    return name == "word_embedding.table"


def _names(*norms: str) -> Iterator[str]:
    for norm in norms:
        yield from (f"{norm}.gamma", f"{norm}.beta")


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _layout(name: str, axes: Axes, shape: tuple[int, ...], model: ModelConfig, plan: ParallelPlan) -> Layout:
    parts = tuple(degree(axis, plan) for axis in axes)
    if is_tied(name):
        shape = (padded_vocabulary(shape[0], plan), *shape[1:])
    rows = shape[0] // parts[0]
    spread = plan.dp * plan.tp // math.prod(parts)
    sharded = (
        plan.optimizer_parallel != "none"
        and rows % spread == 0
        and math.prod(shape) * _BYTES >= plan.optimizer_threshold * 1024
        and (shards_tied_table(plan) or not is_tied(name))
    )
    return Layout(shape, axes, parts, spread if sharded else 1, stage_of(name, model, plan))
