"""Compares the collectives of a rank's graph, by kind, with the predictions of the formulas in traffic.py."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.proof.checks.traffic import Call, Demand
from pangu_alpha.proof.graph import mindir

UNEXPLAINED = "not explained"
_PASSES = ("forward", "backward", "recompute")
_TENSOR = ("tp", "tp part")


class Seen(NamedTuple):
    """Calls of one kind in a rank's graph.

    Args:
        times: Number of calls in a step.
        wire_bytes: Bytes that the rank sends in each call, by ring algorithms.
        groups: Ranks that take part, one tuple for every group.
    """

    times: int
    wire_bytes: float
    groups: frozenset[tuple[int, ...]]


_Key = tuple[str, str, str, str, str]  # a line's what, phase, operation, axis and dtype


@dataclass(frozen=True)
class Line:
    """One purpose in one phase: the formula's prediction, and what the graph has.

    Args:
        what: Purpose of the calls; "not explained" if no formula predicts them.
        phase: See mindir.phase_of.
        operation: "AllReduce", ...
        axis: Axis of the grid, as named by Mesh.axis_of.
        expected_calls: Predicted number of calls in a step.
        expected_bytes: Predicted payload of a step.
        calls: Number of calls in the graph.
        bytes: Payload in the graph.
        wire_bytes: Bytes that the rank sends for these calls in a step, by ring algorithms.
        groups: Ranks that take part, in the graph.
    """

    what: str
    phase: str
    operation: str
    axis: str
    dtype: str
    expected_calls: int
    expected_bytes: int
    calls: int
    bytes: int
    wire_bytes: float
    groups: tuple[tuple[int, ...], ...]

    @property
    def equal(self) -> bool:
        """Whether graph and formula agree."""
        return (self.calls, self.bytes) == (self.expected_calls, self.expected_bytes)


def observed(model: mindir.Model, mesh: Mesh, rank: int) -> dict[Call, Seen]:
    """Counts the calls of a step in a rank's graph, by kind."""
    found: dict[Call, Seen] = {}
    for each, phase in phased(model):
        ranks = partners(each, rank)
        call = Call(phase, each.operation, mesh.axis_of(ranks), each.payload.dtype, each.bytes)
        seen = found.get(call, Seen(0, each.wire_bytes, frozenset()))
        found[call] = Seen(seen.times + each.calls, seen.wire_bytes, seen.groups | {ranks})
    return found


def partners(collective: mindir.Collective, rank: int) -> tuple[int, ...]:
    """The ranks that take part in a collective.

    For a Send or Receive these are its two ends, although its group is a whole pipeline.
    """
    return collective.ranks if collective.peer is None else (rank, collective.peer)


def phased(model: mindir.Model) -> Iterator[tuple[mindir.Collective, str]]:
    """Yields the collectives of a graph with their phases.

    The compiler gives what is recomputed the same scope as the first time; of each pair with one scope, the
    first belongs to the forward pass.
    """
    nodes = {function.name: function.by_name for function in model.functions}
    seen = set()
    for each in mindir.collectives(model):
        phase = each.phase
        if phase == "recompute":
            mark = nodes[each.function][each.node].origin("unique_id")
            phase = "recompute" if mark in seen else "forward"
            seen.add(mark)
        yield each, phase


def check(demands: Iterable[Demand], seen: Mapping[Call, Seen]) -> list[Line]:
    """Compares predictions with a graph.

    Args:
        demands: The predictions.
        seen: The calls from `observed`.

    Returns:
        A line for every purpose, phase, operation, axis and type; then one for each kind of call that no
            formula predicts.
    """
    left = Counter({call: each.times for call, each in seen.items()})
    asked: dict[_Key, list[tuple[Demand, int]]] = {}
    for demand in demands:
        found = min(left[demand.call], demand.times)
        left[demand.call] -= found
        asked.setdefault((demand.what, *demand.call[:4]), []).append((demand, found))
    lines = [_line(key, calls, seen) for key, calls in asked.items()]
    for call, times in left.items():
        if times:
            demand = Demand(UNEXPLAINED, call, 0)
            lines.append(_line((demand.what, *call[:4]), [(demand, times)], seen))
    return lines


def taken_as_compiled(lines: Iterable[Line], what: str) -> list[Line]:
    """Attributes unexplained calls to a plan's found table, where they can belong to it.

    No formula knows how a found table splits the layers; the calls of such layers are modelled and compared
    for one block at a time (planner.operators.verify). All of them are calls of passes among tensor-parallel
    ranks.

    Args:
        lines: The lines from `check`.
        what: The purpose that these lines get.
    """
    return [
        dataclasses.replace(line, what=what, expected_calls=line.calls, expected_bytes=line.bytes)
        if line.what == UNEXPLAINED and line.phase in _PASSES and line.axis in _TENSOR
        else line
        for line in lines
    ]


def _line(key: _Key, calls: Sequence[tuple[Demand, int]], seen: Mapping[Call, Seen]) -> Line:
    there = [(seen[demand.call], found, demand.call.bytes) for demand, found in calls if found]
    return Line(
        *key,
        expected_calls=sum(demand.times for demand, _ in calls),
        expected_bytes=sum(demand.times * demand.call.bytes for demand, _ in calls),
        calls=sum(found for _, found, _ in there),
        bytes=sum(found * size for _, found, size in there),
        wire_bytes=sum(found * each.wire_bytes for each, found, _ in there),
        groups=tuple(sorted(frozenset[tuple[int, ...]]().union(*(each.groups for each, _, _ in there)))),
    )
