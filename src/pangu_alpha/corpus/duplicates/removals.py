"""Chooses the copy that is kept of each group of duplicates, and checks near copies by their signatures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from pangu_alpha.corpus.duplicates.minhash import estimated_jaccard
from pangu_alpha.corpus.duplicates.sorted_runs import run_starts, with_firsts

MOST_LEADERS = 10_000  # kept documents of one component whose hashes are held: 40 MB for 1,000
_ROWS = 1024  # of a component that are compared with a leader at once


class Removals(NamedTuple):
    """Rows about duplicates, in an order that does not depend on how their stream was cut into blocks.

    Args:
        id: A document, int64 [rows].
        kept: The copy that is kept for it; for a kept document itself, in the row after those of its copies.
        copies: Of a kept document, the number of documents that it stands for, itself among them; of a
            removed one, the number that it stood for before. int64 [rows].
    """

    id: np.ndarray
    kept: np.ndarray
    copies: np.ndarray

    @property
    def removed(self) -> np.ndarray:
        """Whether a document is removed, bool [rows]."""
        return self.id != self.kept


def exact_removals(
    blocks: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> Iterator[Removals]:
    """Keeps the first document of each run of equal keys.

    Args:
        blocks: Both halves of the key (uint64), the rank of the source, and the id (int64), sorted by all.

    Returns:
        Blocks of removals; none for a key that one document alone has.
    """
    kept, copies = -1, 0  # of the run that is open; ids are not negative
    for (_, _, id), first, new in with_firsts((high, low, id) for high, low, _, id in blocks):
        starts = np.flatnonzero(new)
        borders = np.append(starts, len(id))
        # the run that was open, and all that begin here but the last, end in this block
        sizes = np.append(copies + borders[0], np.diff(borders))
        leaders = np.append(kept, id[starts])
        found = _Block()
        gone, several = np.flatnonzero(id != first), np.flatnonzero(sizes[:-1] > 1)
        found.add(gone, id[gone], first[gone], np.ones(len(gone), np.int64))
        found.add_leaders(borders[several], leaders[several], sizes[several])
        yield from found.removals()
        kept, copies = int(leaders[-1]), int(sizes[-1])
    if copies > 1:
        yield Removals(*(np.array([each], np.int64) for each in (kept, kept, copies)))


class _Block:
    """Collects the rows of a block in any order, and returns them in that of their places."""

    def __init__(self) -> None:
        self._keys: list[np.ndarray] = []
        self._rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, places: np.ndarray, id: np.ndarray, kept: np.ndarray, copies: np.ndarray) -> None:
        """Adds removed documents, which stand at these places in the block."""
        self._keys.append(2 * places + 1)
        self._rows.append((id, kept, copies))

    def add_leaders(self, ends: np.ndarray, kept: np.ndarray, copies: np.ndarray) -> None:
        """Adds kept documents of groups that end before these places."""
        self._keys.append(2 * ends)
        self._rows.append((kept, kept, copies))

    def removals(self) -> Iterator[Removals]:
        """All rows; nothing if there are none."""
        order = np.argsort(np.concatenate(self._keys), kind="stable")
        if len(order):
            yield Removals(*(np.concatenate(column)[order] for column in zip(*self._rows, strict=True)))


class _Leaders:
    """The kept documents of one component: each of its other documents joins the first one it agrees with."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._ids: list[int] = []
        self._rows = np.empty((0, 0), np.uint32)
        self._joined: list[int] = []  # number of documents that joined each
        self._copies: list[int] = []  # that each stands for

    def take(self, id: np.ndarray, copies: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Assigns the next documents, and returns the kept one of each, int64 [documents]."""
        kept = id.copy()
        start = 0 if self._ids else 1
        if start:
            self._lead(id[0], copies[0], rows[0])
        for first in range(start, len(id), _ROWS):
            # nearly all join the first leader, so it is compared with many at once
            part = slice(first, first + _ROWS)
            near = estimated_jaccard(rows[part], self._rows[0]) >= self._threshold
            kept[part][near] = self._ids[0]
            self._join(0, int(near.sum()), int(copies[part][near].sum()))
            for place in (np.flatnonzero(~near) + first).tolist():
                kept[place] = self._join_or_lead(int(id[place]), int(copies[place]), rows[place])
        return kept

    def _join_or_lead(self, id: int, copies: int, row: np.ndarray) -> int:
        near = estimated_jaccard(self._rows[: len(self._ids)], row) >= self._threshold
        leader = int(near.argmax())
        if near[leader]:
            self._join(leader, 1, copies)
            return self._ids[leader]
        if len(self._ids) < MOST_LEADERS:
            self._lead(id, copies, row)
        return id

    def _join(self, leader: int, documents: int, copies: int) -> None:
        self._joined[leader] += documents
        self._copies[leader] += copies

    def _lead(self, id: int, copies: int, row: np.ndarray) -> None:
        if len(self._ids) == len(self._rows):
            room = np.empty((max(4, len(self._rows)), len(row)), row.dtype)
            self._rows = np.concatenate([self._rows, room]) if self._ids else room
        self._rows[len(self._ids)] = row
        self._ids.append(int(id))
        self._joined.append(0)
        self._copies.append(int(copies))

    def ended(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the documents that others have joined, and the copies each stands for, int64 each."""
        several = [place for place, joined in enumerate(self._joined) if joined]
        ids = np.array([self._ids[place] for place in several], np.int64)
        return ids, np.array([self._copies[place] for place in several], np.int64)


NearBlock = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def near_removals(blocks: Iterable[NearBlock], threshold: float) -> Iterator[Removals]:
    """Keeps the first document of each component, and every other one that is near to none of those kept.

    A component may be a chain whose ends have little in common. So each document is compared, in order, with
    those that are kept so far: it is removed for the first one that agrees, or is kept as well. Nothing is
    removed for a copy that it does not resemble, and components of any size are split where they have to be.

    Args:
        blocks: Label of the component, rank of the source, id, copies that it stands for (int64) and
            hashes (uint32 [rows, hashes]) of each document of a component, sorted by the first three.
        threshold: Least share of equal hashes; see `estimated_jaccard`. Of a component with more than
            MOST_LEADERS kept documents, those that come later are kept but not compared with.

    Returns:
        Blocks of removals.
    """
    open_label, leaders = None, _Leaders(threshold)
    for label, _, id, copies, rows in blocks:
        if not len(id):
            continue
        found, borders = _Block(), np.append(np.flatnonzero(run_starts(label)), len(id))
        if label[0] != open_label:
            found.add_leaders(*_at(0, *leaders.ended()))
            leaders, open_label = _Leaders(threshold), None
        alike = _add_alike(found, borders, (id, copies, rows), threshold, open_label is not None)
        for start, stop in zip(borders[:-1][~alike].tolist(), borders[1:][~alike].tolist(), strict=True):
            part = slice(start, stop)
            kept = leaders.take(id[part], copies[part], rows[part])
            gone = np.flatnonzero(kept != id[part])
            found.add(gone + start, id[part][gone], kept[gone], copies[part][gone])
            if stop < len(id):
                found.add_leaders(*_at(stop, *leaders.ended()))
                leaders = _Leaders(threshold)
        open_label = label[-1]
        yield from found.removals()
    last = _Block()
    last.add_leaders(*_at(0, *leaders.ended()))
    yield from last.removals()


def _at(place: int, kept: np.ndarray, copies: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.full(len(kept), place, np.int64), kept, copies


def _add_alike(
    found: _Block, borders: np.ndarray, columns: tuple[np.ndarray, ...], threshold: float, goes_on: bool
) -> np.ndarray:
    """Adds the components that lie within the block and agree with their first document, nearly all of them.

    Returns:
        Whether a component was one of them, bool [components].
    """
    id, copies, rows = columns
    starts, sizes = borders[:-1], np.diff(borders)
    first = np.repeat(starts, sizes)
    near = np.concatenate(
        [
            estimated_jaccard(rows[part : part + _ROWS], rows[first[part : part + _ROWS]]) >= threshold
            for part in range(0, len(id), _ROWS)
        ]
    )
    alike = np.logical_and.reduceat(near, starts)
    alike[0] &= not goes_on
    alike[-1] = False  # it may go on
    gone = np.flatnonzero(np.repeat(alike, sizes) & (first != np.arange(len(id))))
    found.add(gone, id[gone], id[first[gone]], copies[gone])
    led = alike & (sizes > 1)
    found.add_leaders(borders[1:][led], id[starts[led]], np.add.reduceat(copies, starts)[led])
    return alike
