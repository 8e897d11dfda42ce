"""Breaks a plan on purpose, each in one place: what a replay must not pass.

Functions without arguments are called in the compiling child by Job.patch; the others edit what a replay
reads.
"""

from __future__ import annotations

import numpy as np

from pangu_alpha.proof.graph import mindir


def patch(name: str) -> str:
    """How Job.patch names a function of this file."""
    return f"controls:{name}"


def mean_of_means() -> None:
    """The loss divides by the tokens of each micro-batch, as if all held equally many."""
    from mindspore import ops

    from pangu_alpha.parallel.sharding import SHARDING, split
    from pangu_alpha.training.loss import MicroBatchLoss

    def construct(self, input_ids, labels, loss_mask, position_ids, document_ids):
        nll = self.token_loss(input_ids, labels, position_ids, document_ids, None)
        return self.div(self.sum(self.mul(nll, loss_mask)), self.count(loss_mask))

    def with_mean(self, token_loss):
        made(self, token_loss)
        self.count = ops.ReduceSum()
        self.div = ops.Div()

    made = MicroBatchLoss.__init__
    MicroBatchLoss.__init__ = with_mean
    MicroBatchLoss.construct = construct
    SHARDING["MicroBatchLoss"].update(count=split(("dp", None)), div=split((), ()))


def norm_counts_twice() -> None:
    """The norm counts a tensor that two devices hold as if each had a part of its own."""
    from pangu_alpha.parallel import reductions as sums

    def with_fault(self, shares, row_share):
        shares = list(shares)
        place = next(i for i, share in enumerate(shares) if share == 0.5)
        shares[place] = 1.0
        made(self, shares, row_share)

    made = sums.Partitioned.__init__
    sums.Partitioned.__init__ = with_fault


def draws_the_whole_model() -> None:
    """The engine fills every parameter of all stages before the compiler cuts them into slices."""
    from pangu_alpha.model.initialization import initialize
    from pangu_alpha.training.partitioned.engine import PartitionedEngine

    def with_values(self):
        step = make(self)
        model = next(cell for _, cell in step.cells_and_names() if type(cell).__name__ == "PanguAlpha")
        initialize(model, self.config.run.seed)
        return step

    make = PartitionedEngine._make_step
    PartitionedEngine._make_step = with_values


def wrong_strategy() -> None:
    """The weights of column-parallel products are whole on every device, against the table."""
    from pangu_alpha.parallel.sharding import SHARDING, OperatorTable, split
    from pangu_alpha.training.partitioned import step as partitioned

    row = {"matmul": split(("dp", None), (None, None)), "add": split(("dp", None), (None,))}
    casts = {"cast_weight": split((None, None)), "cast_bias": split((None,))}
    wrong = OperatorTable({**SHARDING, "Affine column": row, "Linear column": casts})
    partitioned.table_of = lambda plan: wrong


def wrong_table() -> None:
    """The table itself says so: everything that is derived from it agrees."""
    from pangu_alpha.parallel.sharding import SHARDING, split

    SHARDING["Affine column"].update(
        matmul=split(("dp", None), (None, None)), add=split(("dp", None), (None,))
    )
    SHARDING["Linear column"].update(cast_weight=split((None, None)), cast_bias=split((None,)))


def seeds_of_the_cell_alone() -> None:
    """The device's dropout is seeded alike on all ranks."""
    from pangu_alpha.training.partitioned import engine as partitioned_engine

    partitioned_engine.dropout_stream = lambda config, rank: (1,)


def copies_drawn_apart() -> None:
    """Masks by position depend on the rank, on the residual stream, too, of which tp ranks hold copies."""
    from mindspore.communication import get_rank

    from pangu_alpha.model.operators import dropout

    true_numbers = dropout.salted
    dropout.salted = lambda numbers, salt: true_numbers(numbers, salt + 1000 * get_rank())


def swap_slices(values: dict[int, dict[str, np.ndarray]]) -> None:
    """Ranks 0 and 1 hold each other's slice of one weight."""
    name = "blocks.0.feed_forward.up.weight"
    values[0][name], values[1][name] = values[1][name], values[0][name]


def leave_out_all_reduce(graphs: dict[int, mindir.Model]) -> None:
    """No rank sums the partial products of one row-parallel product."""
    for rank, model in graphs.items():
        place = next(each for each in mindir.collectives(model) if each.phase == "forward" and _is_sum(each))
        graphs[rank] = bypass(model, place.node)


def leave_out_on_rank_0(graphs: dict[int, mindir.Model]) -> None:
    """Rank 0 alone does not: the others wait."""
    alone = {0: graphs[0]}
    leave_out_all_reduce(alone)
    graphs[0] = alone[0]


def forget_tied_gradient(graphs: dict[int, mindir.Model]) -> None:
    """The first stage receives the head's gradient of the tied table, but does not add it to its own."""
    for rank, model in graphs.items():
        for each in mindir.collectives(model):
            if each.operation == "Receive" and each.phase == "gradient":
                (adds,) = [
                    node.name
                    for node in model.functions[0].nodes
                    if node.type == "AssignAdd" and each.node in node.inputs
                ]
                graphs[rank] = bypass(graphs[rank], adds, place=1)


def forget_status(graphs: dict[int, mindir.Model]) -> None:
    """Nobody looks at the float status that the graph has read: its use sees the zeros that went in."""
    for rank, model in graphs.items():
        (read,) = [node.name for node in model.functions[0].nodes if node.type == "NPUGetFloatStatusV2"]
        graphs[rank] = bypass(model, read)


def bypass(model: mindir.Model, name: str, place: int = 0) -> mindir.Model:
    """The graph without a node: who used it uses the node's input instead."""
    (function,) = model.functions
    source = function.by_name[name].inputs[place]
    del function.proto.node[next(i for i, node in enumerate(function.nodes) if node.name == name)]
    for proto in function.proto.node:
        for i, used in enumerate(proto.input):
            if used == name:
                proto.input[i] = source
    return mindir.wrap(model.proto)


def _is_sum(each: mindir.Collective) -> bool:
    return each.operation == "AllReduce" and each.reduction == "sum" and len(each.payload.shape) == 2


def leave_out_token_sum(graphs: dict[int, mindir.Model]) -> None:
    """Every rank divides by the tokens of its own rows instead of all."""
    for rank, model in graphs.items():
        sums = [each.node for each in mindir.collectives(model) if each.phase == "update"]
        # the tokens come from a parameter, the norm from all gradients
        graphs[rank] = bypass(model, min(sums, key=lambda name: len(_ancestors(model, name))))


def _ancestors(model: mindir.Model, name: str) -> set[str]:
    """The nodes that a node's value is computed from."""
    (function,) = model.functions
    found, left = set(), [name]
    while left:
        for source in function.by_name[left.pop()].inputs:
            if source in function.by_name and source not in found:
                found.add(source)
                left.append(source)
    return found
