"""The collectives of a rank's graph by kind, compared with what the formulas of traffic.py ask for."""

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
    """Calls of a kind in a rank's graph.

    Args:
        times: How many a step.
        wire_bytes: That the rank sends in each, by the ring algorithms.
        groups: Ranks that take part, one tuple for every group.
    """

    times: int
    wire_bytes: float
    groups: frozenset[tuple[int, ...]]


_Key = tuple[str, str, str, str, str]  # what, phase, operation, axis and type of a line


@dataclass(frozen=True)
class Line:
    """One purpose in one phase: what the formula says, what the graph has.

    Args:
        what: What the calls are for; "not explained" if no formula asks for them.
        phase: See mindir.phase_of.
        operation: "AllReduce", ...
        axis: Of the grid, as Mesh.axis_of names it.
        dtype: Of the payload.
        expected_calls: By formula, a step.
        expected_bytes: By formula, payload of a step.
        calls: In the graph.
        bytes: In the graph.
        wire_bytes: What the rank sends for them in a step, by the ring algorithms.
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
    """Calls a step of a rank's graph, by kind."""
    found: dict[Call, Seen] = {}
    for each, phase in phased(model):
        ranks = partners(each, rank)
        call = Call(phase, each.operation, mesh.axis_of(ranks), each.payload.dtype, each.bytes)
        seen = found.get(call, Seen(0, each.wire_bytes, frozenset()))
        found[call] = Seen(seen.times + each.calls, seen.wire_bytes, seen.groups | {ranks})
    return found


def partners(collective: mindir.Collective, rank: int) -> tuple[int, ...]:
    """The ranks that take part: the group's, or both ends of a Send or Receive, whose group is a pipeline."""
    return collective.ranks if collective.peer is None else (rank, collective.peer)


def phased(model: mindir.Model) -> Iterator[tuple[mindir.Collective, str]]:
    """The collectives of a graph and their phases.

    The compiler marks what is computed again by the same scope as the first time; the first of each is the
    forward pass.
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
    """Compares formulas with a graph.

    Args:
        demands: What the formulas ask for.
        seen: What `observed` gave.

    Returns:
        A line for every purpose, phase, operation, axis and type; then what no formula asks for.
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
    """Lines in which what no formula explains is a plan's found table's, as far as it may be that.

    No formula knows how a found table splits the layers; their calls are modelled, and compared, a block at a
    time (planner.operators.verify). All of them are passes' calls among tensor-parallel ranks.

    Args:
        lines: What `check` gave.
        what: The purpose that these lines then have.
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
