"""What an engine is: two verbs, and a check of what is there already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pangu_alpha.corpus.engine.items import Work
from pangu_alpha.processes.workers import Advance


class Engine(Protocol):
    """Does the work of items, wherever its processes are.

    Whatever the engine and the number of its processes, an item's files have the same bytes.
    """

    def run(self, works: Sequence[Work], advance: Advance) -> None:
        """Does the work of items."""

    def exchange(self, items: Sequence[Work], parts: Sequence[Work], advance: Advance) -> None:
        """Moves the rows of items to parts and does the work of the parts.

        Args:
            items: What `Exchange.read` is called with.
            parts: The parts that are to be made, numbered by `Exchange.part_of`; `reads` is the exchange,
                and their function is called as function(work, blocks of sorted rows, part).
            advance: Called with the number of parts that are done.
        """

    def verify(self, works: Sequence[Work], advance: Advance) -> None:
        """Compares the files of finished items with what their .json say."""

    def close(self) -> None:
        """Ends the processes."""
