"""Checks that a found table of operators cuts heads, sequences, rows and parameters into equal parts.

config.parallel compares the shape that the table was found for. This check is for tables that were edited,
and for batch sizes, which a plan does not contain.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.operator_table import DATA
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.network.parameters import parameter_table
from pangu_alpha.parallel.axes import degree
from pangu_alpha.parallel.layout import axes_of
from pangu_alpha.parallel.sharding import table_of, unknown

_CORE = ("AttentionCore", "softmax")  # its input is [B, N, S, C]


def unfit(plan: ParallelPlan, model: Any, batch_size: int) -> Iterator[str]:
    """Yields one sentence for everything in a network that a plan's found table cuts into unequal parts.

    Args:
        plan: A plan that fits the network; without a found table, nothing is yielded.
        batch_size: Rows of one micro-batch on each data-parallel rank.
    """
    if plan.table is None:
        return
    if not isinstance(model, ModelConfig):
        yield f"table: splits the blocks of PanGu-alpha; {type(model).__name__} has others: leave it out"
        return
    if problems := [f"table: {problem}" for problem in unknown(plan.table)]:
        yield from problems
        return
    sequences = batch_size * degree(DATA, plan)
    for what, size, cell, operator, place in _sizes(plan, model, sequences):
        axis = table_of(plan).split(cell, operator).inputs[0][place]
        if size % (parts := degree(axis, plan)):
            yield (
                f"table: cells.{cell}.{operator} cuts {what} over {axis}, which is {parts} devices; {size} "
                f"do not divide so: {'change the batch size' if place == 0 else 'change the table'}"
            )
    yield from _uncut_parameters(plan, model)


def _sizes(
    plan: ParallelPlan, model: ModelConfig, sequences: int
) -> Iterator[tuple[str, int, str, str, int]]:
    """Yields what is cut, its size, cell and operator of the table, and the dimension of the first input."""
    yield "sequences", sequences, *_CORE, 0
    yield "heads", model.num_heads, *_CORE, 1
    assert plan.table is not None
    for cell, operators in plan.table.cells.items():
        for operator, each in operators.items():
            if operator != "cast" and len(each.inputs[0]) == 2 and not cell.startswith("Linear"):
                yield "rows", sequences * model.seq_length, cell, operator, 0


def _uncut_parameters(plan: ParallelPlan, model: ModelConfig) -> Iterator[str]:
    table = table_of(plan)
    for name, spec in parameter_table(model).items():
        for size, axis in zip(spec.shape, axes_of(spec, table), strict=True):
            if size % (parts := degree(axis, plan)) and not spec.tied:  # the tied table is padded
                yield f"table: cuts {size} of {name} over {axis}, which is {parts} devices; change the table"
