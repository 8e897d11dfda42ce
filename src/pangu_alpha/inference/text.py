"""Generation from text to text: prompts to ids, ids to text as soon as no later token can change it.

PanGu-alpha is a base language model: it continues text and follows no instructions.
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

_REPLACEMENT = "\ufffd"  # what the bytes of a character give until they are all there


class Piece(NamedTuple):
    """The next bit of one prompt's continuation.

    Args:
        prompt: Index of the prompt.
        text: What has become certain; may be empty in the last one.
        reason: Why it ended (see generate.Event), with the last one only.
    """

    prompt: int
    text: str
    reason: Reason | None = None


class Completion(NamedTuple):
    """One prompt's whole continuation.

    Args:
        prompt: The text that was continued.
        text: What follows it.
        reason: Why it ended; see generate.Event.
    """

    prompt: str
    text: str
    reason: Reason


class GrowingText:
    """Text of a growing list of ids, given out once it is final.

    Held back: the start of what may become a stop text, and characters whose bytes are not all there.

    Args:
        tokenizer: Decodes.
        stop: Texts where everything ends.
    """

    def __init__(self, tokenizer: PanguTokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._text = ""
        self._given = 0
        self.stopped = False

    def update(self, ids: Sequence[int]) -> None:
        """Takes notice of the ids so far. Cost: O(their number)."""
        # All ids are decoded again, because what a SentencePiece id gives may depend on its neighbours.
        self._text = self._tokenizer.decode(ids)
        places = [place for place in map(self._text.find, self._stop) if place >= 0]
        if places:
            self._text = self._text[: min(places)]
            self.stopped = True

    def take(self, final: bool = False) -> str:
        """What is certain and was not given out before; with `final`, everything."""
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
    """Continues texts.

    Args:
        generator: Continues ids.
        tokenizer: The one the model was trained with.
    """

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
        """Continues prompts, giving out text as it becomes certain; pieces of several prompts alternate.

        Args:
            prompts: Any text. Names of control ids in it are text; a warning says so.
            sampling: How to choose, and the texts to stop at.
            truncate_left: Cut off the beginning of a prompt that does not leave room for max_new_tokens (or,
                where those alone fill the context, for one) instead of refusing what exceeds the context.

        Yields:
            Piece: the pieces of a prompt put together are its continuation.

        Raises:
            ValueError: All prompts that are empty or too long; a stop text that no ids can give.
        """
        ids = [encode_prompt(self.tokenizer, prompt, number) for number, prompt in enumerate(prompts)]
        if truncate_left:
            room = max(1, self.generator.decoder.context - sampling.max_new_tokens)
            ids = [_cut(row, room, number) for number, row in enumerate(ids)]
        stop = [self._as_generated(text) for text in sampling.stop]
        texts = [GrowingText(self.tokenizer, stop) for _ in prompts]

        def finished(prompt: int, new_ids: Sequence[int]) -> bool:
            texts[prompt].update(new_ids)
            return texts[prompt].stopped

        events = self.generator.stream(ids, sampling, finished)
        return self._pieces(events, texts)

    def _as_generated(self, stop: str) -> str:
        """A stop text in the form the vocabulary gives it: a full-width comma, say, comes out as ASCII's."""
        ids = self.tokenizer.encode(stop)
        text = self.tokenizer.decode(ids)
        if not text or self.tokenizer.unk_id in ids:
            what = "has no piece for one of" if text else "drops"
            raise ValueError(
                f"stop: {quoted(stop)} cannot be generated; the vocabulary {what} these characters"
            )
        return text

    def _pieces(self, events: Iterator, texts: list[GrowingText]) -> Iterator[Piece]:
        for event in events:
            text = texts[event.prompt].take(final=event.reason is not None)
            if text or event.reason is not None:
                yield Piece(event.prompt, text, event.reason)


def with_chinese_punctuation(pieces: Iterable[Piece], prompts: Sequence[str]) -> Iterator[Piece]:
    """The same continuations with Chinese punctuation between Chinese characters; see ChinesePunctuation.

    Args:
        pieces: Of `TextGenerator.stream`.
        prompts: The texts that are continued; they count as what stands before.
    """
    writers = [ChinesePunctuation(prompt) for prompt in prompts]
    for piece in pieces:
        writer = writers[piece.prompt]
        text = writer.feed(piece.text) + (writer.flush() if piece.reason is not None else "")
        if text or piece.reason is not None:
            yield piece._replace(text=text)


def encode_prompt(tokenizer: PanguTokenizer, prompt: str, number: int = 0) -> list[int]:
    """Ids of a prompt, with a warning for what users may expect to be otherwise.

    Args:
        tokenizer: The model's.
        prompt: Any text; one that gives no id makes an empty list.
        number: Of the prompt, for the warning.
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
