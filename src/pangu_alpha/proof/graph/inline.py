"""Turns a rank's graph into one function: every call of a function is replaced by the function's nodes.

With lazy_inline, a micro-batch's forward and backward pass are functions that the main one calls; the forward
pass returns the backward pass as a closure. In one function, the order of the nodes is the order of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pangu_alpha.proof.graph import mindir


@dataclass(frozen=True)
class _Closure:
    """A function with values for its first inputs."""

    function: str
    inputs: tuple[_Value, ...]


# What a name stands for: the name of a node, or a tuple or function that exists only during inlining.
_Value = str | tuple["_Value", ...] | _Closure


def inline(model: mindir.Model) -> mindir.Model:
    """Returns the same step as one function; the model that is passed does not change."""
    work = _Inliner(model)
    main, *others = model.functions
    work.add_constants()
    result = work.run(main, [each.name for each in main.proto.input])
    assert isinstance(result, str), "the main function gives a function"
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    del proto.functions[:]
    for other in others:
        proto.graph.parameter.extend(other.proto.parameter)
    del proto.graph.node[:]
    proto.graph.node.extend(work.nodes)
    proto.graph.output[0].name = result
    return mindir.wrap(proto)


class _Inliner:
    """Copies nodes in the order in which a step runs them."""

    def __init__(self, model: mindir.Model) -> None:
        self.functions = {each.name: each for each in model.functions}
        self.calls = 0
        self.nodes: list[Any] = []

    def add_constants(self) -> None:
        """Copies the constants of all functions, whose names are unique."""
        for function in self.functions.values():
            self.nodes.extend(node.proto for node in function.nodes if node.type == "Constant")

    def run(self, function: mindir.Function, inputs: Sequence[_Value]) -> _Value:
        """Copies a function's nodes for one call, and returns the value that the call returns."""
        names = [each.name for each in function.proto.input]
        assert len(names) == len(inputs), (function.name, len(names), len(inputs))
        known: dict[str, _Value] = dict(zip(names, inputs, strict=True))
        suffix = f"@{self.calls}" if self.calls else ""
        self.calls += 1
        for node in function.nodes:
            if node.type != "Constant":
                known[node.name] = self._node(function, node, known, suffix)
        result = function.proto.output[0].name
        return known.get(result, result)

    def _node(
        self, function: mindir.Function, node: mindir.Node, known: dict[str, _Value], suffix: str
    ) -> _Value:
        inputs = [known.get(name, name) for name in node.inputs]
        if node.type == "Call":
            return self._call(known.get(node.callee, node.callee), inputs)
        if node.type == "Partial":
            assert isinstance(inputs[0], str)  # the name of a function
            return _Closure(inputs[0], tuple(inputs[1:]))
        if node.type == "MakeTuple" and not all(isinstance(each, str) for each in inputs):
            return tuple(inputs)
        if node.type == "TupleGetItem" and isinstance(inputs[0], tuple):
            return inputs[0][self._constant(function, node.inputs[1])]
        if node.type == "Depend" and not isinstance(inputs[0], str):
            return inputs[0]  # the values in a tuple with functions carry their own dependences
        return self._copy(node, [self._named(each, suffix) for each in inputs], node.name + suffix)

    def _call(self, callee: _Value, inputs: list[_Value]) -> _Value:
        if isinstance(callee, _Closure):
            return self.run(self.functions[callee.function], [*callee.inputs, *inputs])
        assert isinstance(callee, str)
        return self.run(self.functions[callee], inputs)

    def _named(self, value: _Value, suffix: str) -> str:
        """The node for a value; for a tuple that something only waits for, one of its parts."""
        if isinstance(value, tuple):
            return next(each for each in value if isinstance(each, str))
        assert isinstance(value, str), f"{value}: a function is used as a value"
        return value

    def _constant(self, function: mindir.Function, name: str) -> int:
        node = next(each.by_name[name] for each in self.functions.values() if name in each.by_name)
        assert node.type == "Constant", (function.name, name)
        return next(mindir.value(each) for each in node.proto.attribute if each.name == "value")

    def _copy(self, node: mindir.Node, inputs: list[str], name: str) -> str:
        copy = type(node.proto)()
        copy.CopyFrom(node.proto)
        copy.name = copy.output[0] = name
        del copy.input[:]
        copy.input.extend(inputs)
        self.nodes.append(copy)
        return name
