"""Packs many texts into passes of so many tokens that a beginning which texts share is computed once.

Sorted texts are a tree: each of them branches off the one before, where their common beginning ends. A token
attends to its ancestors in this tree, whichever slots of the cache they are in. So a pass holds the ends of
many texts without padding between them, and what was computed in an earlier pass is only looked up.
Knows ids and slots in numpy; nothing of networks.
Letters: S tokens of a pass, C slots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

Ids = tuple[int, ...]


class Part(NamedTuple):
    """The tokens of one text in one pass.

    Args:
        text: Index of the text.
        first, stop: Depths of these tokens in the text; equal if earlier texts and passes have all of them.
        row: Place of the first one in the pass.
    """

    text: int
    first: int
    stop: int
    row: int


@dataclass
class Pass:
    """What the network computes at once.

    Args:
        ids, positions, slots: int32 [S]; the tokens after `count` are padding.
        mask: float32 [S, C], 1 = may attend to the slot.
        parts: In the order of the texts. A text is complete with the part that stops at its length.
        count: Number of tokens that are no padding.
    """

    ids: np.ndarray
    positions: np.ndarray
    slots: np.ndarray
    mask: np.ndarray
    parts: list[Part] = field(default_factory=list)
    count: int = 0

    @property
    def full(self) -> bool:
        """Whether there is no padding that could be replaced by a token."""
        return self.count == len(self.ids)

    @classmethod
    def empty(cls, free: np.ndarray, slots: int) -> Pass:
        """A pass of padding: each token in a free slot of its own, attending to itself alone."""
        size = len(free)
        mask = np.zeros((size, slots), np.float32)
        mask[np.arange(size), free] = 1.0
        ids, positions = np.zeros(size, np.int32), np.zeros(size, np.int32)
        return cls(ids, positions, free.astype(np.int32), mask)


def pack(texts: Sequence[Ids], sizes: Sequence[int], slots: int, end_of_document: int) -> Iterator[Pass]:
    """Yields the passes that compute all tokens of some texts, each token of their tree once.

    Args:
        texts: Sorted, and no longer than `slots` minus the largest size.
        sizes: Possible values of S, ascending; all passes but the last have the largest.
        slots: C.
        end_of_document: Id after which positions restart at 0 and nothing earlier is attended to.
    """
    known = [0, *map(common_length, texts, texts[1:])]
    left = sum(map(len, texts)) - sum(known[: len(texts)])
    path = np.zeros(slots, np.int64)  # slot of each depth of the current text
    current: Pass | None = None
    for number, (text, depth) in enumerate(zip(texts, known, strict=False)):
        ids, starts = np.asarray(text, np.int32), document_starts(text, end_of_document)
        while True:
            if current is not None and current.full and left:
                yield current
                current = None
            if current is None:
                size = next((size for size in sizes if size >= left), sizes[-1])
                current = Pass.empty(_free(path[:depth], slots, size), slots)
            stop = min(len(text), depth + len(current.ids) - current.count)
            _add(current, Part(number, depth, stop, current.count), ids, starts, path)
            left -= stop - depth
            depth = stop
            if stop == len(text):
                break
    if current is not None:
        yield current


def _add(current: Pass, part: Part, ids: np.ndarray, starts: np.ndarray, path: np.ndarray) -> None:
    """Puts tokens of a text into a pass, and their slots onto the path."""
    rows = np.arange(part.row, part.row + part.stop - part.first)
    depths = np.arange(part.first, part.stop)
    path[depths] = current.slots[rows]
    current.ids[rows] = ids[depths]
    current.positions[rows] = depths - starts[depths]
    every = np.arange(part.stop)
    seen = (every <= depths[:, None]) & (every >= starts[depths][:, None])
    current.mask[rows[:, None], path[every]] = seen
    current.parts.append(part)
    current.count += len(rows)


def _free(taken: np.ndarray, slots: int, size: int) -> np.ndarray:
    """The first slots that are not taken."""
    free = np.ones(slots, bool)
    free[taken] = False
    return np.flatnonzero(free)[:size]


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of ids that two texts have in common at their beginnings."""
    count = min(len(one), len(other))
    if tuple(one[:count]) == tuple(other[:count]):
        return count
    return int(np.argmax(np.asarray(one[:count]) != np.asarray(other[:count])))


def document_starts(text: Sequence[int], end_of_document: int) -> np.ndarray:
    """Depth at which the document of each token begins."""
    begins = np.zeros(len(text) + 1, np.int64)
    ends = np.flatnonzero(np.asarray(text, np.int64) == end_of_document)
    begins[ends + 1] = ends + 1
    return np.maximum.accumulate(begins)[:-1]
