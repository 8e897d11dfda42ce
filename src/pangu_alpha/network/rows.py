"""What a row of the table of parameters says: name, shape, initial values, decay, axes and stage.

Knows no network. The rows of PanGu-alpha, and how rows become the parameters of one network, stand in
network.parameters.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

Axes = tuple[str | None, ...]


class Stage(enum.Enum):
    """Which stage of a pipeline trains a parameter."""

    FIRST = "first"
    LAYER = "layer"  # the stage of the layer that the parameter belongs to
    LAST = "last"


@dataclass(frozen=True)
class Constant:
    """Every element has one value.

    Args:
        value: Of every element.
    """

    value: float

    def at_depth(self, num_layers: int) -> Constant:
        """The same: constants do not depend on the network's depth."""
        return self


@dataclass(frozen=True)
class Normal:
    """Normally distributed values around 0.

    Args:
        std: Standard deviation, before any cut.
        cut: Values beyond so many standard deviations are drawn again.
        residual: Divide `std` by sqrt(2 L), as each of the L layers adds two results to the residual stream.
    """

    std: float
    cut: float = math.inf
    residual: bool = False

    def at_depth(self, num_layers: int) -> Normal:
        """The distribution in a network of so many layers, its division done."""
        return Normal(self.std / math.sqrt(2 * num_layers), self.cut) if self.residual else self


@dataclass(frozen=True)
class Layers:
    """Layers of a network whose parameters are named alike.

    Args:
        name: What their parameters' names begin with; "*" stands for a layer's number, from 0.
        first: Number of the first of them; below 0 it counts from the end, as in a slice.
        end: Where they end; None is the network's last layer.
    """

    name: str
    first: int = 0
    end: int | None = None

    def numbers(self, num_layers: int) -> range:
        """Their numbers in a network of so many layers."""
        return range(num_layers)[self.first : self.end]


class Use(NamedTuple):
    """An operator that reads a parameter, as the operators' table (parallel.sharding) names it.

    Args:
        cell: The operator's row there.
        operator: Its attribute in the cell.
        place: Which of its inputs the parameter is, from 0.
    """

    cell: str
    operator: str
    place: int


@dataclass(frozen=True)
class Row:
    """A parameter, or one for each layer where `layers` is given.

    Args:
        name: Full name; "*" stands for the number of the layer.
        shape: Sizes of the dimensions, separated by blanks: letters of the network, or numbers.
        init: Initial values.
        decayed: Whether weight decay acts on it.
        axes: Name of the axes that each dimension is cut over.
        stage: Which stage of a pipeline trains it.
        layers: The layers that have such a parameter each.
        group: What summaries count it with.
        tied: A table that embeds tokens on the first stage and gives the logits on the last. Its rows are
            padded until they can be cut, and the first stage sends it to the last in every step.
        cast: Read in the compute type alone, so that a sharded one may be gathered in that type.
        in_backward: Its values are needed for the gradients of others.
        uses: The operators that read it, whose cuts of it must be `axes`.
    """

    name: str
    shape: str
    init: Constant | Normal
    decayed: bool
    axes: Axes
    stage: Stage
    layers: Layers | None = None
    group: str = "other"
    tied: bool = False
    cast: bool = False
    in_backward: bool = True
    uses: tuple[Use, ...] = ()

    @property
    def part(self) -> str:
        """Its name within its layer; the full name outside of layers."""
        return self.name.removeprefix(f"{self.layers.name}.") if self.layers else self.name

    @property
    def sizes(self) -> tuple[str, ...]:
        """Letters or numbers of its dimensions."""
        return tuple(self.shape.split())


def in_layers(layers: Layers, stage: Stage, rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows of each of some layers.

    Args:
        layers: Where they are.
        stage: Theirs; whatever the rows say of layers and stage does not matter.
        rows: Named within a layer.
    """
    return tuple(replace(row, name=f"{layers.name}.{row.name}", layers=layers, stage=stage) for row in rows)
