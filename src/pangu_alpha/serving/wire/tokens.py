"""What the front knows of the model: its vocabulary, its context, and the text of every id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pangu_alpha.text.growing import NewText, new_text
from pangu_alpha.text.tokenizer import PanguTokenizer

_MOST_TWINS = 2  # the engine reports at most 40 likeliest ids, for 20 distinct texts


@dataclass(frozen=True)
class ModelFacts:
    """What of a loaded model decides whether a request is allowed.

    Args:
        vocab_size: Number of ids of the network, which may be more than the vocabulary's.
        end_of_document: The id between documents.
        context: Largest number of ids of a prompt with its continuation.
        slots: Number of continuations that are computed together.
    """

    tokenizer: PanguTokenizer
    vocab_size: int
    end_of_document: int
    context: int
    slots: int

    @property
    def end_text(self) -> str:
        """The name of the end of document, which /tokenize encodes as the id itself."""
        return self.tokenizer.piece_of(self.end_of_document)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a prompt; the name of the end of document alone is that id."""
        return [self.end_of_document] if text == self.end_text else self.tokenizer.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids; those that only the network knows have none."""
        return self.tokenizer.decode(each for each in ids if each < self.tokenizer.vocab_size)

    def text_of(self, token: int) -> str:
        """Returns the text of a single id."""
        return self._texts[token] if token < len(self._texts) else ""

    def new_text(self) -> NewText:
        """Begins a text of which the ids come one after another."""
        return new_text(self)

    @property
    def additive(self) -> bool:
        """Whether the text of ids is the texts of the single ids, joined."""
        return self.tokenizer.additive

    @cached_property
    def _texts(self) -> Sequence[str]:
        return [self.tokenizer.decode([token]) for token in range(self.tokenizer.vocab_size)]

    def stop_forms(self, stops: Iterable[str]) -> dict[str, str]:
        """Stop texts by the form in which the vocabulary generates them; others can never occur."""
        found = {}
        for stop in stops:
            ids = self.tokenizer.encode(stop)
            if self.tokenizer.unk_id not in ids and (text := self.tokenizer.decode(ids)):
                found[text] = stop
        return found

    @cached_property
    def twins(self) -> int:
        """Largest number of ids that share one text, as the pieces with and without a word's begin do."""
        return min(_MOST_TWINS, max(Counter(self._texts).values()))
