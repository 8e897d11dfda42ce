"""THE table: how every operator of the network is split over the axes of the grid, as data.

A row gives, for each input of an operator, the axis that each of its dimensions is split over.

Axis names: "dp" data parallel; "tp" tensor parallel; "sp" rows of the residual stream (dp, and tp as well
under sequence parallelism); "vp" vocabulary (tp, or not split); "lp" rows in the loss (dp, and tp as well if
the vocabulary is not split). _ leaves a dimension whole. () is a scalar.
Letters: T rows, I inputs, O outputs, H hidden, V vocabulary, B batch, N heads, S queries, C keys,
d head size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pangu_alpha.config.parallel import ParallelPlan

_: None = None
Axes = tuple[str | None, ...]


@dataclass(frozen=True)
class Split:
    """How one operator is split.

    Args:
        inputs: Axes of each input's dimensions.
        output: Axes of the output's dimensions, where the inputs leave a choice: partial sums may be
            summed whole (AllReduce) or by slices (ReduceScatter).
    """

    inputs: tuple[Axes, ...]
    output: Axes | None = None


def split(*inputs: Axes, output: Axes | None = None) -> Split:
    """A row of the table."""
    return Split(inputs, output)


COLUMN = ("query", "key", "value", "up")  # linears whose outputs O are split
ROW = ("output", "down")  # linears whose inputs I are split, so that their result is a partial sum

DERIVED = ("Reshape",)  # operators that take the split of their neighbours

# dropout of the residual stream [T, H]: keys [T, 1], columns [H]
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


def degrees(plan: ParallelPlan) -> dict[str | None, int]:
    """How many parts each axis name of the table cuts a dimension into."""
    everything = plan.dp * plan.tp
    return {
        None: 1,
        "dp": plan.dp,
        "tp": plan.tp,
        "sp": everything if plan.sequence_parallel else plan.dp,
        "vp": plan.tp if plan.vocab_parallel else 1,
        "lp": plan.dp if plan.vocab_parallel else everything,
    }
