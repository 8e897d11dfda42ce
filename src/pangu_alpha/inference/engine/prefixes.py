"""What the rows of the cache hold, and which of it a new prompt can use again.

A row keeps its text after its request has ended, until another request needs the row. A prompt that begins
like the text takes its keys and values from there: in the row itself, or copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pangu_alpha.inference.engine.requests import Request, Score
from pangu_alpha.inference.packing import common_length


@dataclass
class Held:
    """A row.

    Args:
        text: All ids that it holds.
        fed: How many of them were computed in the chunks of a prompt. The same ids give the same bits there,
            whatever else the engine did. Ids that steps computed have other roundings.
        key: Whose text it is; None for everybody's.
        scores: Of the text's ids from the second one on, as far as a request had them computed.
        top: Number of likeliest ids in these scores.
        used: When the row was used last; -1 for never.
    """

    text: list[int] = field(default_factory=list)
    fed: int = 0
    key: str | None = ""
    scores: list[Score] = field(default_factory=list)
    top: int = 0
    used: int = -1

    def keep(self, length: int) -> None:
        """Forgets everything but the first ids."""
        del self.text[length:]
        del self.scores[max(0, length - 1) :]
        self.fed = min(self.fed, length)


class Place(NamedTuple):
    """Where a prompt goes.

    Args:
        source: The row that holds its first ids, often the same one.
        length: Number of these ids.
    """

    row: int
    source: int
    length: int


class Rows:
    """The rows of a decoder: which are idle, and what each holds.

    Args:
        count: Number of rows that requests may take.
        pinned: Number of rows behind these, whose texts are for everybody and stay.
        chunk: Prefixes end at multiples of it, because prompts are computed in such chunks.
    """

    def __init__(self, count: int, pinned: int, chunk: int) -> None:
        self.held = [Held() for _ in range(count)] + [Held(key=None) for _ in range(pinned)]
        self.idle = set(range(count))
        self._count = count
        self._chunk = chunk
        self._now = 0

    @property
    def pins(self) -> Sequence[int]:
        """All pinned rows."""
        return range(self._count, len(self.held))

    def place(self, request: Request) -> Place:
        """Finds the row that holds most of a prompt's beginning, and the idle row that the prompt goes to."""
        found = [self._place(row, request) for row in range(len(self.held))]
        # Of equals, one that needs no copy, and of these the one that loses least.
        best = max(
            found, key=lambda each: (each.length, each.row == each.source, -len(self.held[each.source].text))
        )
        return best if best.length else Place(self.oldest(), -1, 0)

    def take(self, place: Place, key: str) -> list[Score]:
        """Gives an idle row to a request.

        Returns:
            The known scores of the prompt's ids from the second one to the first that must be computed.
        """
        row = self.held[place.row]
        scores: list[Score] = []
        if place.length:
            source = self.held[place.source]
            source.used = self._tick()
            scores = source.scores[: place.length]
            if source is not row:
                self.copy(place.source, place.row, place.length)
        row.keep(place.length)  # before it has another key, for which the rest is not
        row.key = key
        self.idle.remove(place.row)
        return scores

    def release(self, row: int) -> None:
        """Makes a row idle; it keeps its text."""
        self.held[row].used = self._tick()
        self.idle.add(row)

    def oldest(self, but: int = -1) -> int:
        """The idle row that was not used for the longest time.

        Args:
            but: A row that is left out unless it is the only one.
        """
        return min(self.idle, key=lambda row: (row == but, self.held[row].used, row))

    def fed(self, row: int, ids: Sequence[int], start: int) -> None:
        """Notes ids of a prompt that a feed has written."""
        held = self.held[row]
        exact = start % self._chunk == 0 and start <= held.fed
        held.keep(start)
        held.text += ids
        if exact:
            held.fed = len(held.text)

    def copy(self, source: int, row: int, length: int) -> None:
        """Notes that a row holds the first ids of another one, and nothing else."""
        known, held = self.held[source], self.held[row]
        held.text, held.fed, held.scores = known.text[:length], min(known.fed, length), []

    def holder(self, prompt: Sequence[int], key: str) -> int | None:
        """A row in which exactly this prompt was computed, whatever was generated after it."""
        size = len(prompt)
        for row, held in enumerate(self.held):
            if held.key == key and held.fed == size and held.text[:size] == list(prompt):
                return row
        return None

    def _place(self, row: int, request: Request) -> Place:
        """How much of a prompt can be taken from a row, and where the prompt would go then."""
        held, idle = self.held[row], row in self.idle
        if held.key not in (None, request.key):
            return Place(row, row, 0)
        known = held.text[: held.fed] if request.exact else held.text
        common = common_length(known, request.prompt)
        scored = request.prompt_logprobs is not None
        if not request.exact and not scored and idle and len(held.text) == common < len(request.prompt):
            return Place(row, row, common)
        most = min(common, len(request.prompt) - 1)  # the last id must be computed, for its logits
        if scored:
            # The last of these ids predicts the next one, so that must be the same, too.
            enough = held.top >= (request.prompt_logprobs or 0)
            most = min(most, common - 1, len(held.scores)) if enough else 0
        length = max(0, most) // self._chunk * self._chunk
        return Place(row if idle else self.oldest(), row, length)

    def _tick(self) -> int:
        self._now += 1
        return self._now
