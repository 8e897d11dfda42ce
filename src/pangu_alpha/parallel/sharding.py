"""THE operator table: how every operator of the network is split over the axes of the grid, as data.

A row gives, for each input of an operator, the axis that each of its dimensions is split over. A found table
(config.operator_table) replaces the rows of a block's operators; all other rows stay as they are here.

Axis names: "dp" data parallel; "tp" tensor parallel; "sp" rows of the residual stream (dp, with sequence
parallelism also tp); "vp" vocabulary (tp, or not split); "lp" rows in the loss (dp, and also tp if the
vocabulary is not split). _ leaves a dimension whole. () is a scalar. A found table may divide tp into axes of
its own, and split a dimension over several axes, "dp+tp0", outermost first.
Letters: T rows, I inputs, O outputs, H hidden, V vocabulary, B batch, N heads, S queries, C keys,
d head size.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pangu_alpha.config.operator_table import FoundTable, OperatorSplit
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import ConfigError, nearest
from pangu_alpha.network.rows import Axes

_: None = None


@dataclass(frozen=True)
class Split:
    """How one operator is split.

    Args:
        inputs: For each input, the axes of its dimensions.
        output: Axes of the output's dimensions, if the inputs leave a choice: partial sums may be summed
            whole (AllReduce) or by slices (ReduceScatter).
    """

    inputs: tuple[Axes, ...]
    output: Axes | None = None


def split(*inputs: Axes, output: Axes | None = None) -> Split:
    """Makes an entry of the table."""
    return Split(inputs, output)


COLUMN = ("query", "key", "value", "up")  # linears whose outputs O are split
ROW = ("output", "down")  # linears whose inputs I are split, so that each device has a partial sum

_NORMS = ("attention_norm", "feed_forward_norm")
_ATTENTION = ("SplitHeads", "JoinHeads", "AttentionCore", "FlashAttention", "dropout")
_OTHERS = (*_ATTENTION, "Gelu", "FastGelu", "Block", "attention_dropout", "feed_forward_dropout")

DERIVED = ("Reshape",)  # operators that MindSpore splits like their neighbours

# Dropout of the residual stream [T, H]: keys [T, 1], columns [H].
_RESIDUAL_DROPOUT = {
    "bits": split(("sp", _), (_,)),
    "reached": split(("sp", _), ()),
    "cast": split(("sp", _)),
    "drop": split(("sp", _), ("sp", _)),
    "rescale": split(("sp", _), ()),
}

SHARDING: Mapping[str, Mapping[str, Split]] = {
    # embeddings [B, S] -> [T, H]
    "word_embedding": {"gather": split(("vp", _), ("dp", _))},
    "position_embedding": {"gather": split((_, _), ("dp", _))},
    "query_embedding": {"gather": split((_, _), ("dp", _))},
    "PanguAlpha": {"add": split(("sp", _), ("sp", _)), "cast": split(("sp", _))},
    # [B, S] -> [B, S, S] -> [B, 1, S, S]
    "DocumentMask": {
        "asking": split(("dp", _)),
        "asked": split(("dp", _)),
        "equal": split(("dp", _, _), ("dp", _, _)),
        "not_before": split((_, _), (_, _)),
        "cast_same": split(("dp", _, _)),
        "cast_causal": split((_, _)),
        "mul": split(("dp", _, _), (_, _)),
    },
    "ScoreMask": {
        "cast": split(("dp", _, _)),
        "sub": split((), ("dp", _, _)),
        "mul": split(("dp", _, _), ()),
        "expand_dims": split(("dp", _, _)),
    },
    "BlockedMask": {
        "cast": split(("dp", _, _)),
        "sub": split((), ("dp", _, _)),
        "cast_blocked": split(("dp", _, _)),
        "expand_dims": split(("dp", _, _)),
    },
    # the residual stream [T, H]
    "Block": {"add": split(("sp", _), ("sp", _))},
    "embedding_dropout": _RESIDUAL_DROPOUT,
    "attention_dropout": _RESIDUAL_DROPOUT,
    "feed_forward_dropout": _RESIDUAL_DROPOUT,
    "LayerNorm": {"cast": split(("sp", _))},
    "Normalize": {"norm": split(("sp", _), (_,), (_,))},
    # x [T, I], weight [O, I], bias [O]
    "Linear column": {"cast_weight": split(("tp", _)), "cast_bias": split(("tp",))},
    "Affine column": {
        "matmul": split(("dp", _), ("tp", _)),
        "add": split(("dp", "tp"), ("tp",)),
    },
    "Linear row": {"cast_weight": split((_, "tp")), "cast_bias": split((_,))},
    "Affine row": {
        "matmul": split(("dp", "tp"), (_, "tp"), output=("sp", _)),
        "add": split(("sp", _), (_,)),
    },
    # attention by heads
    "SplitHeads": {"transpose": split(("dp", _, "tp", _))},
    "JoinHeads": {"transpose": split(("dp", "tp", _, _))},
    "AttentionCore": {
        "scale": split(("dp", "tp", _, _), ()),
        "scores": split(("dp", "tp", _, _), ("dp", "tp", _, _)),
        "cast": split(("dp", "tp", _, _)),
        "add": split(("dp", "tp", _, _), ("dp", _, _, _)),
        "softmax": split(("dp", "tp", _, _)),
        "mix": split(("dp", "tp", _, _), ("dp", "tp", _, _)),
        "rescale": split(("dp", "tp", _, _), ()),
    },
    # dropout of the attention weights [B, N, S, C]: keys [B, 1, S], [B, N, S], columns [C]
    "dropout": {
        "by_head": split(("dp", _, _), (_, "tp", _)),
        "expand_dims": split(("dp", "tp", _)),
        "bits": split(("dp", "tp", _, _), (_,)),
        "reached": split(("dp", "tp", _, _), ()),
        "cast": split(("dp", "tp", _, _)),
        "drop": split(("dp", "tp", _, _), ("dp", "tp", _, _)),
        "dropout": split(("dp", "tp", _, _)),  # the device's kernel
    },
    "FlashAttention": {"flash_attention": split(*[("dp", "tp", _, _)] * 3, ("dp", _, _, _))},
    # feed-forward activation [T, 4H]
    "Gelu": {
        "square": split(("dp", "tp")),
        "scale": split(("dp", "tp"), ()),
        "shift": split(("dp", "tp"), ()),
        "sigmoid": split(("dp", "tp")),
        "mul": split(("dp", "tp"), ("dp", "tp")),
        "gelu": split(("dp", "tp")),
    },
    "FastGelu": {
        "scale": split(("dp", "tp"), ()),
        "sigmoid": split(("dp", "tp")),
        "mul": split(("dp", "tp"), ("dp", "tp")),
    },
    # logits: x [T, H], table [V, H]
    "Logits": {"cast": split(("vp", _)), "matmul": split(("lp", _), ("vp", _))},
    # the loss: x [T, H], table [V, H], labels [T]
    "TiedCrossEntropy": {
        "cast_table": split(("vp", _)),
        "matmul": split(("lp", _), ("vp", _)),
        "cast": split(("lp", "vp")),
        "mask_padding": split(("lp", "vp"), ("vp",)),
        "max": split(("lp", "vp")),
        "sub": split(("lp", "vp"), ("lp", _)),
        "exp": split(("lp", "vp")),
        "sum": split(("lp", "vp")),
        "one_hot": split(("lp", "vp"), (), ()),
        "pick": split(("lp", "vp"), ("lp", "vp")),
        "sum_picked": split(("lp", "vp")),
        "div": split(("lp",), ("lp",)),
        "add": split(("lp",), ()),
        "log": split(("lp",)),
        "neg": split(("lp",)),
    },
    # nll and mask [B, S]
    "MicroBatchLoss": {"mul": split(("dp", _), ("dp", _)), "sum": split(("dp", _))},
}


@dataclass(frozen=True)
class OperatorTable:
    """How every operator of a network is split: the hand-made table, or one with a found table's rows.

    Args:
        rows: Cell -> operator -> its split. A cell is named by its kind ("AttentionCore"), by its attribute
            ("embedding_dropout"), or by both where a table distinguishes cells of one kind ("Affine query").
    """

    rows: Mapping[str, Mapping[str, Split]]

    def key(self, path: Sequence[str], kind: str) -> str:
        """Name of the row for a cell.

        Args:
            path: Attributes that lead to the cell.
            kind: Name of its class.
        """
        placed = next((f"{kind} {name}" for name in path if f"{kind} {name}" in self.rows), None)
        if placed is not None:
            return placed
        if path[-1] in self.rows:
            return path[-1]
        owner = {"Linear": path[-1], "Affine": path[-2] if len(path) > 1 else ""}.get(kind)
        return _of_kind(kind, owner or "")

    def split(self, cell: str, operator: str) -> Split:
        """Returns the split of an operator.

        Raises:
            KeyError: The table has no entry for it.
        """
        found = self.rows.get(cell, {}).get(operator)
        if found is None:
            raise KeyError(f"{cell}.{operator}: no entry in the table of operators, parallel.sharding")
        return found


def _of_kind(kind: str, owner: str) -> str:
    """The hand-made row for a kind of cell; linears differ by their place in a block."""
    if owner in COLUMN:
        return f"{kind} column"
    return f"{kind} row" if owner in ROW else kind


HAND_MADE = OperatorTable(SHARDING)

# The cells of a block, by the names that a found table gives them. All other cells are outside the blocks.
BLOCK: Mapping[str, Mapping[str, Split]] = {
    **{f"{kind} {norm}": SHARDING[kind] for norm in _NORMS for kind in ("LayerNorm", "Normalize")},
    **{
        f"{kind} {name}": SHARDING[_of_kind(kind, name)]
        for name in (*COLUMN, *ROW)
        for kind in ("Linear", "Affine")
    },
    **{name: SHARDING[name] for name in _OTHERS},
}


def table_of(plan: ParallelPlan) -> OperatorTable:
    """Returns the table by which a plan is split.

    Raises:
        ConfigError: The plan's found table does not describe the operators of a block.
    """
    return HAND_MADE if plan.table is None else _over_hand_made(plan.table)


@functools.cache
def _over_hand_made(found: FoundTable) -> OperatorTable:
    if problems := list(unknown(found)):
        raise ConfigError(f"table: {problem}" for problem in problems)
    rows = {
        cell: {name: Split(each.inputs, each.output) for name, each in operators.items()}
        for cell, operators in found.cells.items()
    }
    return OperatorTable({**SHARDING, **rows})


def unknown(found: FoundTable) -> Iterator[str]:
    """Yields one sentence for every cell or operator that a block does not have, or that the table lacks."""
    for cell, operators in found.cells.items():
        if cell not in BLOCK:
            yield f"cells.{cell}: no cell of a block; {nearest(cell, BLOCK)}"
            continue
        for name, each in operators.items():
            if name not in BLOCK[cell]:
                yield f"cells.{cell}.{name}: no operator of this cell; {nearest(name, BLOCK[cell])}"
                continue
            yield from _other_inputs(f"cells.{cell}.{name}", each, BLOCK[cell][name])
    for cell, usual in BLOCK.items():
        for name in usual.keys() - found.cells.get(cell, {}).keys():
            yield f"cells.{cell}.{name}: missing; a table says of every operator of a block how it is split"


def _other_inputs(where: str, found: OperatorSplit, usual: Split) -> Iterator[str]:
    """Yields a problem if inputs or output have other numbers of dimensions than the operator's."""
    numbers, right = ([len(axes) for axes in each.inputs] for each in (found, usual))
    if numbers != right:
        yield f"{where}: inputs of {numbers} dimensions, the operator's have {right}"
    elif found.output is not None and len(found.output) != len(found.inputs[0]):
        yield f"{where}: an output of {len(found.output)} dimensions, the operator's has {right[0]}"
