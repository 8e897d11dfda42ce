"""One continuation as it grows: ids to text, stop texts, and what a client may already see.

Text is given out token by token. What may be the beginning of a stop text waits, and with it the whole token
that it lies in, so that the log-probabilities of a chunk always belong to its text. Where several ids make up
a character, it is the text of the last one; a character that never becomes complete is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pangu_alpha.serving.wire.tokens import ModelFacts

LEAST = -9999.0  # stands for minus infinity, which JSON does not have
Top = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Shown:
    """One token of an answer.

    Args:
        text: Its text, cut off where a stop text begins.
        offset: Number of characters before it in the whole text of the choice.
        logprob: None where none was asked for, and for the first token of a prompt.
        top: Likeliest ids at its place with their log-probabilities, likeliest first.
    """

    token: int
    text: str
    offset: int
    logprob: float | None = None
    top: Top | None = None


@dataclass(frozen=True)
class Piece:
    """The next part of one choice.

    Args:
        reason: Why it ended, in the engine's words; only in the last piece.
        stop: The stop text that ended it, as the client wrote it.
    """

    text: str = ""
    tokens: tuple[Shown, ...] = ()
    reason: str | None = None
    stop: str | None = None

    def joined(self, other: Piece) -> Piece:
        """This piece and the one after it as one."""
        return replace(other, text=self.text + other.text, tokens=(*self.tokens, *other.tokens))


@dataclass
class Choice:
    """The state of one continuation.

    Args:
        facts: Gives the text of ids.
        stops: Stop texts by the form in which the vocabulary generates them.
        echo: Number of characters of the prompt before the continuation.
    """

    facts: ModelFacts
    stops: Mapping[str, str] = field(default_factory=dict)
    echo: int = 0
    generated: int = 0
    logprob_sum: float = 0.0
    stopped: bool = False
    _text: str = ""
    _given: int = 0
    _waiting: list[Shown] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._new_text = self.facts.new_text()

    @property
    def mean_logprob(self) -> float:
        """By which best_of compares samples of different lengths."""
        return self.logprob_sum / max(1, self.generated)

    def add(self, token: int, logprob: float | None = None, top: Top | None = None) -> Piece:
        """Takes the next id; returns what may be shown now, which ends the choice if it completes a stop."""
        self.generated += 1
        self.logprob_sum += logprob or 0.0
        text = self._new_text(token)
        self._waiting.append(Shown(token, text, len(self._text), logprob, top))
        self._text += text
        places = [(place, stop) for stop in self.stops if (place := self._text.find(stop, self._given)) >= 0]
        if places:
            place, stop = min(places)
            self.stopped = True
            return replace(self._give(place, cut=True), reason="stop", stop=self.stops[stop])
        return self._give(len(self._text) - self._held())

    def end(self, reason: str) -> Piece:
        """Ends the choice; returns all that was held back."""
        return replace(self._give(len(self._text)), reason=reason)

    def _give(self, end: int, cut: bool = False) -> Piece:
        """Gives out the waiting tokens that end by `end`; a cut shortens the one that reaches beyond it."""
        tokens = []
        while self._waiting and self._waiting[0].offset + len(self._waiting[0].text) <= end:
            tokens.append(self._waiting.pop(0))
        if cut and self._waiting and self._waiting[0].offset < end:
            last = self._waiting[0]
            tokens.append(replace(last, text=last.text[: end - last.offset]))
        text = "".join(shown.text for shown in tokens)
        self._given += len(text)
        return Piece(text, tuple(replace(shown, offset=shown.offset + self.echo) for shown in tokens))

    def _held(self) -> int:
        """Length of the longest end of the text that begins a stop text."""
        pending = self._text[self._given :]
        lengths = (
            size
            for stop in self.stops
            for size in range(min(len(stop) - 1, len(pending)), 0, -1)
            if pending.endswith(stop[:size])
        )
        return max(lengths, default=0)


def prompt_piece(
    ids: Sequence[int], facts: ModelFacts, scores: Sequence[tuple[float, Top | None]] | None, text: str | None
) -> Piece:
    """A prompt as the first piece of an answer with echo.

    Args:
        scores: Log-probability and likeliest ids of every id but the first; None if none were asked for.
        text: The client's own text, which is shown unless the tokens are; None shows the decoded ids.
    """
    if scores is None:
        return Piece(facts.decode(ids) if text is None else text)
    tokens, offset, new_text = [], 0, facts.new_text()
    for place, token in enumerate(ids):
        logprob, top = scores[place - 1] if place else (None, None)
        shown = new_text(token)
        tokens.append(Shown(token, shown, offset, logprob, top))
        offset += len(shown)
    return Piece("".join(shown.text for shown in tokens), tuple(tokens))
