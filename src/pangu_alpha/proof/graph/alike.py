"""Compares the graphs of two ranks, except for constants and the ranks with which they communicate.

If the graphs are equal, a compiler that orders operators by what it finds in the graph orders both in the
same way.
"""

from __future__ import annotations

from itertools import zip_longest

from pangu_alpha.proof.graph import mindir

_Row = tuple[object, ...]


def first_difference(one: mindir.Model, other: mindir.Model) -> str:
    """Describes the first difference between two ranks' graphs; "" if there is none.

    Args:
        one: A rank's graph, as the partitioner left it.
        other: The graph of another rank of the same stage.
    """
    if len(one.functions) != len(other.functions):
        return f"{len(one.functions)} functions and {len(other.functions)}"
    for mine, theirs in zip(one.functions, other.functions, strict=True):
        pairs = zip_longest(_rows(one, mine), _rows(other, theirs), fillvalue=("nothing",))
        for number, (row, twin) in enumerate(pairs):
            if row != twin:
                return f"operator {number} of {mine.name}: {row} and {twin}"
    return ""


def _rows(model: mindir.Model, function: mindir.Function) -> list[_Row]:
    """Type, shape and sources of every operator; sources by their places, constants without their values."""
    operators = [node for node in function.nodes if node.type != "Constant"]
    places: dict[str, object] = {node.name: number for number, node in enumerate(operators)}
    places |= {each.name: f"input {number}" for number, each in enumerate(function.proto.input)}
    places |= {each.name: f"function {number}" for number, each in enumerate(model.functions)}
    places |= {name: "constant" for name, node in function.by_name.items() if node.type == "Constant"}
    return [
        (
            node.type,
            node.callee and places.get(node.callee, node.callee) if node.type == "Call" else "",
            function.tensors.get(node.name),
            *(places.get(name, mindir.own_name(name)) for name in node.inputs),
        )
        for node in operators
    ]
