"""Connected components of edges: at once in memory, or when rounds of large and small stars have ended."""

from __future__ import annotations

import numpy as np

from pangu_alpha.corpus.hashing import FACTOR, mixed

IN_MEMORY = 50_000_000  # edges; up to here one task finds the components of all


class Checksum:
    """Number and sum of the edges of a round, whatever their order and the parts they come in.

    Rounds have converged when two in a row have equal checksums. Those of parts are added.
    """

    def __init__(self, rows: int = 0, total: int = 0) -> None:
        self.rows, self.total = rows, total

    def add(self, u: np.ndarray, v: np.ndarray) -> None:
        """Counts the edges in which u is larger; of an edge given in both directions, that is one."""
        larger = u > v
        words = mixed(mixed(u[larger].astype(np.uint64)) * FACTOR + v[larger].astype(np.uint64))
        self.rows += int(larger.sum())
        self.total = (self.total + int(words.sum(dtype=np.uint64))) % 2**64

    def __add__(self, other: Checksum) -> Checksum:
        return Checksum(self.rows + other.rows, (self.total + other.total) % 2**64)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checksum) and (self.rows, self.total) == (other.rows, other.total)

    def __hash__(self) -> int:
        return hash((self.rows, self.total))


def connected(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the connected components of edges that fit into memory.

    Args:
        u: One end of each edge, int64 [edges].
        v: The other end.

    Returns:
        The ids that an edge joins to a smaller one, sorted, and the least id of the component of each, int64
        [ids] each: what rounds of `large_star` and `small_star` end with.
    """
    # scipy takes a second to load, and only this step needs it
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ids, places = np.unique(np.concatenate([u, v]), return_inverse=True)
    if not len(ids):
        return ids, ids
    first, second = places[: len(u)], places[len(u) :]
    graph = coo_matrix((np.ones(len(u), np.bool_), (first, second)), (len(ids), len(ids)))
    _, component = connected_components(graph, directed=False)
    # ids are sorted, so the first one of a component is its least
    _, firsts = np.unique(component, return_index=True)
    label = ids[firsts[component]]
    other = label != ids
    return ids[other], label[other]
