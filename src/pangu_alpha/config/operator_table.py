"""A found operator table in a run's configuration: users give its file, and its content is kept.

The content travels with the plan into checkpoints, dry runs and other ranks, so none of them needs the file.
Knows the form of the file and the names of its axes; parallel.sharding knows which cells and operators a
network has.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.option import REQUIRED, option
from pangu_alpha.config.schema import (
    ConfigError,
    build,
    nearest,
    read_yaml,
    to_mapping,
    validate,
)
from pangu_alpha.files.paths import expand_path
from pangu_alpha.files.reading import ReadError

SHAPE = ("hidden_size", "num_heads", "ffn_size", "seq_length")  # the splits of a block depend on these
DATA, TENSOR = "dp", "tp"
_FOLLOWS = "cast"  # MindSpore 2.9 splits a Cast like its neighbour, whatever its own strategy says


@dataclass(frozen=True)
class OperatorSplit:
    """How one operator is split.

    Raises:
        ConfigError: Lists all fields that have the wrong type.
    """

    inputs: tuple[tuple[str | None, ...], ...] = option(
        REQUIRED,
        "for each input the axis of each of its dimensions: a name, names joined by + from the outermost on, "
        "or null where the dimension is whole",
    )
    output: tuple[str | None, ...] | None = option(
        None,
        "axes of the dimensions of the output, where partial sums may be summed whole or by slices",
        omitted=True,
    )

    def __post_init__(self) -> None:
        validate(self)

    def names(self) -> Iterator[str]:
        """Yields the axes that it names, in the order of the operator's grid of devices.

        MindSpore arranges the devices of an operator by the dimensions of its first input, and then by those
        dimensions of the other inputs that the first does not have.
        """
        dimensions = itertools.chain.from_iterable(self.inputs)
        named = (name for axis in dimensions if axis is not None for name in axis.split("+"))
        yield from dict.fromkeys(named)


@dataclass(frozen=True)
class FoundTable:
    """How the operators of every block are split, as `plan.py operators --output` writes it.

    Args:
        model: Name or file of the model that the table was found for.
        block: Shape of that model's blocks, with the names in SHAPE as keys.
        devices: Number of devices that share a block, which is tp of a plan.
        batch_size: Rows of the micro-batch that the table was found for.
        axes: Size of each axis, outermost first; their product is tp.
        cells: Cell -> operator -> the axes of its inputs and output, for all operators of a block.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    model: str
    block: dict[str, int]
    devices: int
    batch_size: int
    axes: dict[str, int]
    cells: dict[str, dict[str, OperatorSplit]]

    def __post_init__(self) -> None:
        validate(self)

    def __str__(self) -> str:
        return f"found for {self.model}, {self.devices} devices"

    def __hash__(self) -> int:
        return hash(json.dumps(to_mapping(self)))

    @classmethod
    def read(cls, path: str) -> FoundTable:
        """Reads a table from a file.

        Raises:
            ConfigError: The file cannot be read, or does not hold a table.
        """
        try:
            path = expand_path(path)
        except ReadError as error:
            raise ConfigError([f"table: {error}"]) from error
        return build(cls, read_yaml(path), path)

    of_file = read  # what a configuration takes a name for

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if not all(isinstance(each, dict) for each in (self.block, self.axes, self.cells)):
            return  # one of them has the wrong type, which is reported already
        for name in SHAPE:
            if name not in self.block:
                yield f"block: {name} is missing; a table says the shape it was found for: {', '.join(SHAPE)}"
        for name in self.block:
            if name not in SHAPE:
                yield f"block.{name}: unknown key; {nearest(name, SHAPE)}"
        if self.batch_size < 1:
            yield f"batch_size: {self.batch_size} must be at least 1"
        yield from self._rules_of_axes()
        for cell, operators in self.cells.items():
            for operator, split in operators.items():
                ordered = not operator.startswith(_FOLLOWS)
                yield from (f"cells.{cell}.{operator}: {each}" for each in self._problems(split, ordered))

    def _rules_of_axes(self) -> Iterator[str]:
        for name, size in self.axes.items():
            if size < 2:
                yield f"axes.{name}: {size} must be at least 2"
            if name in (DATA, TENSOR) or not name.isalnum():
                yield (
                    f"axes.{name}: give another name, of letters and digits; dp is the plan's and tp all of "
                    "these axes together"
                )
        if math.prod(self.axes.values()) != self.devices:
            sizes = " * ".join(map(str, self.axes.values())) or "no axis"
            yield f"devices: {self.devices}, but the axes have {sizes} = {math.prod(self.axes.values())}"

    def _problems(self, split: OperatorSplit, ordered: bool) -> Iterator[str]:
        """Yields what is wrong with the axes of one operator; `ordered` checks their order, too."""
        order = [DATA, *self.axes]
        for name in split.names():
            if name not in (*order, TENSOR):
                yield f"axis {name!r} is not known; {nearest(name, (*order, TENSOR))}"
                return
        for axes in (*split.inputs, split.output or ()):
            twice = _twice(self._expanded(axes))
            if twice is not None:
                yield f"axis {twice!r} cuts two dimensions of one tensor; an axis cuts one"
                return
        places = [order.index(name) for name in self._expanded(split.names())]
        if ordered and places != sorted(places):
            yield (
                f"the axes are in the order {', '.join(split.names())}, but MindSpore gives an operator's "
                f"devices out in the order {', '.join(order)}: dimension by dimension, a product's rows, "
                "inner and outer dimension"
            )

    def _expanded(self, axes: Iterable[str | None]) -> list[str]:
        """Expands the names to single axes, outermost first."""
        names = (name for axis in axes if axis is not None for name in axis.split("+"))
        return list(itertools.chain.from_iterable(self.axes if name == TENSOR else (name,) for name in names))

    def misfits(self, tp: int, model: ModelConfig) -> Iterator[str]:
        """Yields one sentence for every way in which the table does not fit a plan's tp or a model."""
        if self.devices != tp:
            yield f"table: was found for {self.devices} devices, but tp is {tp}; give tp {self.devices}"
        for name in SHAPE:
            if self.block[name] != getattr(model, name):
                yield (
                    f"table: was found for {name} {self.block[name]}, the model has {getattr(model, name)}; "
                    "find one for it by plan.py operators --output"
                )


def _twice(names: Iterable[str]) -> str | None:
    """Returns the first name that occurs twice, or None."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def joined(names: Iterable[str], tensor: Sequence[str]) -> str | None:
    """Joins single axes, outermost first, to one name; None if there are none.

    Args:
        tensor: All axes into which tp is divided; if the names end with all of them, they become "tp".
    """
    names = list(names)
    if tensor and names[-len(tensor) :] == list(tensor):
        names[-len(tensor) :] = [TENSOR]
    return "+".join(names) or None


def table_text(table: FoundTable, comment: str = "") -> str:
    """Writes a table as YAML that `FoundTable.read` can read, with one operator on each line.

    Args:
        comment: Lines to put above it.
    """
    lines = [*(f"# {line}" for line in comment.splitlines())]
    values = to_mapping(table)
    cells: Mapping[str, Mapping[str, Mapping[str, list]]] = values.pop("cells")
    for key, value in values.items():
        lines.append(f"{key}: {_flow(value)}")
    lines.append("cells:")
    for cell, operators in cells.items():
        lines.append(f"  {cell}:")
        lines += [f"    {operator}: {_flow(split)}" for operator, split in operators.items()]
    return "\n".join(lines) + "\n"


def _flow(value: object) -> str:
    """A value as YAML on one line; strings that could be read as something else are quoted, as in JSON."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and value.replace("+", "").isalnum() and value[0].isalpha():
        return value
    return json.dumps(value, ensure_ascii=False)
