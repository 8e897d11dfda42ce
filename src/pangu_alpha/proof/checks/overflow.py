"""Checks in a rank's graph that the float status is read after everything that the rank computes.

The register collects saturations until it is read, and an operator may run after the reading unless the
reading depends on its result. Knows only the graph; the engine is responsible for clearing the register
before the graph starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pangu_alpha.proof.graph import mindir

_READ = "NPUGetFloatStatusV2"
_MOVES = {  # operators that return an input unchanged, or that do not run on the device
    "AllGather", "Assign", "Depend", "ExpandDims", "Load", "MakeTuple", "Receive", "Reshape", "Send",
    "StridedSlice", "TensorMove", "Tile", "Transpose", "TupleGetItem", "UpdateState",
}  # fmt: skip
_FLOATS = ("float16", "bfloat16", "float32")


def problems(model: mindir.Model, saturates: bool) -> tuple[str, ...]:
    """Lists what is wrong with the reading of the float status, one sentence each.

    Args:
        model: A rank's graph. With `saturates`, it must be one function (inline.inline, which takes long for
            a large model).
        saturates: Whether the graph is for chips on which only the float status shows an overflow.
    """
    reads = [node for function in model.functions for node in function.nodes if node.type == _READ]
    if not saturates:
        return tuple(f"{node.scope}: reads a float status that the chip does not have" for node in reads)
    assert len(model.functions) == 1, "inline the graph first"
    (function,) = model.functions
    if len(reads) != 1:
        return (f"the float status is read {len(reads)} times, not once",)
    inputs = {node.name: node.inputs for node in function.nodes}
    users: dict[str, list[str]] = {name: [] for name in inputs}
    for name, names in inputs.items():
        for each in names:
            users.setdefault(each, []).append(name)
    ordered = _reached(reads[0].name, inputs) | _reached(reads[0].name, users)
    free = [node for node in function.nodes if node.name not in ordered and _computes(function, node)]
    return tuple(f"{node.scope}: may run after the float status is read" for node in free)


def _computes(function: mindir.Function, node: mindir.Node) -> bool:
    """Whether a node's result is a tensor of numbers that can saturate and that the update depends on.

    Scalars of the update itself, such as the decay times the learning rate, are not ordered with the reading.
    """
    cells = {part.partition("-")[0] for part in node.scope.split("/")}
    if node.type in _MOVES or node.type == "Constant" or "update" in cells:
        return False
    result = function.tensors.get(node.name)
    return result is None or result.dtype in _FLOATS


def _reached(start: str, edges: Mapping[str, Sequence[str]]) -> set[str]:
    """All names that can be reached from the start, which is included."""
    found, waiting = {start}, [start]
    while waiting:
        for name in edges.get(waiting.pop(), ()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found
