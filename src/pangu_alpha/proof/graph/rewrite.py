"""Rewrites a rank's graph so that MindSpore runs it on CPU: AllReduce(sum) replaces all collectives.

On CPU, MindSpore 2.9 can sum over any group but gather over the world only; it has no ReduceScatter, Send and
Receive. With x in the rank's own place among zeros,
    AllGather = AllReduce,  AllReduce(max) = AllReduce, ReduceMax,  ReduceScatter = AllReduce, slice,
and an AllReduce of a pair in which the receiver contributes zeros is Send and Receive: numbers pass
unchanged. Integers are sent as two halves in float32, which holds 16 bits exactly, because CPU cannot sum
int32. The collectives are chained, so that all ranks run them in the order that order.deadlock has checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pangu_alpha.config.families import FAMILIES
from pangu_alpha.proof.graph import mindir
from pangu_alpha.proof.graph.nodes import TYPE_IDS, NodeBuilder
from pangu_alpha.proof.graph.saturation import STATUS, Saturation
from pangu_alpha.proof.graph.stand_ins import CPU_KERNELS, STAND_INS

_REDUCTIONS = {"max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd"}
_NUMPY = {"float32": np.float32, "float16": np.float16, "int32": np.int32}


def group_name(ranks: Sequence[int]) -> str:
    """The name of a group in rewritten graphs."""
    return "ranks_" + "_".join(map(str, ranks))


@dataclass(frozen=True)
class RewriteOptions:
    """How the simulated device computes.

    Args:
        saturates: Whether an overflow in float16 gives the largest finite number and NaN gives 0, as on a
            910A, instead of inf and NaN.
    """

    saturates: bool = False

    @classmethod
    def of(cls, chip: str) -> RewriteOptions:
        """The options of a chip that config.families lists."""
        return cls(saturates=FAMILIES[chip].saturates)


def rewrite(
    model: mindir.Model, rank: int, options: RewriteOptions = RewriteOptions()
) -> tuple[bytes, dict[str, tuple[int, ...]]]:
    """Rewrites a graph for CPU.

    Args:
        model: The rank's graph as one function (inline.inline); its protobuf is changed.

    Returns:
        The new MINDIR, and the ranks of every group that it names. Every rank must create all groups of all
            ranks' graphs to which it belongs, in the same order.

    Raises:
        ValueError: If the graph has an unknown operator.
    """
    work = _Rewriter(model, rank, options)
    function = model.functions[0]
    for node in function.nodes:
        work.take(node)
    work.end(function.proto.output[0])
    del function.proto.node[:]
    function.proto.node.extend(work.nodes)
    return model.proto.SerializeToString(), work.groups


class _Rewriter(NodeBuilder):
    """Builds the list of nodes of the rewritten graph."""

    def __init__(self, model: mindir.Model, rank: int, options: RewriteOptions) -> None:
        super().__init__(model, rank)
        self.collectives = {each.node: each for each in mindir.collectives(model)}
        self.saturation = Saturation(self, options.saturates)
        self.results: dict[str, tuple[str, ...]] = {}
        self.groups: dict[str, tuple[int, ...]] = {}
        self.last = ""  # the previous collective, for which the next one must wait

    def take(self, node: mindir.Node) -> None:
        """Appends a node of the graph, or nodes that replace it."""
        if node.name in self.collectives:
            self.replace(node, self.collectives[node.name])
        elif node.type in STAND_INS:
            self._stand_in(node, STAND_INS[node.type](self, node))
        elif node.type in STATUS:
            self._stand_in(node, self.saturation.status(node))
        elif node.type == "TupleGetItem" and node.inputs[0] in self.results:
            self.replaced[node.name] = self.results[node.inputs[0]][self.value(node.inputs[1])]
        elif node.type in CPU_KERNELS:
            self.keep(node)
        else:
            raise ValueError(
                f"{node.scope}: replay knows no kernel of CPU for {node.type}, and nothing that stands in; "
                "give it a stand-in (proof/graph/stand_ins.py), or note there that CPU has the kernel"
            )
        self.saturation.clip(node)

    def _stand_in(self, node: mindir.Node, results: tuple[str, ...]) -> None:
        """Registers the results that replace a node; nodes that only wait for it wait for its last result."""
        self.results[node.name] = results
        self.replaced[node.name] = results[-1]

    def replace(self, node: mindir.Node, each: mindir.Collective) -> None:
        """Appends nodes that replace one collective; the last one has its name."""
        x = self.now(node.inputs[0])
        # Receive has an input only to define its order; the shape of its result differs.
        given = self.model.tensor(self.function, node.inputs[0]) or each.payload
        if self.last:
            x = self.add("Depend", [x, self.last], given)
        self.last = node.name
        if each.operation in ("Send", "Receive"):
            self._pass_on(node.name, each, x)
        elif each.operation == "AllReduce" and each.reduction == "sum":
            self.all_reduce(x, each.ranks, each.payload, node.name)
        elif each.operation == "AllReduce" and each.reduction in _REDUCTIONS:
            self._reduce(node.name, each, x)
        elif each.operation == "AllGather":
            self.all_reduce(self._place(x, each, each.payload), each.ranks, each.payload, node.name)
        elif each.operation == "ReduceScatter" and each.reduction == "sum":
            self._scatter(node.name, each, x)
        else:
            raise ValueError(f"{each.scope}: replay cannot do {each.operation} {each.reduction} on CPU")

    def end(self, output: Any) -> None:
        """Makes the graph's result wait for the last collective."""
        output.name = self.now(output.name)
        if self.last:
            result = next(node for node in self.nodes if node.name == output.name)
            output.name = self.add("Depend", [output.name, self.last], None)
            self.nodes[-1].attribute.extend(each for each in result.attribute if each.name == "shape")

    def all_reduce(self, x: str, ranks: Sequence[int], tensor: mindir.Tensor, name: str | None = None) -> str:
        """Appends a sum over ranks."""
        group = group_name(ranks)
        self.groups[group] = tuple(ranks)
        if tensor.dtype != "int32":
            return self.add("AllReduce", [x], tensor, name, op="sum", group=group)
        halves: list[str] = []
        for half in self._halves(x, tensor):
            floats = mindir.Tensor(tensor.shape, "float32")
            half = self.add("Cast", [half, self.constant(TYPE_IDS["float32"])], floats)
            if halves:  # all ranks must send the halves in the same order
                half = self.add("Depend", [half, halves[-1]], floats)
            half = self.add("AllReduce", [half], floats, op="sum", group=group)
            halves.append(self.add("Cast", [half, self.constant(TYPE_IDS["int32"])], tensor))
        upper = self.add("Mul", [halves[0], self.number(2**16, "int32")], tensor)
        return self.add("Add", [upper, halves[1]], tensor, name)

    def _halves(self, x: str, tensor: mindir.Tensor) -> tuple[str, str]:
        """Upper and lower 16 bits of int32: x = upper * 2^16 + lower with 0 <= lower < 2^16."""
        upper = self.add("RightShift", [x, self.number(16, "int32")], tensor)
        return upper, self.add("BitwiseAnd", [x, self.number(2**16 - 1, "int32")], tensor)

    def _pass_on(self, name: str, each: mindir.Collective, x: str) -> None:
        if each.operation == "Receive":
            zeros = self.constant(np.zeros(each.payload.shape, _NUMPY[each.payload.dtype]))
            x = self.add("Depend", [zeros, x], each.payload)
        assert each.peer is not None  # a Send and a Receive have one
        self.all_reduce(x, sorted((self.rank, each.peer)), each.payload, name)

    def _reduce(self, name: str, each: mindir.Collective, x: str) -> None:
        shape = each.payload.shape
        stack = mindir.Tensor((len(each.ranks), *shape), each.payload.dtype)
        row = mindir.Tensor((1, *shape), each.payload.dtype)
        x = self.add("Reshape", [x, self.constant(row.shape)], row)
        x = self.all_reduce(self._place(x, each, stack), each.ranks, stack)
        self.add(
            _REDUCTIONS[each.reduction],
            [x, self.constant((0,)), self.constant(False)],
            each.payload,
            name,
        )

    def _place(self, x: str, each: mindir.Collective, whole: mindir.Tensor) -> str:
        """x as the rank's rows of a tensor that is otherwise 0."""
        own, parts = each.ranks.index(self.rank), len(each.ranks)
        rows = whole.shape[0] // parts
        pieces = []
        for before in (True, False):
            others = own if before else parts - 1 - own
            if others:
                shape = (others * rows, *whole.shape[1:])
                pieces.append(self.constant(np.zeros(shape, _NUMPY[whole.dtype])))
            if before:
                pieces.append(x)
        tuple_ = self.add("MakeTuple", pieces, None)
        return self.add("Concat", [tuple_, self.constant(0)], whole)

    def _scatter(self, name: str, each: mindir.Collective, x: str) -> None:
        whole = each.payload
        own, rows = each.ranks.index(self.rank), whole.shape[0] // len(each.ranks)
        x = self.all_reduce(x, each.ranks, whole)
        zero = self.constant(0)
        begin = self.constant((own * rows, *(0 for _ in whole.shape[1:])))
        end = self.constant(((own + 1) * rows, *whole.shape[1:]))
        step = self.constant((1,) * len(whole.shape))
        part = mindir.Tensor((rows, *whole.shape[1:]), whole.dtype)
        self.add("StridedSlice", [x, begin, end, step, *[zero] * 5], part, name)
