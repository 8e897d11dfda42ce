"""Where every parameter lies under a plan: cut how, on which stages, held by how many devices.

Derived from the sharding table; the proof compares it with what MindSpore really did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.parallel.sharding import COLUMN, SHARDING, Axes, degrees

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


def layouts(shapes: Mapping[str, Sequence[int]], model: ModelConfig, plan: ParallelPlan) -> dict[str, Layout]:
    """Layout of every parameter.

    Args:
        shapes: Whole shape by name, without padding.
        model: The network's shape.
        plan: A plan that fits it.
    """
    return {name: _layout(name, tuple(shape), model, plan) for name, shape in shapes.items()}


def axes_of(name: str) -> Axes:
    """Axis of the grid each dimension of a parameter is cut over, by the table."""
    *_, owner, last = name.split(".")
    row, operator, place = _INPUTS[last]
    if row == "Affine":
        row = f"Affine {'column' if owner in COLUMN else 'row'}"
    return SHARDING[row or owner][operator].inputs[place]


def stage_of(name: str, model: ModelConfig, plan: ParallelPlan) -> int:
    """Stage that trains a parameter; the first sends the tied table to the last once a step."""
    first, *rest = name.split(".")
    if first == "blocks":
        return plan.stage_of_layer(int(rest[0]), model.num_layers)
    return 0 if first in ("word_embedding", "position_embedding") else plan.pp - 1


def padded_vocabulary(vocab_size: int, plan: ParallelPlan) -> int:
    """Rows of the embedding table under a plan: the next multiple of the parts it is cut into."""
    parts = degrees(plan)["vp"]
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


def _layout(name: str, shape: tuple[int, ...], model: ModelConfig, plan: ParallelPlan) -> Layout:
    axes, degree = axes_of(name), degrees(plan)
    parts = tuple(degree[axis] for axis in axes)
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
