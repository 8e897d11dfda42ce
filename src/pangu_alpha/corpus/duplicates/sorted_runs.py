"""Steps on streams of sorted rows. A stream is an iterator of blocks, each a tuple of arrays of one length.

Where a stream is cut into blocks changes no result, and no step holds more than a block: a run of any length
costs the memory of its first row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pangu_alpha.corpus.duplicates.components import Checksum

Pairs = tuple[np.ndarray, np.ndarray]


def distinct(blocks: Iterable[tuple[np.ndarray, ...]]) -> Iterator[tuple[np.ndarray, ...]]:
    """Leaves out rows that equal the row before them."""
    last: tuple[np.ndarray, ...] | None = None
    for block in blocks:
        if not len(block[0]):
            continue
        new = np.zeros(len(block[0]), np.bool_)
        new[0] = last is None or any(each[0] != before for each, before in zip(block, last, strict=True))
        for column in block:
            new[1:] |= column[1:] != column[:-1]
        last = tuple(column[-1] for column in block)
        if new.any():
            yield block if new.all() else tuple(column[new] for column in block)


def run_starts(*columns: np.ndarray) -> np.ndarray:
    """Whether a row differs from the row before it in any of the columns, bool [rows]; the first one does."""
    new = np.zeros(len(columns[0]), np.bool_)
    new[:1] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return new


def with_firsts(blocks: Iterable[tuple[np.ndarray, ...]]) -> Iterator[tuple[tuple, np.ndarray, np.ndarray]]:
    """Adds to sorted rows the last column's first value in the run of rows whose other columns are equal.

    Returns:
        Each block, that first value, and whether a row begins its run, bool [rows]; blocks without rows are
        left out.
    """
    last_key, last_first = None, None
    for block in blocks:
        *keys, value = block
        if not len(value):
            continue
        new = run_starts(*keys)
        new[0] = last_key is None or any(key[0] != old for key, old in zip(keys, last_key, strict=True))
        places = np.maximum.accumulate(np.where(new, np.arange(len(value)), -1))
        first = value[places]
        if not new[0]:
            first[places < 0] = last_first
        last_key, last_first = [key[-1] for key in keys], first[-1]
        yield block, first, new


def star_edges(blocks: Iterable[Pairs]) -> Iterator[Pairs]:
    """Joins all documents of a bucket to its first one.

    Args:
        blocks: Band keys and ids, int64 each, sorted by (key, id).

    Returns:
        Blocks of (id, least id of its bucket), the second always smaller: k - 1 rows for a bucket of k.
    """
    for (_, id), first, _ in with_firsts(blocks):
        other = id != first
        if other.any():
            yield id[other], first[other]


def large_star(blocks: Iterable[Pairs], entering: Checksum | None = None) -> Iterator[Pairs]:
    """Joins every larger neighbour of a document to the least among it and its neighbours.

    Args:
        blocks: Each edge in both directions, (u, v) and (v, u), sorted; repeated rows count once.
        entering: Receives the edges of the round; see `Checksum`.

    Returns:
        Blocks of (v, least), the second always smaller. The step is that of Kiveris et al. (2014), section 3.
    """
    for (u, v), first, _ in with_firsts(distinct(blocks)):
        if entering is not None:
            entering.add(u, v)
        larger = v > u
        if larger.any():
            yield v[larger], np.minimum(first, u)[larger]


def small_star(blocks: Iterable[Pairs]) -> Iterator[Pairs]:
    """Joins a document and its smaller neighbours to the least of them.

    Args:
        blocks: Edges (u, v) with v < u, sorted; repeated rows count once.

    Returns:
        Blocks of (id, least), the second always smaller; other parts may give the same row once more.
    """
    for (u, v), first, new in with_firsts(distinct(blocks)):
        yield np.where(new, u, v), first


def members(blocks: Iterable[Pairs]) -> Iterator[Pairs]:
    """Adds the row (label, label) to rows (id, label) for every label, before its first row.

    Args:
        blocks: Rows sorted by (label, id), in which no label is an id.
    """
    last = None
    for id, label in blocks:
        if not len(id):
            continue
        new = run_starts(label)
        new[0] = last is None or label[0] != last
        places, last = np.flatnonzero(new), label[-1]
        yield np.insert(id, places, label[places]), np.insert(label, places, label[places])
