"""Float16 as a device in saturation mode computes it: overflow gives the largest finite number, NaN gives 0.

Such a device records an overflow in its status register, which operators clear and read. In the rewritten
graph a clip follows every float16 result, and reading the register asks whether one of the clips changed
anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from pangu_alpha.proof.graph import mindir
from pangu_alpha.proof.graph.mindir import Node, Tensor
from pangu_alpha.proof.graph.nodes import NodeBuilder

LARGEST = 65504.0  # float16's largest finite number
# These operators return their input or parts of it, so there is nothing to clip.
_MOVERS = {
    "BroadcastTo",
    "Concat",
    "Constant",
    "Depend",
    "ExpandDims",
    "Load",
    "MakeTuple",
    "Reshape",
    "StridedSlice",
    "TensorMove",
    "Tile",
    "Transpose",
    "UpdateState",
}
_CLEARS = {"NPUClearFloatStatus", "NPUClearFloatStatusV2"}
_READS = {"NPUGetFloatStatus", "NPUGetFloatStatusV2"}
STATUS = {"NPUAllocFloatStatus", *_CLEARS, *_READS}


class Saturation:
    """Clips the float16 results of a graph and computes what its status register contains.

    Args:
        work: Builder to which nodes are added.
        active: Whether the device saturates. One that does not saturate has NaN and inf instead; its register
            is not modelled, and reads as clear.
    """

    def __init__(self, work: NodeBuilder, active: bool) -> None:
        self.work = work
        self.active = active
        self.changed: dict[str, str] = {}
        self.windows = _windows(work.function) if active else {}
        self.watched = set().union(*self.windows.values())

    def clip(self, node: Node) -> None:
        """Replaces the result of a node, which was just appended, by a clipped one."""
        tensor = self.work.model.tensor(self.work.function, node.name)
        if not self.active or node.type in _MOVERS or tensor is None or tensor.dtype != "float16":
            return
        work, raw = self.work, self.work.now(node.name)
        bits = Tensor(tensor.shape, "bool")
        zero, highest, lowest = (work.number(each, "float16") for each in (0.0, LARGEST, -LARGEST))
        number = work.add("Equal", [raw, raw], bits)  # false for NaN
        result = work.add("Select", [number, raw, zero], tensor)
        result = work.add("Minimum", [result, highest], tensor)
        result = work.add("Maximum", [result, lowest], tensor)
        work.replaced[node.name] = result
        if node.name in self.watched:
            self.changed[node.name] = self._any(work.add("NotEqual", [result, raw], bits))

    def status(self, node: Node) -> tuple[str, ...]:
        """Replaces an operator of the status register by a value [8]: 0, or 1 for an overflow."""
        work, tensor = self.work, self.work.tensor(node.name)
        kind = np.dtype(tensor.dtype)
        noted = [self.changed[name] for name in self.windows.get(node.name, ()) if name in self.changed]
        if not noted:
            return (work.constant(np.zeros(tensor.shape, kind)),)
        flag = noted[0]
        for other in noted[1:]:
            flag = work.add("LogicalOr", [flag, other], Tensor((), "bool"))
        ones = work.constant(np.ones(tensor.shape, kind))
        return (work.add("Mul", [work.cast(flag, tensor.dtype), ones], tensor),)

    def _any(self, bits: str) -> str:
        constants = [self.work.constant(()), self.work.constant(False)]
        return self.work.add("ReduceAny", [bits, *constants], Tensor((), "bool"))


def _windows(function: mindir.Function) -> dict[str, list[str]]:
    """For every reading of the register, the nodes that surely run between clearing and reading.

    An operator that is no ancestor of the reading may run after it, and one that is no descendant of a
    clearing in the graph may run before that; the device may miss their overflow. Where no clearing precedes
    the reading, the register was cleared before the graph began.
    """
    inputs = {node.name: node.inputs for node in function.nodes}
    windows = {}
    for node in function.nodes:
        if node.type in _READS:
            window = _ancestors(inputs, node.name)
            for name in [each for each in window if function.by_name[each].type in _CLEARS]:
                window &= _descendants(function.nodes, name)
            windows[node.name] = [each.name for each in function.nodes if each.name in window]
    return windows


def _ancestors(inputs: Mapping[str, Iterable[str]], name: str) -> set[str]:
    """Nodes that must have run before a node, by data or by order."""
    found: set[str] = set()
    waiting = list(inputs[name])
    while waiting:
        each = waiting.pop()
        if each in inputs and each not in found:
            found.add(each)
            waiting.extend(inputs[each])
    return found


def _descendants(nodes: Iterable[Node], name: str) -> set[str]:
    """Nodes that can run only after a node; `nodes` must be in an order in which they can run."""
    found = {name}
    for node in nodes:
        if not found.isdisjoint(node.inputs):
            found.add(node.name)
    return found - {name}
