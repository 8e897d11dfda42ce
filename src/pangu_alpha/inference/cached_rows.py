"""How far each row of a cache is filled, and where its documents begin. Knows ids and slots in numpy only."""

from __future__ import annotations

import numpy as np


class CachedRows:
    """The lengths and documents of all rows.

    Args:
        rows: Number of rows R.
        context: Number of slots of a row that hold tokens.
        end_of_document: Id after which the next token begins a document.
    """

    def __init__(self, rows: int, context: int, end_of_document: int) -> None:
        self.context = context
        self.lengths = np.zeros(rows, np.int32)
        # For each slot up to the row's length (inclusive), the first slot of its document.
        self.starts = np.zeros((rows, context + 1), np.int32)
        self._end_of_document = end_of_document

    def write(self, row: int, ids: np.ndarray, start: int) -> np.ndarray:
        """Puts ids into the slots from `start` on and forgets what the row held there.

        Returns:
            int32 [n], the first slot of the document of each id.
        """
        assert 0 <= row < len(self.lengths), row
        assert len(ids) and 0 <= start <= self.lengths[row], (start, self.lengths[row])
        stop = start + len(ids)
        assert stop <= self.context, (stop, self.context)
        starts = self.starts[row, start : stop + 1]
        starts[1:] = np.where(ids == self._end_of_document, np.arange(start + 1, stop + 1), 0)
        np.maximum.accumulate(starts, out=starts)
        self.lengths[row] = stop
        return starts[:-1]

    def step(self, tokens: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Puts one id into the next slot of each active row.

        Args:
            tokens: int32 [B], of the first B rows.
            active: bool [B]; the others keep what they hold.

        Returns:
            int32 [B] each: the slot of each id, and the first slot of its document. Both are `context`, the
            slot that holds no token, for rows that are not active.
        """
        rows = np.flatnonzero(active)
        places = self.lengths[rows]
        assert (places < self.context).all(), "a row is full"
        slots = np.full(len(tokens), self.context, np.int32)
        starts = slots.copy()
        slots[rows], starts[rows] = places, self.starts[rows, places]
        ends = tokens[rows] == self._end_of_document
        self.lengths[rows] = places + 1
        self.starts[rows, places + 1] = np.where(ends, places + 1, starts[rows])
        return slots, starts

    def copy(self, source: int, row: int, length: int) -> None:
        """Makes a row the first `length` slots of another one."""
        assert 0 <= length <= self.lengths[source], (length, self.lengths[source])
        self.starts[row, : length + 1] = self.starts[source, : length + 1]
        self.lengths[row] = length
