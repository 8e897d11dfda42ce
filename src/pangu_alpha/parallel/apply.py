"""Applies a plan to a network from outside, in a fixed order; the network's code knows nothing of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from mindspore import Tensor, nn, ops

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.model.layers import empty_parameter
from pangu_alpha.model.operators.dropout import AttentionDropout, Dropout
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.network.parameters import parameter_table
from pangu_alpha.network.rows import Axes
from pangu_alpha.parallel import layout
from pangu_alpha.parallel.axes import degree
from pangu_alpha.parallel.sharding import DERIVED, HAND_MADE, OperatorTable


def apply_plan(loss: nn.Cell, model: PanguAlpha, plan: ParallelPlan, table: OperatorTable | None) -> None:
    """Splits, stages and marks a network for a plan; a plan of one device changes nothing.

    Args:
        loss: The cell that is differentiated, which contains the model.
        plan: A plan that fits the model (config.parallel.misfits).
        table: How each operator is split (sharding.table_of); None leaves that to MindSpore's own search.
    """
    if plan.devices == 1:
        return
    pad_vocabulary(model, plan)
    if table is not None:
        shard(loss, plan, table)
    place_on_stages(loss, model, plan)
    recompute(model, plan)
    shard_optimizer(model, plan)


def pad_vocabulary(model: PanguAlpha, plan: ParallelPlan) -> None:
    """Adds rows of zeros to the tied table; the loss masks them, so they stay zero."""
    for cell, attribute in tied_tables(model):
        table = getattr(cell, attribute)
        rows = layout.padded_vocabulary(table.shape[0], plan)
        if rows > table.shape[0]:
            padded = empty_parameter(rows, table.shape[1])
            if not table.has_init:  # it already has values
                padding = ((0, rows - table.shape[0]), (0, 0))
                padded.set_data(Tensor(np.pad(table.asnumpy(), padding)))
            padded.name = table.name
            setattr(cell, attribute, padded)


def tied_tables(model: PanguAlpha) -> Iterator[tuple[nn.Cell, str]]:
    """Yields the tables that also give the logits, as a cell and its attribute."""
    cells = dict(model.cells_and_names())
    for name, spec in parameter_table(model.config).items():
        if spec.tied:
            path, _, attribute = name.rpartition(".")
            yield cells[path], attribute


def operators(network: nn.Cell, table: OperatorTable = HAND_MADE) -> Iterator[tuple[str, str, ops.Primitive]]:
    """Yields every operator that a network uses: (its cell's row in the table, its attribute, operator)."""
    for path, cell in network.cells_and_names():
        if getattr(cell, "off", False):
            continue
        for attribute, value in vars(cell).get("_primitives", {}).items():
            yield table.key(path.split("."), type(cell).__name__), attribute, value


def shard(network: nn.Cell, plan: ParallelPlan, table: OperatorTable) -> None:
    """Gives every operator its strategy.

    Raises:
        KeyError: An operator is not in the table.
    """
    for cell, attribute, operator in operators(network, table):
        if operator.name in DERIVED:
            continue
        entry = table.split(cell, attribute)
        strategy = tuple(_in_numbers(axes, plan) for axes in entry.inputs)
        output = entry.output and (_in_numbers(entry.output, plan),)
        operator.shard(strategy, output)


def _in_numbers(axes: Axes, plan: ParallelPlan) -> tuple[int, ...]:
    return tuple(degree(axis, plan) for axis in axes)


def place_on_stages(loss: nn.Cell, model: PanguAlpha, plan: ParallelPlan) -> None:
    """Puts every cell on the stage that trains its parameters, and the loss on the last stage."""
    if plan.pp == 1:
        return
    cells, last = dict(model.cells_and_names()), plan.pp - 1
    for spec in parameter_table(model.config).values():
        cells[spec.cell].pipeline_stage = layout.stage_of(spec, model.config, plan)
    loss.token_loss.cross_entropy.pipeline_stage = last
    for cell, attribute in tied_tables(model):
        getattr(cell, attribute).add_pipeline_stage(last)


def recompute(model: PanguAlpha, plan: ParallelPlan) -> None:
    """Marks what each layer computes again in the backward pass."""
    for index, block in enumerate([*model.blocks, model.query_layer]):
        mode = plan.recompute_of_layer(index)
        if mode == "full":
            block.recompute()
        elif mode == "selective":
            block.attention.core.recompute()
    for _, cell in model.cells_and_names():
        if isinstance(cell, (Dropout, AttentionDropout)):
            cell.cast.recompute()  # keeps a mask as bytes, one for each element, not in the compute type


def shard_optimizer(model: PanguAlpha, plan: ParallelPlan) -> None:
    """Excludes the tied table from the optimizer's sharding where MindSpore cannot shard it."""
    if not layout.shards_tied_table(plan):
        for cell, attribute in tied_tables(model):
            getattr(cell, attribute).parallel_optimizer = False
