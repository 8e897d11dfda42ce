"""Reads the training graph of one rank, as MindSpore's partitioner left it: nodes, shapes, collectives.

A thin typed layer over the MINDIR protobuf of MindSpore 2.9; every part keeps its `proto`, so that a graph
can be edited in place and read again. Knows nothing of plans, ranks' coordinates or devices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal

from pangu_alpha.proof.graph import private
from pangu_alpha.proof.graph.mindir_values import Tensor, attribute, find, kind_of, tensor_of, value

Phase = Literal["forward", "recompute", "backward", "gradient", "parameter", "update"]

_SEND, _RECEIVE = "Send", "Receive"
_REF = "REF::"
# Bytes that a rank of n sends for each byte of payload when the operation runs in a ring; in an AlltoAll
# each rank keeps 1 / n of its payload.
_WIRE = {
    "AllReduce": lambda n: 2 * (n - 1) / n,
    "AllGather": lambda n: (n - 1) / n,
    "ReduceScatter": lambda n: (n - 1) / n,
    "AlltoAll": lambda n: (n - 1) / n,
    "AllToAll": lambda n: (n - 1) / n,
    "Broadcast": lambda n: (n - 1) / n,
    _SEND: lambda n: 1.0,
    _RECEIVE: lambda n: 0.0,
}


@dataclass(frozen=True, eq=False)
class Node:
    """One node of a function.

    Args:
        name: The name by which other nodes refer to its output.
        type: The primitive's type ("MatMul"), "Constant", or "Call" of another function.
        scope: Where it comes from, for example
            "Gradients/Default/network-Net/fc-Dense/Grad_MatMul/MatMul-op0".
        primitive: The PrimitiveProto, which holds the attributes; None for constants and calls.
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    scope: str
    primitive: Any
    proto: Any

    @property
    def callee(self) -> str:
        """The target of a call: a function's name, or the node whose output is the function."""
        assert self.type == "Call", self.name
        return self.proto.op_type.removeprefix(_REF)

    def origin(self, name: str) -> Any:
        """The compiler's note of a name about the node's origin, such as "micro"; None if there is none."""
        return find(self.proto.primal_attr, name)

    def attribute(self, name: str) -> Any:
        """The primitive's attribute of a name as a Python value; None if there is none."""
        return attribute(self.primitive, name)


@dataclass(frozen=True, eq=False)
class Function:
    """One graph of the model.

    Args:
        nodes: Its nodes, in an order in which they can run.
        tensors: Shapes and types by name, for its inputs and for those nodes whose output is one tensor.
    """

    name: str
    nodes: tuple[Node, ...]
    tensors: dict[str, Tensor]
    proto: Any

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}


@dataclass(frozen=True)
class Collective:
    """One communication operator of a rank's graph.

    Args:
        operation: "AllReduce", "AllGather", "ReduceScatter", "AlltoAll", "Broadcast", "Send", "Receive".
        reduction: "sum", "max", ... for AllReduce and ReduceScatter, otherwise "".
        group: The group's name in the graph.
        ranks: The group's global ranks.
        peer: Global rank of the other end of a Send or Receive, otherwise None.
        payload: The input (AllReduce, ReduceScatter, AlltoAll, Broadcast, Send) or the output (AllGather,
            Receive), whichever is larger.
        phase: See `phase_of`.
        parameter: The parameter whose weight or gradient it moves, where the compiler noted it, otherwise "".
        micro_batch: The pipeline's micro-batch to which it belongs, where the compiler noted it.
        fusion: MindSpore merges the operators of one group that have the same number other than 0.
        scope: Where it comes from.
        function: Name of the function that contains it.
        calls: How often a step runs it; see `calls`.
    """

    operation: str
    reduction: str
    group: str
    ranks: tuple[int, ...]
    peer: int | None
    payload: Tensor
    phase: Phase
    parameter: str
    micro_batch: int | None
    fusion: int
    scope: str
    function: str
    node: str
    calls: int

    @property
    def bytes(self) -> int:
        """Payload of one run, bytes."""
        return self.payload.bytes

    @property
    def wire_bytes(self) -> float:
        """Bytes that this rank sends in one run, by ring algorithms (Patarasuk and Yuan, 2009)."""
        return _WIRE[self.operation](len(self.ranks)) * self.bytes

    @property
    def step_bytes(self) -> float:
        """Bytes that this rank sends in one step."""
        return self.calls * self.wire_bytes


@dataclass(frozen=True)
class Summary:
    """The size of a rank's graph.

    Args:
        nodes: Number of nodes of all functions, constants included, each counted once.
        parameters: The rank's slice of every parameter, in the graph's order.
        operators: Number of nodes by type.
    """

    nodes: int
    functions: int
    parameters: dict[str, Tensor]
    operators: dict[str, int]


@dataclass(frozen=True, eq=False)
class Model:
    """A rank's graph.

    Args:
        functions: The functions, the main one first; without lazy_inline it is usually the only one.
        parameters: The rank's slice of every parameter, by the parameter's own name.
    """

    functions: tuple[Function, ...]
    parameters: dict[str, Tensor]
    proto: Any

    def tensor(self, function: Function, name: str) -> Tensor | None:
        """Shape and type of a node's output, an input or a parameter; None if it is no single tensor."""
        return function.tensors.get(name) or self._everywhere.get(name)

    @cached_property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Global ranks of every group that a communication operator of the graph names."""
        found = {}
        for primitive in self.proto.primitives:
            if (ranks := attribute(primitive, "group_rank_ids")) is not None:
                found[attribute(primitive, "group")] = tuple(ranks)
        return found

    @cached_property
    def _everywhere(self) -> dict[str, Tensor]:
        return {name: tensor for each in reversed(self.functions) for name, tensor in each.tensors.items()}


def read(source: str | Path | bytes) -> Model:
    """Reads a MINDIR.

    Args:
        source: Path of the file, or its contents.

    Raises:
        ValueError: If it is no MINDIR, or has no graph.
    """
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    proto = private.mindir_protobuf().ModelProto()
    from google.protobuf.message import DecodeError  # imported after MindSpore, which brings its own protobuf

    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ValueError(f"{_named(source)}: no MINDIR: {error}") from error
    if not proto.graph.node:
        raise ValueError(f"{_named(source)}: a MINDIR without a graph")
    return wrap(proto)


def wrap(proto: Any) -> Model:
    """Makes the typed layer over a ModelProto; it must be made anew when the protobuf has changed."""
    primitives = {primitive.name: primitive for primitive in proto.primitives}
    functions = tuple(_function(graph, primitives) for graph in (proto.graph, *proto.functions))
    graphs = (proto.graph, *proto.functions)
    parameters = {own_name(p.name): tensor_of(p) for graph in graphs for p in graph.parameter}
    return Model(functions, parameters, proto)


def own_name(name: str) -> str:
    """A parameter's name without the name of the function that precedes it."""
    return name.rpartition(":")[2]


def calls(model: Model) -> dict[str, int]:
    """How often a step runs every function.

    With lazy_inline, a micro-batch's forward and backward pass are functions of their own, called once for
    every micro-batch. Both branches of a condition are counted, so the numbers are upper bounds.

    Raises:
        ValueError: If a function calls itself (a loop), so that the number is not in the graph.
    """
    sites = {function.name: Counter(_callees(model, function)) for function in model.functions}
    counts: Counter[str] = Counter({model.functions[0].name: 1})
    for name in _callers_first(sites):
        for callee, number in sites[name].items():
            counts[callee] += number * counts[name]
    return {function.name: counts[function.name] for function in model.functions}


def collectives(model: Model) -> tuple[Collective, ...]:
    """The communication operators of a rank's graph, in the order of its functions and nodes.

    Raises:
        ValueError: If one is of an unknown kind, so that none is left out silently.
    """
    counts = calls(model)
    return tuple(
        _collective(model, function, node, counts[function.name])
        for function in model.functions
        for node in function.nodes
        if is_collective(node)
    )


def is_collective(node: Node) -> bool:
    """Whether the node communicates: its primitive names a group (whereas Conv2D's group is a number)."""
    return node.primitive is not None and isinstance(node.attribute("group"), str)


def peer_of(node: Node, ranks: tuple[int, ...]) -> int | None:
    """Global rank of the other end of a Send or Receive, whose group has `ranks`; None for others."""
    side = {_SEND: "dest_rank", _RECEIVE: "src_rank"}.get(node.type)
    return None if side is None else ranks[node.attribute(side)]


def phase_of(node: Node) -> Phase:
    """The phase of a communication operator, by its scope and the compiler's notes on it.

    Outputs:
        "parameter" (weights gathered by optimizer parallel, the tied table sent between stages), "gradient"
            (of a parameter: summed over the ranks that hold copies), "backward", "recompute", "update" (in a
            cell named `update` or `optimizer`), otherwise "forward".
    """
    backward = node.scope.startswith("Gradients")
    moves_parameter = node.origin("pipeline_param") is not None or any(
        mark in node.primitive.instance_name for mark in ("mirror", "optimizer_allgather")
    )
    if moves_parameter:
        return "gradient" if backward else "parameter"
    if node.scope.startswith("recompute"):
        return "recompute"
    if backward:
        return "backward"
    cells = {part.partition("-")[0] for part in node.scope.split("/")}
    return "update" if cells & {"update", "optimizer"} else "forward"


def summary(model: Model) -> Summary:
    """Number of nodes, parameters with the shapes of their slices, and operators by type."""
    types = Counter(node.type for function in model.functions for node in function.nodes)
    return Summary(sum(types.values()), len(model.functions), model.parameters, dict(types.most_common()))


def _collective(model: Model, function: Function, node: Node, count: int) -> Collective:
    if node.type not in _WIRE:
        raise ValueError(
            f"{node.scope}: unknown communication operator {node.type}; known are {', '.join(_WIRE)}"
        )
    group = node.attribute("group")
    if group not in model.groups:
        raise ValueError(f"{node.scope}: the graph does not say which ranks the group {group!r} has")
    ranks = model.groups[group]
    result = model.tensor(function, node.name)
    assert result is not None, f"{node.name}: the compiler left no shape"
    if node.type == "ReduceScatter":
        result = Tensor((result.shape[0] * len(ranks), *result.shape[1:]), result.dtype)
    phase = phase_of(node)
    return Collective(
        operation="AlltoAll" if node.type == "AllToAll" else node.type,
        reduction=node.attribute("op") or "",
        group=group,
        ranks=ranks,
        peer=peer_of(node, ranks),
        payload=result,
        phase=phase,
        parameter=(node.origin("mirror_user_id") or "") if phase in ("parameter", "gradient") else "",
        micro_batch=node.origin("micro"),
        fusion=node.attribute("fusion") or 0,
        scope=node.scope,
        function=function.name,
        node=node.name,
        calls=count,
    )


def callees(model: Model, function: Function, node: Node) -> Iterator[str]:
    """Yields the functions that a node of type Call may call; several if the graph chooses one of them."""
    if any(node.callee == each.name for each in model.functions):
        yield node.callee
    else:
        yield from _closures(model, function.by_name[node.callee].proto)


def _callees(model: Model, function: Function) -> Iterator[str]:
    for node in function.nodes:
        if node.type == "Call":
            yield from callees(model, function, node)


def _closures(model: Model, proto: Any) -> Iterator[str]:
    """Yields the functions that a node's output, a value that can be called, may stand for."""
    notes = [each for each in proto.attribute if each.name == "shape"]
    while notes:
        note = notes.pop()
        kind = kind_of(note)
        if kind == "FUNCGRAPHCLOSURE":
            yield value(note)
        elif kind == "PARTIALCLOSURE":
            yield from _partial(model, value(note))
        elif kind == "UNIONFUNCCLOSURE":
            notes.extend(note.values)


def _partial(model: Model, name: str) -> Iterator[str]:
    """Yields what the Partial node of a name calls in the end: the function named by its first input."""
    function = next(each for each in model.functions if name in each.by_name)
    target = function.by_name[name].inputs[0]
    if target in function.by_name:
        yield from _closures(model, function.by_name[target].proto)
    else:
        yield target


def _callers_first(sites: dict[str, Counter[str]]) -> list[str]:
    """Names of the functions, each after all functions that call it."""
    try:
        return [*TopologicalSorter(sites).static_order()][::-1]
    except CycleError as error:
        raise ValueError(f"{error.args[1][0]}: calls itself; how often is not in the graph") from error


def _function(proto: Any, primitives: dict[str, Any]) -> Function:
    nodes = tuple(_node(each, primitives) for each in proto.node)
    tensors = {each.name: tensor_of(each) for each in proto.parameter}
    tensors.update({each.name: tensor_of(each.tensor[0]) for each in proto.input if len(each.tensor) == 1})
    for node in nodes:
        note = find(node.proto.attribute, "value" if node.type == "Constant" else "shape")
        if isinstance(note, Tensor):
            tensors[node.name] = note
    return Function(proto.name, nodes, tensors, proto)


def _node(proto: Any, primitives: dict[str, Any]) -> Node:
    primitive = primitives.get(proto.op_type.removeprefix(_REF))
    type_ = "Constant" if proto.op_type == "Constant" else primitive.op_type if primitive else "Call"
    return Node(proto.output[0], type_, tuple(proto.input), proto.domain, primitive, proto)


def _named(source: str | Path | bytes) -> str:
    return "these bytes" if isinstance(source, bytes) else str(source)
