"""Continues prompts token by token.

Knows ids only. All prompts go to one engine; each is continued as soon as a row is free, and what it becomes
does not depend on the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal, NamedTuple

from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.inference.decoder import Decoder
from pangu_alpha.inference.engine.requests import Event as EngineEvent
from pangu_alpha.inference.engine.requests import Finished as EngineFinished
from pangu_alpha.inference.engine.requests import Request, Token
from pangu_alpha.inference.engine.scheduler import Engine
from pangu_alpha.inference.sampling import NotFiniteError
from pangu_alpha.model.pangu import PanguAlpha

Reason = Literal["stop", "length", "context"]
Finished = Callable[[int, Sequence[int]], bool]


class Event(NamedTuple):
    """A new token of one prompt, or the end of its continuation; either `token` or `reason` is None.

    Args:
        prompt: Index of the prompt.
        token: The new id.
        reason: Why the continuation ended: "stop" if a stop id or text was generated, "length" after
            max_new_tokens, "context" if there is no room left.
    """

    prompt: int
    token: int | None
    reason: Reason | None = None


class Continuation(NamedTuple):
    """All new ids after one prompt, and why the continuation ended (see Event)."""

    ids: tuple[int, ...]
    reason: Reason


class Generator:
    """Generates continuations with a model.

    Args:
        model: Its attentions get caches, which `close` removes.
        end_of_document: Id between documents; it ends a continuation.
        batch_size: Number of prompts computed together.
        context: Largest number of ids of a prompt and its continuation together; None is the model's sequence
            length.
        banned: Ids that are never generated.

    Raises:
        ValueError: See Decoder.
    """

    def __init__(
        self,
        model: PanguAlpha,
        end_of_document: int,
        batch_size: int = 1,
        context: int | None = None,
        banned: Collection[int] = (),
    ) -> None:
        assert end_of_document not in banned, "a continuation could not end"
        self.decoder = Decoder(model, end_of_document, batch_size, context)
        self.engine = Engine(self.decoder, {end_of_document}, banned)
        # Of each request, the events that its stream has not taken yet: two streams may take turns.
        self._events: dict[int, deque[EngineEvent]] = {}

    def generate(self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig) -> list[Continuation]:
        """Continues prompts to their ends; see `stream`."""
        ids: list[list[int]] = [[] for _ in prompts]
        reasons: list[Reason] = ["stop"] * len(prompts)
        for event in self.stream(prompts, sampling):
            if event.reason is not None:
                reasons[event.prompt] = event.reason
            elif event.token is not None:
                ids[event.prompt].append(event.token)
        return [Continuation(tuple(row), reason) for row, reason in zip(ids, reasons, strict=True)]

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingConfig,
        finished: Finished = lambda prompt, ids: False,
        exact: bool = True,
    ) -> Iterator[Event]:
        """Continues prompts, and yields every token as soon as it is chosen.

        The n-th copy of a prompt uses the n-th random stream, so repeat a prompt to get several samples.

        Args:
            prompts: Ids of each prompt.
            sampling: How to choose tokens; its stop texts are left to the caller (see `finished`).
            finished: Called with (index of the prompt, its new ids) before each token is yielded; True makes
                that token the last one, with the reason "stop".
            exact: See Request.

        Yields:
            Event: One for every token, and one with the reason at the end of every prompt.

        Raises:
            ValueError: Lists all prompts that are empty, too long or hold ids outside the vocabulary. It is
                raised by the call itself, not by the first iteration.
        """
        self._check(prompts)
        return self._run([tuple(prompt) for prompt in prompts], sampling, finished, exact)

    def close(self) -> None:
        """Removes the caches from the model."""
        self.decoder.close()

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        problems, seen, size = [], set(), self.decoder.vocab_size
        for number, prompt in enumerate(map(tuple, prompts)):
            if prompt in seen:  # another sample of a prompt that has been checked
                continue
            seen.add(prompt)
            if not prompt:
                problems.append(
                    f"prompt {number}: empty, or only of characters that the vocabulary drops, such as tabs; "
                    "give some text, or the end-of-document id to begin a document"
                )
            elif len(prompt) > self.decoder.context:
                problems.append(
                    f"prompt {number}: {len(prompt)} tokens, but the context holds {self.decoder.context}; "
                    "shorten it, or let its beginning be cut off (--truncate-left)"
                )
            elif min(prompt) < 0 or max(prompt) >= size:
                problems.append(f"prompt {number}: holds ids outside the vocabulary of {size}")
        if problems:
            raise ValueError("\n".join(problems))

    def _run(
        self, prompts: Sequence[tuple[int, ...]], sampling: SamplingConfig, finished: Finished, exact: bool
    ) -> Iterator[Event]:
        copies: dict[tuple[int, ...], list[int]] = {}  # of each different prompt, its indices
        for number, prompt in enumerate(prompts):
            copies.setdefault(prompt, []).append(number)
        indices: dict[int, list[int]] = {}  # of each request
        events: deque[EngineEvent] = deque()
        try:
            for prompt, numbers in copies.items():
                request = Request(
                    prompt,
                    sampling,
                    sampling.max_new_tokens,
                    samples=len(numbers),
                    exact=exact,
                    finished=_with_ids(numbers, finished),
                )
                number = self.engine.submit(request)
                indices[number], self._events[number] = numbers, events
            yield from self._until_all_end(indices, events, len(prompts))
        finally:  # also if the caller stops early
            for number in indices:
                self.engine.cancel(number)
                del self._events[number]

    def _until_all_end(
        self, indices: dict[int, list[int]], events: deque[EngineEvent], left: int
    ) -> Iterator[Event]:
        while left:
            while not events:
                self._tick()
            event = events.popleft()
            if isinstance(event, Token):
                yield Event(indices[event.request][event.sample], event.token)
            elif isinstance(event, EngineFinished):
                left -= 1
                if event.reason == "not_finite":
                    raise NotFiniteError
                assert event.reason != "expired"
                yield Event(indices[event.request][event.sample], None, event.reason)

    def _tick(self) -> None:
        for event in self.engine.tick():
            if event.request in self._events:
                self._events[event.request].append(event)


def _with_ids(numbers: Sequence[int], finished: Finished) -> Callable[[int, int], bool]:
    """The engine's question, of a sample and its new id, as one of a prompt and all its new ids."""
    ids: list[list[int]] = [[] for _ in numbers]

    def ask(sample: int, token: int) -> bool:
        ids[sample].append(token)
        return finished(numbers[sample], ids[sample])

    return ask
