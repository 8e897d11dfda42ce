"""Converts a found way to split a block to a table of operators, and back.

The table is what training, dry runs, replays and checkpoints take; the way is what the search returns and
whose traffic is modelled. They contain the same information except for the forks of the residual stream,
which are no operators and therefore not in the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.operator_table import DATA, SHAPE, TENSOR, FoundTable, OperatorSplit, joined
from pangu_alpha.network.rows import Axes
from pangu_alpha.parallel.sharding import BLOCK, Split
from pangu_alpha.planner.operators.block import MINDSPORE, ROWS, Operator, block
from pangu_alpha.planner.operators.strategies import BlockStrategy, Choice, cheapest

_PRODUCTS = {  # by product: inner and outer dimension, and the operator that adds the bias
    "query": ("h", "a", "query_bias"),
    "key": ("h", "a", "key_bias"),
    "value": ("h", "a", "value_bias"),
    "output": ("a", "h", "attention_sum"),
    "up": ("h", "f", "gelu"),
    "down": ("f", "h", "feed_forward_sum"),
}
_CELLS_OF = {  # by operator of the block: cells of the table
    "attention_norm": ("LayerNorm attention_norm", "Normalize attention_norm"),
    "feed_forward_norm": ("LayerNorm feed_forward_norm", "Normalize feed_forward_norm"),
    "core": ("SplitHeads", "JoinHeads", "AttentionCore", "FlashAttention", "dropout"),
    "gelu": ("Gelu", "FastGelu"),
    "attention_sum": ("Block", "attention_dropout"),
    "feed_forward_sum": ("feed_forward_dropout",),
}
_SHOWN_BY = {  # by operator of the block: cell and operator of the table whose first input has the same cuts
    "attention_norm": ("Normalize attention_norm", "norm"),
    "feed_forward_norm": ("Normalize feed_forward_norm", "norm"),
    "core": ("AttentionCore", "softmax"),
    "attention_sum": ("Block", "add"),
    "feed_forward_sum": ("Block", "add"),
    **{adds: (f"Affine {name}", "add") for name, (_, _, adds) in _PRODUCTS.items() if adds.endswith("_bias")},
    "gelu": ("Affine up", "add"),
}


class _Cuts(NamedTuple):
    """The axes that cut an operator's rows, the dimension it sums over, and its columns."""

    rows: tuple[str, ...]
    sums: tuple[str, ...]
    columns: tuple[str, ...]


def found_table(strategy: BlockStrategy, model: ModelConfig, name: str) -> FoundTable:
    """Converts a way to split a block to a table.

    Args:
        strategy: A way for MindSpore's rules, without slices.
        model: The shape for which the way was found.
        name: What the file calls the model: the name of a shipped one, or the YAML that was given.

    Raises:
        ValueError: If a table cannot express the way.
    """
    if any(choice.slices > 1 for choice in strategy.choices.values()):
        raise ValueError("limit: matrices kept in slices are in no table of operators; leave the limit out")
    _check_sums(strategy)
    cells: dict[str, dict[str, OperatorSplit]] = {}
    for operator, keys in _CELLS_OF.items():
        cuts = _cuts(strategy, operator)
        for key in keys:
            cells[key] = {each: _renamed(split, cuts, _axes(strategy)) for each, split in BLOCK[key].items()}
    for operator in _PRODUCTS:
        cells |= _product(strategy, operator)
    sizes = dict(zip(_axes(strategy), strategy.block.axes, strict=True))
    shape = {key: getattr(model, key) for key in SHAPE}
    return FoundTable(name, shape, math.prod(sizes.values()), strategy.block.lengths["b"], sizes, cells)


def strategy_of(found: FoundTable, model: ModelConfig, batch: int, micro_batches: int = 1) -> BlockStrategy:
    """Converts a table to a way with modelled traffic.

    The table does not contain the forks of the residual stream; they get the cheapest layout.

    Args:
        model: A model that the table fits.
        batch: Sequences of a micro-batch on all devices that share a block.

    Raises:
        ValueError: If the search does not know such a way.
    """
    grid = block(model, found.devices, batch, MINDSPORE)
    if tuple(found.axes.values()) != grid.axes:
        raise ValueError(
            f"table: its axes have {tuple(found.axes.values())} devices, those of the model of traffic "
            f"{grid.axes}; only tables of such axes have a modelled traffic"
        )
    wanted = {name: _read(found, name) for name in (*_PRODUCTS, *_SHOWN_BY)}
    names = tuple(found.axes)

    def allowed(name: str, choice: Choice) -> bool:
        return name not in wanted or _of(choice, grid.operators[name], names) == wanted[name]

    return cheapest(grid, micro_batches, allowed=allowed)


def _axes(strategy: BlockStrategy) -> tuple[str, ...]:
    """Names of the axes, outermost first."""
    return tuple(f"{TENSOR}{number}" for number in range(len(strategy.block.axes)))


def _cuts(strategy: BlockStrategy, name: str) -> _Cuts:
    return _of(strategy.choices[name], strategy.block.operators[name], _axes(strategy))


def _of(choice: Choice, operator: Operator, names: tuple[str, ...]) -> _Cuts:
    """The axes that cut an operator if it is split by a choice."""
    inner = _PRODUCTS[operator.name][0] if operator.name in _PRODUCTS else ""

    def cut(dimensions: str) -> tuple[str, ...]:
        pairs = zip(names, choice.roles, strict=True)
        return tuple(name for name, role in pairs if role.name in dimensions)

    return _Cuts(cut(ROWS), cut(inner) if inner else (), cut("haf".replace(inner, "") if inner else "haf"))


def _read(found: FoundTable, name: str) -> _Cuts:
    """The axes that cut an operator according to a table."""

    def single(axis: str | None) -> tuple[str, ...]:
        parts = [] if axis is None else axis.split("+")
        tensor = [each for part in parts for each in (found.axes if part == TENSOR else (part,))]
        return tuple(each for each in tensor if each != DATA)

    if name in _PRODUCTS:
        (rows, sums), (columns, _) = found.cells[f"Affine {name}"]["matmul"].inputs
        return _Cuts(single(rows), single(sums), single(columns))
    cell, operator = _SHOWN_BY[name]
    rows, columns, *_ = found.cells[cell][operator].inputs[0]
    return _Cuts(single(rows), (), single(columns))


def _check_sums(strategy: BlockStrategy) -> None:
    """Checks that both residual sums are cut alike and by rows: one operator of the network is both."""
    first, second = (_cuts(strategy, name) for name in ("attention_sum", "feed_forward_sum"))
    if first != second:
        raise ValueError(
            f"the two residual sums are cut over {_words(first)} and {_words(second)}, but one operator of "
            "the network is both"
        )
    if first.columns:
        raise ValueError(f"the residual sums are cut over {_words(first)}; a table cuts them by rows alone")


def _words(cuts: _Cuts) -> str:
    return f"[{', '.join(joined(names, ()) or 'nothing' for names in (cuts.rows, cuts.columns))}]"


def _product(strategy: BlockStrategy, name: str) -> dict[str, dict[str, OperatorSplit]]:
    """The table's cells of a product.

    MatMul sums whole rows, or over all devices that share a sum and then scattered by rows.
    """
    tensor, cuts, adds = _axes(strategy), _cuts(strategy, name), _cuts(strategy, _PRODUCTS[name][2])

    def axis(*names: str) -> str | None:
        return joined(names, tensor)

    scattered = bool(set(cuts.sums) & set(adds.rows))
    output = (axis(DATA, *cuts.rows, *(cuts.sums if scattered else ())), axis(*cuts.columns))
    weight, bias = (axis(*cuts.columns), axis(*cuts.sums)), (axis(*adds.columns),)
    return {
        f"Linear {name}": {"cast_weight": OperatorSplit((weight,)), "cast_bias": OperatorSplit((bias,))},
        f"Affine {name}": {
            "matmul": OperatorSplit(((axis(DATA, *cuts.rows), axis(*cuts.sums)), weight), output),
            "add": OperatorSplit(((axis(DATA, *adds.rows), *bias), bias)),
        },
    }


def _renamed(split: Split, cuts: _Cuts, tensor: tuple[str, ...]) -> OperatorSplit:
    """A row of the hand-made table, with the axes of a found way in place of its own."""
    rows = joined((DATA, *cuts.rows), tensor)
    names: Mapping[str | None, str | None] = {
        "dp": rows,
        "sp": rows,
        "tp": joined(cuts.columns, tensor),
        None: None,
    }

    def renamed(axes: Axes) -> Axes:
        return tuple(names[axis] for axis in axes)

    return OperatorSplit(
        tuple(renamed(axes) for axes in split.inputs), split.output and renamed(split.output)
    )
