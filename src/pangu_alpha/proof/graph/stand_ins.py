"""Replaces Ascend's own operators when a rank's graph runs on CPU.

Each stand-in computes in float32, with operators that have a CPU kernel, what the operator's documentation
defines, and returns results in the operator's types. CPU_KERNELS are the operators that need no stand-in.
Letters: B batch, N heads, S queries, C keys, d head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pangu_alpha.proof.graph.mindir import Node, Tensor
from pangu_alpha.proof.graph.nodes import NodeBuilder

# x sigmoid(2 u) is the tanh form of GELU with u = sqrt(2 / pi) (x + 0.044715 x^3) (Hendrycks & Gimpel, 2016);
# MindSpore 2.9's Tanh and GeLU are off by up to 1e-4 on CPU.
_LINEAR = 2.0 * (2.0 / np.pi) ** 0.5
_CUBIC = 0.044715 * _LINEAR
_BLOCKED = -3e38  # added to a blocked score, whose exp is then 0 relative to any other score
_EVERYTHING = 2147483647  # value of pre_tokens and next_tokens that restricts nothing
_BNSD = 1  # number of the layout BNSD in the graph
_COPIES = 8  # equal columns of softmax_max and softmax_sum


def gelu(work: NodeBuilder, node: Node) -> tuple[str, ...]:
    """GeLU: x sigmoid(2 u)."""
    given = work.tensor(node.inputs[0])
    x = work.cast(work.now(node.inputs[0]), "float32")
    calculator = _Calculator(work, given.shape)
    gate = calculator.gate(x)
    return (work.cast(calculator.mul(x, gate), given.dtype),)


def gelu_gradient(work: NodeBuilder, node: Node) -> tuple[str, ...]:
    """GeLUGrad of (dy, x, y): dy times the derivative of x sigmoid(2 u), from x alone."""
    given = work.tensor(node.inputs[0])
    dy, x = (work.cast(work.now(name), "float32") for name in node.inputs[:2])
    calculator = _Calculator(work, given.shape)
    gate = calculator.gate(x)
    slope = calculator.add(calculator.mul(calculator.square(x), 3.0 * _CUBIC), _LINEAR)
    inner = calculator.mul(calculator.mul(gate, calculator.sub(1.0, gate)), calculator.mul(x, slope))
    return (work.cast(calculator.mul(dy, calculator.add(gate, inner)), given.dtype),)


def flash_attention(work: NodeBuilder, node: Node) -> tuple[str, ...]:
    """FlashAttentionScore: softmax(scale q k^T, without blocked scores) v.

    Outputs:
        softmax_max and softmax_sum [B, N, S, 8], float32; an empty softmax_out, which the kernel leaves empty
            as well; attention_out [B, N, S, d].
    """
    query, key, value = (work.cast(work.now(name), "float32") for name in node.inputs[:3])
    attention = _Attention(work, node, mask=6, settings=10)
    scores = attention.scores(query, key)
    column = attention.column
    largest = work.add("ReduceMax", [scores, work.constant((-1,)), work.constant(True)], column)
    powers = attention.powers(scores, largest)
    total = attention.row_sum(powers)
    weights = work.add("Div", [powers, total], attention.square)
    mixed = attention.product(weights, value, attention.rows)
    dtype = work.tensor(node.inputs[0]).dtype
    empty = work.constant(np.zeros(1, dtype))
    return attention.copies(largest), attention.copies(total), empty, work.cast(mixed, dtype)


def flash_attention_gradient(work: NodeBuilder, node: Node) -> tuple[str, ...]:
    """FlashAttentionScoreGrad: recomputes the weights from the forward pass's maxima and sums.

    Outputs:
        Gradients of query, key and value; an empty one of the position embedding.
    """
    query, key, value, upstream, out = (
        work.cast(work.now(node.inputs[place]), "float32") for place in (0, 1, 2, 3, 11)
    )
    attention = _Attention(work, node, mask=7, settings=15)
    largest, total = (
        work.add(
            "ReduceMax",
            [work.now(node.inputs[i]), work.constant((-1,)), work.constant(True)],
            attention.column,
        )
        for i in (8, 9)
    )
    powers = attention.powers(attention.scores(query, key), largest)
    weights = work.add("Div", [powers, total], attention.square)
    dvalue = attention.product(weights, upstream, attention.keys, first=True)
    dweights = attention.product(upstream, value, attention.square, second=True)
    mean = attention.row_sum(work.add("Mul", [upstream, out], attention.rows))
    centred = work.add("Sub", [dweights, mean], attention.square)
    dscores = attention.scaled(work.add("Mul", [weights, centred], attention.square))
    dquery = attention.product(dscores, key, attention.rows)
    dkey = attention.product(dscores, query, attention.keys, first=True)
    dtype = work.tensor(node.inputs[0]).dtype
    results = tuple(work.cast(each, dtype) for each in (dquery, dkey, dvalue))
    return (*results, work.constant(np.zeros(1, dtype)))


def dropout(work: NodeBuilder, node: Node) -> tuple[str, ...]:
    """Dropout of (x, keep_prob, Seed0, Seed1): the mask is a function of the rank and the two seeds.

    Every rank draws its own mask, as devices do; recomputation and every step draw the same one again.

    Outputs:
        The result, and the mask as numbers 0 and 1.
    """
    given = work.tensor(node.inputs[0])
    keep, *seeds = (work.value(name) for name in node.inputs[1:4])
    random = np.random.default_rng([work.rank, *seeds])
    mask = work.constant((random.random(given.shape) < keep).astype(given.dtype))
    return _masked(work, work.now(node.inputs[0]), mask, keep), mask


def dropout_gradient(work: NodeBuilder, node: Node) -> tuple[str, ...]:
    """DropoutGrad of (dy, mask)."""
    dy, mask = map(work.now, node.inputs[:2])
    return (_masked(work, dy, mask, node.attribute("keep_prob")),)


# Operators of partitioned graphs that have a CPU kernel of the same name; and Concat, which merging adds.
CPU_KERNELS = frozenset(
    [
        "AdamWeightDecay",
        "Add",
        "AddN",
        "Assign",
        "AssignAdd",
        "BatchMatMul",
        "Cast",
        "Concat",
        "Constant",
        "Depend",
        "Div",
        "Equal",
        "Exp",
        "ExpandDims",
        "FloorDiv",
        "Gather",
        "Greater",
        "GreaterEqual",
        "LayerNorm",
        "LayerNormGrad",
        "Less",
        "LessEqual",
        "Load",
        "Log",
        "MakeTuple",
        "MatMul",
        "Maximum",
        "Minimum",
        "Mul",
        "Muls",
        "Neg",
        "NotEqual",
        "OneHot",
        "PowTensorScalar",
        "ReLU",
        "RealDiv",
        "ReduceMax",
        "ReduceSum",
        "Reshape",
        "Select",
        "Sigmoid",
        "SigmoidGrad",
        "Softmax",
        "SoftmaxBackward",
        "Split",
        "SplitWithSize",
        "Sqrt",
        "Square",
        "StridedSlice",
        "StridedSliceGrad",
        "Sub",
        "SumExt",
        "TensorMove",
        "Tile",
        "Transpose",
        "TupleGetItem",
        "UnsortedSegmentSum",
        "UpdateState",
    ]
)

StandIn = Callable[[NodeBuilder, Node], tuple[str, ...]]
STAND_INS: dict[str, StandIn] = {
    "Dropout": dropout,
    "DropoutGrad": dropout_gradient,
    "FlashAttentionScore": flash_attention,
    "FlashAttentionScoreGrad": flash_attention_gradient,
    "GeLU": gelu,
    "GeLUGrad": gelu_gradient,
}


@dataclass(frozen=True)
class _Calculator:
    """Elementwise operators on float32 tensors of one shape; Python numbers become constants."""

    work: NodeBuilder
    shape: tuple[int, ...]

    def gate(self, x: str) -> str:
        """sigmoid(2 u)."""
        inner = self.add(self.mul(self.square(x), _CUBIC), _LINEAR)
        return self.apply("Sigmoid", self.mul(x, inner))

    def mul(self, x: str | float, y: str | float) -> str:
        return self.apply("Mul", x, y)

    def add(self, x: str | float, y: str | float) -> str:
        return self.apply("Add", x, y)

    def sub(self, x: str | float, y: str | float) -> str:
        return self.apply("Sub", x, y)

    def square(self, x: str) -> str:
        return self.apply("Mul", x, x)

    def apply(self, operator: str, *inputs: str | float) -> str:
        names = [each if isinstance(each, str) else self.work.number(each) for each in inputs]
        return self.work.add(operator, names, Tensor(self.shape, "float32"))


class _Attention:
    """What the forward and the backward pass of an attention have in common.

    Args:
        work: Builder to which nodes are added.
        mask: Index of the attention mask among its inputs, uint8 [B, 1, S, C], 1 = blocked.
        settings: Index of head_num, which keep_prob, scale_value, pre_tokens, next_tokens, inner_precise,
            input_layout and sparse_mode follow.

    Raises:
        ValueError: If the operator uses settings that this stand-in does not compute.
    """

    def __init__(self, work: NodeBuilder, node: Node, mask: int, settings: int) -> None:
        self.work = work
        query, keys = work.tensor(node.inputs[0]), work.tensor(node.inputs[1])
        heads, keep, self.scale, *window, _, layout, sparse = map(work.value, node.inputs[settings:])
        absent = [work.value(node.inputs[place]) for place in range(mask - 3, mask)]
        said = (heads, keep, window, layout, sparse, absent)
        known = (query.shape[1], 1.0, [_EVERYTHING] * 2, _BNSD, 0, [None] * 3)
        if said != known:
            raise ValueError(
                f"{node.scope}: replay computes {node.type} of heads, keep_prob, (pre_tokens, next_tokens), "
                f"layout, sparse_mode and (pse, dropout mask, padding mask) {known}, not {said}"
            )
        self.rows, self.keys = Tensor(query.shape, "float32"), Tensor(keys.shape, "float32")
        self.square = Tensor((*query.shape[:3], keys.shape[2]), "float32")
        self.column = Tensor((*query.shape[:3], 1), "float32")
        self.blocked = self._blocked(node.inputs[mask])

    def _blocked(self, mask: str) -> str | None:
        """The term that blocks scores when it is added to them; None if there is no mask."""
        node = self.work.function.by_name.get(mask)
        if node is not None and node.type == "Constant" and self.work.value(mask) is None:
            return None
        blocked = self.work.cast(self.work.now(mask), "float32")
        lowest = self.work.number(_BLOCKED)
        return self.work.add("Mul", [blocked, lowest], self.work.tensor(blocked))

    def scores(self, query: str, key: str) -> str:
        """The scores [B, N, S, C], with blocked ones near -3e38."""
        scores = self.scaled(self.product(query, key, self.square, second=True))
        return self.work.add("Add", [scores, self.blocked], self.square) if self.blocked else scores

    def scaled(self, scores: str) -> str:
        """Scores multiplied by scale_value."""
        return self.work.add("Mul", [scores, self.work.number(self.scale)], self.square)

    def powers(self, scores: str, largest: str) -> str:
        """exp(score - largest)."""
        return self.work.add("Exp", [self.work.add("Sub", [scores, largest], self.square)], self.square)

    def row_sum(self, x: str) -> str:
        """Sum over the last axis, which is kept with length 1."""
        constants = [self.work.constant(each) for each in ((-1,), True, False)]
        return self.work.add("ReduceSum", [x, *constants], self.column)

    def copies(self, column: str) -> str:
        """Repeats a column: [B, N, S, 1] -> [B, N, S, 8]."""
        tensor = Tensor((*self.column.shape[:3], _COPIES), "float32")
        return self.work.add("Tile", [column, self.work.constant((1, 1, 1, _COPIES))], tensor)

    def product(self, x: str, y: str, tensor: Tensor, first: bool = False, second: bool = False) -> str:
        """Batched matrix product; `first` and `second` tell which factor is transposed."""
        constants = [self.work.constant(first), self.work.constant(second)]
        return self.work.add("BatchMatMul", [x, y, *constants], tensor)


def _masked(work: NodeBuilder, x: str, mask: str, keep: float) -> str:
    """x mask / keep, rounded only once in float16, because 1 / keep itself is no float16 number."""
    given = work.tensor(x)
    calculator = _Calculator(work, given.shape)
    kept = calculator.mul(work.cast(x, "float32"), work.cast(mask, "float32"))
    return work.cast(calculator.mul(kept, 1.0 / keep), given.dtype)
