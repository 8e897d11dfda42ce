"""Text that grows by one id after another, given out as soon as no later id can change it.

Knows a tokenizer and stop texts; no network and no MindSpore.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from pangu_alpha.files.shown import quoted
from pangu_alpha.text.tokenizer import PanguTokenizer

_REPLACEMENT = "\ufffd"  # what a character decodes to until all its bytes have been generated
_LONGEST_CHARACTER = 8  # ids; a character has four bytes at most, so what is longer never becomes one


class Decodes(Protocol):
    """Turns ids into text."""

    @property
    def additive(self) -> bool:
        """Whether the text of ids is the texts of the single ids, joined."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids."""


class GrowingText:
    """The text of a growing list of ids; a new id takes the same time however long the text is.

    It holds back the start of what may become a stop text, and characters whose bytes are incomplete.

    Args:
        stop: Texts at which the continuation ends; they are not part of it.
    """

    def __init__(self, tokenizer: Decodes, stop: Sequence[str] = ()) -> None:
        self._stops = stop
        self._new_text = new_text(tokenizer)
        self._count = 0  # ids so far
        self._held = ""  # text that was not given out
        self.stop: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop text has come; it is `stop` then."""
        return self.stop is not None

    def add(self, token: int) -> str:
        """Takes the next id, and returns what has become certain."""
        self._extend(token)
        return self.take()

    def update(self, ids: Sequence[int]) -> None:
        """Takes all ids generated so far, of which those that are new count."""
        for token in ids[self._count :]:
            self._extend(token)

    def take(self, final: bool = False) -> str:
        """Returns the text that is certain and was not returned before; with `final`, all the rest."""
        if final and not self.stopped:
            self._append(self._new_text.rest())
        end = len(self._held) if final or self.stopped else self._certain()
        piece, self._held = self._held[:end], self._held[end:]
        return piece

    def _extend(self, token: int) -> None:
        self._count += 1
        if not self.stopped:
            self._append(self._new_text(token))

    def _append(self, text: str) -> None:
        """Adds text, up to the first stop text in it. What was given out cannot be the beginning of one."""
        before = len(self._held)
        self._held += text
        found = ((self._held.find(stop, max(0, before - len(stop) + 1)), stop) for stop in self._stops)
        places = [each for each in found if each[0] >= 0]
        if places:
            place, self.stop = min(places, key=lambda each: each[0])
            self._held = self._held[:place]

    def _certain(self) -> int:
        held = (
            size
            for stop in self._stops
            for size in range(min(len(stop) - 1, len(self._held)), 0, -1)
            if self._held.endswith(stop[:size])
        )
        return len(self._held) - max(held, default=0)


class NewText(Protocol):
    """Takes the ids of one text in their order, and returns what each makes certain."""

    def __call__(self, token: int) -> str:
        """The text that is certain with this id and was not before."""

    def rest(self) -> str:
        """What the ids so far leave incomplete."""


def new_text(tokenizer: Decodes) -> NewText:
    """Begins a text."""
    return _Single(tokenizer) if tokenizer.additive else _Window(tokenizer)


class _Single:
    """New text of an additive vocabulary: that of the new id alone."""

    def __init__(self, tokenizer: Decodes) -> None:
        self._decode = tokenizer.decode

    def __call__(self, token: int) -> str:
        return self._decode([token])

    def rest(self) -> str:
        return ""


class _Window:
    """New text where an id's text depends on its neighbours: those since the last complete character.

    They are decoded behind the ones before them, because an id may decode to something else at the beginning.
    """

    def __init__(self, tokenizer: Decodes) -> None:
        self._decode = tokenizer.decode
        self._context: list[int] = []
        self._before = ""  # its text
        self._window: list[int] = []
        self._given = 0  # characters of the window
        self._tail = ""  # of characters that are incomplete

    def __call__(self, token: int) -> str:
        self._window.append(token)
        text = self._decode([*self._context, *self._window])[len(self._before) :]
        whole = text.rstrip(_REPLACEMENT) if len(self._window) <= _LONGEST_CHARACTER else text
        new, self._given, self._tail = whole[self._given :], len(whole), text[len(whole) :]
        if not self._tail:
            self._context, self._window, self._given = self._window, [], 0
            self._before = self._decode(self._context)
        return new

    def rest(self) -> str:
        rest, self._tail = self._tail, ""
        return rest


def as_generated(tokenizer: PanguTokenizer, stop: str) -> str:
    """A stop text as the vocabulary generates it: for example, a full-width comma becomes ASCII's.

    Raises:
        ValueError: The vocabulary cannot generate it.
    """
    ids = tokenizer.encode(stop)
    text = tokenizer.decode(ids)
    if not text or tokenizer.unk_id in ids:
        what = "has no piece for one of" if text else "drops"
        raise ValueError(f"stop: {quoted(stop)} cannot be generated; the vocabulary {what} these characters")
    return text
