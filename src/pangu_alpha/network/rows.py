"""The form of a row in the table of parameters: name, shape, initial values, decay, axes and stage.

Knows no network. network.parameters has the rows of PanGu-alpha, and turns rows into the parameters of one
network.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

Axes = tuple[str | None, ...]


class Stage(enum.Enum):
    """The pipeline stage that trains a parameter."""

    FIRST = "first"
    LAYER = "layer"  # the stage of the layer that the parameter belongs to
    LAST = "last"


@dataclass(frozen=True)
class Constant:
    """The same initial value for every element."""

    value: float

    def at_depth(self, num_layers: int) -> Constant:
        """Returns this object, because constants do not depend on the network's depth."""
        return self


@dataclass(frozen=True)
class Normal:
    """Initial values from a normal distribution around 0.

    Args:
        std: Standard deviation, before any cut.
        cut: Values beyond this number of standard deviations are drawn again.
        residual: Whether `std` is divided by sqrt(2 L), because each of the L layers adds two results to the
            residual stream.
    """

    std: float
    cut: float = math.inf
    residual: bool = False

    def at_depth(self, num_layers: int) -> Normal:
        """The distribution in a network of this depth, after the division by sqrt(2 L) if there is one."""
        return Normal(self.std / math.sqrt(2 * num_layers), self.cut) if self.residual else self


@dataclass(frozen=True)
class Layers:
    """Layers of a network whose parameters have the same names, except for the layer's number.

    Args:
        name: Beginning of their parameters' names; "*" stands for a layer's number, from 0.
        first: Number of the first of them; a negative number counts from the end, as in a slice.
        end: Number after the last of them, as in a slice; None is the end of the network.
    """

    name: str
    first: int = 0
    end: int | None = None

    def numbers(self, num_layers: int) -> range:
        """Their numbers in a network of this depth."""
        return range(num_layers)[self.first : self.end]


class Use(NamedTuple):
    """An operator that reads a parameter, named as in the operator table (parallel.sharding).

    Args:
        cell: The operator's row in that table.
        operator: The operator's attribute in the cell.
        place: Index of the operator's input that is the parameter, from 0.
    """

    cell: str
    operator: str
    place: int


@dataclass(frozen=True)
class Row:
    """A parameter; with `layers`, one in each of these layers.

    Args:
        name: Full name; "*" stands for the number of the layer.
        shape: Sizes of the dimensions, separated by blanks: letters of the network, or numbers.
        decayed: Whether weight decay applies to it.
        axes: For each dimension, the name of the axes it is cut over; None if it is whole.
        stage: The pipeline stage that trains it.
        layers: The layers that each have such a parameter; None for a parameter outside the layers.
        group: Group in which summaries count it.
        tied: Whether it is a table that embeds tokens on the first stage and gives the logits on the last.
            Such a table is padded with rows until it can be cut evenly, and the first stage sends it to the
            last in every step.
        cast: Whether it is read only in the compute type, so that a sharded one can be gathered in that type.
        in_backward: Whether the gradients of other tensors need its values.
        uses: The operators that read it; they must cut it as `axes` says.
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
        """Its name within its layer, or the full name outside the layers."""
        return self.name.removeprefix(f"{self.layers.name}.") if self.layers else self.name

    @property
    def sizes(self) -> tuple[str, ...]:
        """Letter or number of each dimension."""
        return tuple(self.shape.split())


def in_layers(layers: Layers, stage: Stage, rows: Iterable[Row]) -> tuple[Row, ...]:
    """Returns the rows of one layer as rows of `layers`.

    Args:
        stage: Stage of these layers; it replaces the stage in the rows.
        rows: Rows whose names are relative to the layer.
    """
    return tuple(replace(row, name=f"{layers.name}.{row.name}", layers=layers, stage=stage) for row in rows)
