"""Merges collectives as MindSpore does after it has exported a graph, if a plan merges gradients' sums.

With `gradient_fusion`, MindSpore 2.9 gives every collective of a weight or a gradient a number. Before it
runs a graph, it merges all that have the same number, group, operation and type in one function: their
tensors are laid end to end, for each rank's row separately. Here the same is done to the graph that is
replayed.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from math import prod
from typing import Any

from pangu_alpha.proof.graph import mindir
from pangu_alpha.proof.graph.nodes import NodeBuilder

_MERGED = ("AllReduce", "AllGather", "ReduceScatter")


def fuse(model: mindir.Model, rank: int) -> mindir.Model:
    """Returns the graph with its collectives merged; an equal graph if none has a number.

    Args:
        model: The graph as the partitioner left it, not inlined; its protobuf is not changed.

    Raises:
        ValueError: If a collective that would be merged needs the result of another one.
    """
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    copy = mindir.wrap(proto)
    merged = [each for each in mindir.collectives(copy) if each.fusion and each.operation in _MERGED]
    for function in copy.functions:
        work = _Fuser(copy, rank, function)
        work.merge([each for each in merged if each.function == function.name])
    return mindir.wrap(proto)


class _Fuser(NodeBuilder):
    """Builds the new nodes of one function."""

    def __init__(self, model: mindir.Model, rank: int, function: mindir.Function) -> None:
        super().__init__(model, rank, prefix=f"fused_{function.name}")
        self.function = function

    def merge(self, collectives: Sequence[mindir.Collective]) -> None:
        """Replaces the function's nodes by those with merged collectives."""
        groups: dict[tuple[object, ...], list[mindir.Collective]] = {}
        for each in collectives:
            kind = (each.operation, each.reduction, each.group, each.fusion, each.payload.dtype)
            groups.setdefault(kind, []).append(each)
        last = {members[-1].node: members for members in groups.values() if len(members) > 1}
        gone = {each.node for members in last.values() for each in members}
        if not gone:
            return
        for node in self.function.nodes:
            if node.name in last:
                self._one(last[node.name])
            elif node.name not in gone:
                self.keep(node)
        nodes = _sorted(self.nodes, self.function)
        del self.function.proto.node[:]
        self.function.proto.node.extend(nodes)

    def _one(self, members: Sequence[mindir.Collective]) -> None:
        """Appends one collective that replaces several, and the nodes that take its result apart.

        Each tensor is a row for every rank of the group if the operation gathers or scatters by rows, and a
        single row if it sums.
        """
        first, parts = members[0], len(members[0].ranks)
        operation, dtype = first.operation, first.payload.dtype
        before = parts if operation == "ReduceScatter" else 1
        after = parts if operation == "AllGather" else 1
        rows, widths = [], []
        for each in members:
            source = self.function.by_name[each.node].inputs[0]
            width = prod(self.tensor(source).shape) // before
            rows.append(self._shaped(source, (before, width), dtype))
            widths.append(width)
        joined = self.add(
            "Concat",
            [self.add("MakeTuple", rows, None), self.constant(1)],
            mindir.Tensor((before, sum(widths)), dtype),
        )
        whole = self._collective(first, joined, mindir.Tensor((after, sum(widths)), dtype))
        begin = 0
        for each, width in zip(members, widths, strict=True):
            shape = self.tensor(each.node).shape
            piece = self._columns(whole, after, begin, width, dtype)
            self._shaped(piece, shape, dtype, each.node)
            begin += width

    def _collective(self, like: mindir.Collective, source: str, tensor: mindir.Tensor) -> str:
        """Appends a collective with the same group and purpose as another one."""
        old = self.function.by_name[like.node]
        name = self.add(like.operation, [source], tensor)
        proto, primitive = self.nodes[-1], self.model.proto.primitives[-1]
        named = primitive.name
        primitive.CopyFrom(old.primitive)
        primitive.name = named
        proto.domain = old.proto.domain
        proto.primal_attr.extend(old.proto.primal_attr)
        return name

    def _columns(self, x: str, rows: int, begin: int, width: int, dtype: str) -> str:
        bounds = [self.constant(each) for each in ((0, begin), (rows, begin + width), (1, 1))]
        zero = self.constant(0)
        return self.add("StridedSlice", [x, *bounds, *[zero] * 5], mindir.Tensor((rows, width), dtype))

    def _shaped(self, x: str, shape: tuple[int, ...], dtype: str, name: str | None = None) -> str:
        return self.add("Reshape", [x, self.constant(shape)], mindir.Tensor(shape, dtype), name)


def _sorted(nodes: Sequence[Any], function: mindir.Function) -> list[Any]:
    """Reorders nodes as little as possible so that none precedes what it reads."""
    place = {node.output[0]: number for number, node in enumerate(nodes)}
    readers: dict[int, list[int]] = {}
    missing = []
    for number, node in enumerate(nodes):
        sources = {place[name] for name in (*node.input, _called(node)) if name in place}
        missing.append(len(sources))
        for source in sources:
            readers.setdefault(source, []).append(number)
    ready = [number for number, count in enumerate(missing) if not count]
    heapq.heapify(ready)
    result = []
    while ready:
        number = heapq.heappop(ready)
        result.append(nodes[number])
        for reader in readers.get(number, ()):
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    if len(result) < len(nodes):
        raise ValueError(
            f"{function.name}: collectives of one fusion number need each other's results, so they cannot be "
            "merged; set parallel.gradient_fusion to 0"
        )
    return result


def _called(node: Any) -> str:
    """The node whose output is the function that a call calls; otherwise a primitive's or function's name."""
    return node.op_type.removeprefix("REF::")
