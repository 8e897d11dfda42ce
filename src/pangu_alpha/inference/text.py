"""Generates text from text: encodes prompts, and yields text as soon as no later token can change it.

PanGu-alpha is a base language model: it continues text and does not follow instructions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.files.shown import quoted
from pangu_alpha.inference.generate import Generator, Reason
from pangu_alpha.text.punctuation import ChinesePunctuation
from pangu_alpha.text.tokenizer import CONTROL_NAMES, PanguTokenizer

logger = logging.getLogger(__name__)

_REPLACEMENT = "\ufffd"  # what a character decodes to until all its bytes have been generated


class Piece(NamedTuple):
    """The next part of one prompt's continuation.

    Args:
        prompt: Index of the prompt.
        text: Text that has become certain; may be empty in the last piece.
        reason: Why the continuation ended (see generate.Event); only in the last piece.
    """

    prompt: int
    text: str
    reason: Reason | None = None


class Completion(NamedTuple):
    """One prompt with its whole continuation, and why that ended (see generate.Event)."""

    prompt: str
    text: str
    reason: Reason


class GrowingText:
    """The text of a growing list of ids, returned as soon as it is final.

    It holds back the start of what may become a stop text, and characters whose bytes are incomplete.

    Args:
        stop: Texts at which the continuation ends; they are not part of it.
    """

    def __init__(self, tokenizer: PanguTokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._text = ""
        self._given = 0
        self.stopped = False

    def update(self, ids: Sequence[int]) -> None:
        """Takes all ids generated so far. The time grows with their number."""
        # All ids are decoded again, because the text of a SentencePiece id may depend on its neighbours.
        self._text = self._tokenizer.decode(ids)
        places = [place for place in map(self._text.find, self._stop) if place >= 0]
        if places:
            self._text = self._text[: min(places)]
            self.stopped = True

    def take(self, final: bool = False) -> str:
        """Returns the text that is certain and was not returned before; with `final`, all the rest."""
        end = len(self._text) if final or self.stopped else self._certain()
        piece = self._text[self._given : end]
        self._given = max(self._given, end)
        return piece

    def _certain(self) -> int:
        text = self._text.rstrip(_REPLACEMENT)
        held = (
            size for stop in self._stop for size in range(len(stop) - 1, 0, -1) if text.endswith(stop[:size])
        )
        return len(text) - max(held, default=0)


class TextGenerator:
    """Continues texts."""

    def __init__(self, generator: Generator, tokenizer: PanguTokenizer) -> None:
        self.generator = generator
        self.tokenizer = tokenizer

    def complete(
        self, prompts: Sequence[str], sampling: SamplingConfig, truncate_left: bool = False
    ) -> list[Completion]:
        """Continues prompts to their ends; see `stream`."""
        texts = [""] * len(prompts)
        reasons: list[Reason] = ["stop"] * len(prompts)
        for piece in self.stream(prompts, sampling, truncate_left):
            texts[piece.prompt] += piece.text
            reasons[piece.prompt] = piece.reason or reasons[piece.prompt]
        return [Completion(*parts) for parts in zip(prompts, texts, reasons, strict=True)]

    def stream(
        self, prompts: Sequence[str], sampling: SamplingConfig, truncate_left: bool = False
    ) -> Iterator[Piece]:
        """Continues prompts, and yields text as it becomes certain; pieces of several prompts alternate.

        Args:
            prompts: Any text. Names of control ids in it are plain text, and a warning is logged.
            sampling: How to choose tokens, and the texts to stop at.
            truncate_left: True cuts off the beginning of a prompt that does not leave room for max_new_tokens
                (or for one token, if max_new_tokens alone fill the context). False refuses prompts that
                exceed the context.

        Yields:
            Piece: The texts of one prompt's pieces add up to its continuation.

        Raises:
            ValueError: Lists all prompts that are empty or too long; or a stop text cannot be generated.
        """
        ids = [encode_prompt(self.tokenizer, prompt, number) for number, prompt in enumerate(prompts)]
        if truncate_left:
            room = max(1, self.generator.decoder.context - sampling.max_new_tokens)
            ids = [_cut(row, room, number) for number, row in enumerate(ids)]
        stop = [as_generated(self.tokenizer, text) for text in sampling.stop]
        texts = [GrowingText(self.tokenizer, stop) for _ in prompts]

        def finished(prompt: int, new_ids: Sequence[int]) -> bool:
            texts[prompt].update(new_ids)
            return texts[prompt].stopped

        events = self.generator.stream(ids, sampling, finished)
        return self._pieces(events, texts)

    def _pieces(self, events: Iterator, texts: list[GrowingText]) -> Iterator[Piece]:
        for event in events:
            text = texts[event.prompt].take(final=event.reason is not None)
            if text or event.reason is not None:
                yield Piece(event.prompt, text, event.reason)


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


def with_chinese_punctuation(pieces: Iterable[Piece], prompts: Sequence[str]) -> Iterator[Piece]:
    """Yields the same continuations with Chinese punctuation between Chinese characters.

    Args:
        pieces: From `TextGenerator.stream`.
        prompts: The prompts that are continued; their ends count as neighbours (see ChinesePunctuation).
    """
    writers = [ChinesePunctuation(prompt) for prompt in prompts]
    for piece in pieces:
        writer = writers[piece.prompt]
        text = writer.feed(piece.text) + (writer.flush() if piece.reason is not None else "")
        if text or piece.reason is not None:
            yield piece._replace(text=text)


def encode_prompt(tokenizer: PanguTokenizer, prompt: str, number: int = 0) -> list[int]:
    """Returns the ids of a prompt, and logs a warning where users may expect something else.

    Args:
        prompt: Any text; the result is empty if the vocabulary drops all of it.
        number: Index of the prompt, for the warning.
    """
    ids = tokenizer.encode(prompt)
    names = [name for name in CONTROL_NAMES if name in prompt]
    if names:
        logger.warning(
            "prompt %d: %s is read as plain text, not as a control id", number, " and ".join(names)
        )
    known = [token for token in ids if token != tokenizer.unk_id]
    if len(known) < len(ids) and not tokenizer.decode(known).strip():
        logger.warning("prompt %d: all its characters are outside the vocabulary", number)
    return ids


def _cut(ids: list[int], room: int, number: int) -> list[int]:
    if len(ids) > room:
        logger.warning("prompt %d: the first %d of %d tokens are cut off", number, len(ids) - room, len(ids))
    return ids[-room:]
