"""What the engine needs of a decoder: rows of a key-value cache that are fed, stepped and copied one by one.

`inference.decoder.Decoder` is one; a test's fake with known logits is another.
Letters: B rows of a step, C slots of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class RowDecoder(Protocol):
    """Rows of tokens, with the logits after them.

    Rows from B on are pinned: they are fed and copied from, but take no part in steps.
    """

    @property
    def rows(self) -> int:
        """Number of rows B that every step computes."""

    @property
    def pinned(self) -> int:
        """Number of further rows."""

    @property
    def context(self) -> int:
        """Number of slots C of a row."""

    @property
    def chunk(self) -> int:
        """Most ids of a feed; feeds begin at multiples of it."""

    @property
    def vocab_size(self) -> int:
        """Number of logits V."""

    def feed(self, row: int, ids: Sequence[int], start: int) -> np.ndarray:
        """Writes ids into the slots from `start` on; the row forgets what it held from there.

        Args:
            ids: 1 to `chunk` ids.
            start: A multiple of `chunk`, at most the row's length; or the row's length.

        Returns:
            float32 [V], logits after the last id.
        """

    def write(self, row: int, ids: Sequence[int], start: int) -> bool:
        """Does the same as `feed`, without the logits; whether all that was computed is finite."""

    def score(self, row: int, ids: Sequence[int], start: int) -> np.ndarray:
        """Does the same as `feed`, to the bit.

        Returns:
            float32 [len(ids), V], logits after every id.
        """

    def step(self, tokens: Sequence[int], active: Sequence[bool]) -> np.ndarray:
        """Adds one id to every active row.

        Args:
            tokens: B ids; those of rows that are not active do not matter.
            active: B flags. Rows that are not active keep everything they hold.

        Returns:
            float32 [B, V], logits after each id.
        """

    def copy(self, source: int, row: int, length: int) -> None:
        """Gives a row the first `length` ids of another one, and nothing else.

        Args:
            length: At most the other row's.
        """

    def clear(self, row: int) -> None:
        """Makes a row as empty as at the beginning: nothing of what it held can reach a later result."""

    def length(self, row: int) -> int:
        """Number of ids that a row holds."""
