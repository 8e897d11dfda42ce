"""Generates text from text: encodes prompts, and yields text as soon as no later token can change it.

PanGu-alpha is a base language model: it continues text and does not follow instructions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.inference.generate import Event, Generator, Reason
from pangu_alpha.inference.prompts import encode_prompt
from pangu_alpha.text.growing import GrowingText, as_generated
from pangu_alpha.text.punctuation import ChinesePunctuation
from pangu_alpha.text.tokenizer import PanguTokenizer

logger = logging.getLogger(__name__)


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

    def _pieces(self, events: Iterator[Event], texts: list[GrowingText]) -> Iterator[Piece]:
        for event in events:
            text = texts[event.prompt].take(final=event.reason is not None)
            if text or event.reason is not None:
                yield Piece(event.prompt, text, event.reason)


class Conversation:
    """A text that grows by turns: a line, then its continuation, which the next line follows.

    The keys of earlier turns stay in the generator's cache, so that each turn computes its new ids only.

    Args:
        sampling: See TextGenerator.stream.
    """

    def __init__(self, texts: TextGenerator, sampling: SamplingConfig) -> None:
        self.ids: list[int] = []  # of the whole text, as they were read and generated
        self._texts = texts
        self._sampling = sampling
        self._stop = [as_generated(texts.tokenizer, text) for text in sampling.stop]

    def turn(self, line: str, truncate_left: bool = False) -> Iterator[Piece]:
        """Continues the text with a line behind it, and yields text as it becomes certain.

        When the text leaves no room for another turn, its older half is forgotten, and a warning is logged.

        Args:
            truncate_left: See TextGenerator.stream; only for the line.

        Raises:
            ValueError: The line is empty or too long; the text is as it was then.
        """
        tokenizer, context = self._texts.tokenizer, self._texts.generator.decoder.context
        room = max(1, context - self._sampling.max_new_tokens)
        new = encode_prompt(tokenizer, line)
        if truncate_left:
            new = _cut(new, room, 0)
        border = [token for token in tokenizer.encode("\n") if token != tokenizer.unk_id]
        if new and self.ids and self.ids[-len(border) :] != border:
            new = [*border, *new]
        prompt = [*self._kept(room, min(room, context // 2), len(new)), *new] if new else []
        text = GrowingText(tokenizer, self._stop)

        def finished(_: int, ids: Sequence[int]) -> bool:
            text.update(ids)
            return text.stopped

        events = self._texts.generator.stream([prompt], self._sampling, finished, exact=False)
        self.ids = prompt
        return self._pieces(events, text)

    def _kept(self, room: int, half: int, new: int) -> list[int]:
        """The ids that stay before so many new ones."""
        if not self.ids or len(self.ids) + new <= room:
            return self.ids
        kept = max(0, half - new)
        logger.warning(
            "the conversation has become too long: its first %d tokens are forgotten", len(self.ids) - kept
        )
        return self.ids[len(self.ids) - kept :]

    def _pieces(self, events: Iterator[Event], text: GrowingText) -> Iterator[Piece]:
        for event in events:
            if event.token is not None:
                self.ids.append(event.token)
            piece = text.take(final=event.reason is not None)
            if piece or event.reason is not None:
                yield Piece(0, piece, event.reason)


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


def _cut(ids: list[int], room: int, number: int) -> list[int]:
    if len(ids) > room:
        logger.warning("prompt %d: the first %d of %d tokens are cut off", number, len(ids) - room, len(ids))
    return ids[-room:]
