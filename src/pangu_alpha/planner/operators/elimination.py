"""Minimises a sum of tables over a graph of choices, exactly and within a budget, by eliminating vertices.

Every vertex has a list of choices, and every table holds costs for the choices of one or two vertices. Tables
have levels: the units of a budget that their choices use up. Works for series-parallel graphs, such as a
chain with residual connections; see Bertele and Brioschi, Nonserial Dynamic Programming (1972).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

_AT_ONCE = 2**22  # numbers that one step of _least_sums may hold in memory

Levels = dict[int, np.ndarray]


@dataclass(frozen=True)
class Table:
    """Costs of the choices of some vertices.

    Args:
        scope: One or two vertices.
        levels: Arrays by units of the budget; one dimension for each vertex, infinite where impossible.
        explain: Given a level and the choices of the scope, adds the choices of the vertices that were
            eliminated to make this table.
    """

    scope: tuple[str, ...]
    levels: Levels
    explain: Callable[[int, dict[str, int]], None] = lambda level, chosen: None


def minimise(tables: Iterable[Table], limit: float) -> tuple[float, dict[str, int]] | None:
    """Finds the choices of least cost.

    Args:
        tables: Costs; all vertices in their scopes get a choice.
        limit: Largest level allowed; infinite for none.

    Returns:
        The cost, and the choice of every vertex; None if no choices are possible within the limit.
    """
    merged: dict[frozenset[str], Table] = {}
    for table in sorted(tables, key=lambda table: -len(table.scope)):
        _merge(merged, table, limit)
    while len(vertices := set().union(*merged)) > 2:
        vertex = min(sorted(vertices), key=lambda name: sum(name in scope for scope in merged))
        bucket = [merged.pop(scope) for scope in list(merged) if vertex in scope]
        _merge(merged, _eliminate(vertex, bucket, limit), limit)
    (table,) = merged.values()
    costs = {level: float(array.min()) for level, array in table.levels.items()}
    level = min(costs, key=lambda level: (costs[level], level), default=0)
    if not np.isfinite(costs.get(level, np.inf)):
        return None
    place = np.unravel_index(table.levels[level].argmin(), table.levels[level].shape)
    chosen = dict(zip(table.scope, map(int, place), strict=True))
    table.explain(level, chosen)
    return costs[level], chosen


def _merge(merged: dict[frozenset[str], Table], table: Table, limit: float) -> None:
    """Adds a table to the one with the same vertices; a table of one vertex to any that has this vertex."""
    for scope in merged:
        if scope >= set(table.scope):
            merged[scope] = _add(merged[scope], table, limit)
            return
    merged[frozenset(table.scope)] = table


def _add(first: Table, second: Table, limit: float) -> Table:
    """The sum of two tables; the second's vertices are among the first's."""

    def combine(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, None]:
        if len(second.scope) == 1:
            shape = [-1 if name == second.scope[0] else 1 for name in first.scope]
            return one + other.reshape(shape), None
        return one + (other if second.scope == first.scope else other.T), None

    return _combined(first.scope, first, second, combine, limit)


def _eliminate(vertex: str, bucket: list[Table], limit: float) -> Table:
    """The table of a vertex's two neighbours in which the vertex has its best choice."""
    assert len(bucket) == 2, f"{vertex} has {len(bucket)} neighbours"
    first, second = bucket
    left, right = ((set(table.scope) - {vertex}).pop() for table in bucket)

    def combine(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        one = one if first.scope[1] == vertex else one.T
        other = other if second.scope[0] == vertex else other.T
        return _least_sums(one, other)

    return _combined((left, right), first, second, combine, limit, vertex)


def _least_sums(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """min over v of one[a, v] + other[v, b], and the best v; in blocks of rows to save memory."""
    costs, best = [], []
    step = max(1, _AT_ONCE // other.size)
    for start in range(0, len(one), step):
        sums = one[start : start + step, :, None] + other[None]
        best.append(sums.argmin(1))
        costs.append(np.take_along_axis(sums, best[-1][:, None], 1)[:, 0])
    return np.concatenate(costs), np.concatenate(best)


def _combined(
    scope: tuple[str, ...],
    first: Table,
    second: Table,
    combine: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]],
    limit: float,
    vertex: str = "",
) -> Table:
    """Combines all pairs of levels within the limit, and keeps the best for each sum of levels."""
    pairs = [(one, other) for one in first.levels for other in second.levels if one + other <= limit]
    levels: Levels = {}
    origins: dict[int, np.ndarray] = {}
    choices: dict[int, np.ndarray | None] = {}
    for number, (one, other) in enumerate(pairs):
        costs, best = combine(first.levels[one], second.levels[other])
        choices[number] = best
        kept = levels.setdefault(one + other, np.full_like(costs, np.inf))
        better = costs < kept
        origins.setdefault(one + other, np.zeros(costs.shape, np.int32))[better] = number
        levels[one + other] = np.where(better, costs, kept)

    def explain(level: int, chosen: dict[str, int]) -> None:
        place = tuple(chosen[name] for name in scope)
        number = int(origins[level][place])
        best = choices[number]
        if best is not None:
            chosen[vertex] = int(best[place])
        for table, part in zip((first, second), pairs[number], strict=True):
            table.explain(part, chosen)

    return Table(scope, _without_dominated(levels), explain)


def _without_dominated(levels: Mapping[int, np.ndarray]) -> Levels:
    """Drops levels that are nowhere better than a smaller level."""
    kept: Levels = {}
    best: np.ndarray | float = np.inf
    for level in sorted(levels):
        if np.any(levels[level] < best):
            kept[level] = levels[level]
            best = np.minimum(best, levels[level])
    return kept
