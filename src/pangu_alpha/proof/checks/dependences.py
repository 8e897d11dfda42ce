"""Which of a rank's collectives must run before which others, given the dependences in its graph.

A compiler may run the operators of a graph in any order that its edges allow. Functions, which MindSpore
makes of a micro-batch's forward and backward pass, are blocks: one begins when all of its inputs exist, and
ends before its first result is used; MindSpore 2.9 does not interleave them when it inlines them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pangu_alpha.proof.graph import mindir


@dataclass(frozen=True, eq=False)
class PartialOrder:
    """The collectives of a step, and the order that is forced on them.

    Args:
        collectives: In the order of the file; those of a function appear once for every call.
        before: For each collective, the set of those that come before it in every order, as bits: bit j of
            entry i stands for collective j.
    """

    collectives: tuple[mindir.Collective, ...]
    before: tuple[int, ...]

    def free_pairs(self, chosen: Iterable[int]) -> list[tuple[int, int]]:
        """Pairs of the chosen collectives, by their index, that may run in either order."""
        places = sorted(chosen)
        return [
            (first, second)
            for number, first in enumerate(places)
            for second in places[number + 1 :]
            if not self.before[second] >> first & 1
        ]

    def free_in_groups(self) -> int:
        """Number of pairs of collectives of one group that may run in either order."""
        members: dict[str, int] = {}
        for place, each in enumerate(self.collectives):
            members[each.group] = members.get(each.group, 0) | 1 << place
        forced = sum(
            (self.before[place] & members[each.group]).bit_count()
            for place, each in enumerate(self.collectives)
        )
        sizes = (mask.bit_count() for mask in members.values())
        return sum(size * (size - 1) // 2 for size in sizes) - forced


def partial_order(model: mindir.Model) -> PartialOrder:
    """The collectives of a rank's graph and the order that is forced on them.

    Args:
        model: The graph, as the partitioner left it or inlined. In an inlined graph a micro-batch is no block
            any more, so less is forced.

    Raises:
        ValueError: If the graph chooses at run time which function it calls.
    """
    work = _Walk(model)
    work.run(model.functions[0], 0)
    return PartialOrder(tuple(work.collectives), tuple(work.before))


class _Walk:
    """Walks through a step's nodes in the order of the file, and through functions once for every call."""

    def __init__(self, model: mindir.Model) -> None:
        self.model = model
        self.functions = {each.name: each for each in model.functions}
        self.known = {(each.function, each.node): each for each in mindir.collectives(model)}
        self.collectives: list[mindir.Collective] = []
        self.before: list[int] = []

    def run(self, function: mindir.Function, entry: int) -> int:
        """Collects a function's collectives for one call.

        Args:
            entry: The collectives that come before the call, as bits.

        Returns:
            The collectives that come before anything that uses the call's results, as bits.
        """
        done: dict[str, int] = {}
        everything = entry
        for node in function.nodes:
            before = entry | _union(done, node.inputs)
            if mindir.is_collective(node):
                self.collectives.append(self.known[function.name, node.name])
                self.before.append(before)
                before |= 1 << len(self.before) - 1
            elif node.type == "Call":
                before = self.run(self._callee(function, node), before | done.get(node.callee, 0))
            done[node.name] = before
            everything |= before
        return everything

    def _callee(self, function: mindir.Function, node: mindir.Node) -> mindir.Function:
        names = set(mindir.callees(self.model, function, node))
        if len(names) != 1:
            known = " or ".join(sorted(names)) or "a function it does not name"
            raise ValueError(f"{node.scope or node.name}: the graph calls {known}; it must say which one")
        return self.functions[names.pop()]


def _union(done: Mapping[str, int], names: Iterable[str]) -> int:
    result = 0
    for name in names:
        result |= done.get(name, 0)
    return result
