"""Runs one request for continuations: admission, the engine's jobs, and the choices as they grow."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

from pangu_alpha.inference.engine.requests import Event, Finished, PromptScores, Started, Token
from pangu_alpha.serving.access.admission import Ticket
from pangu_alpha.serving.access.keys import Key
from pangu_alpha.serving.engine.protocol import Job
from pangu_alpha.serving.front.link import EngineLostError, Events, Link
from pangu_alpha.serving.front.state import State
from pangu_alpha.serving.wire.answers import Answers, Usage
from pangu_alpha.serving.wire.choices import Choice, Piece, prompt_piece
from pangu_alpha.serving.wire.errors import ApiError
from pangu_alpha.serving.wire.requests import Generation

_SILENCE = 15.0  # seconds until a stream that waits sends a comment
_GRACE = 30.0  # seconds after a request's end in which an engine that moves would have told it
_FAULTS = {
    "expired": (408, "the request was not finished in time", "deadline_exceeded"),
    "not_finite": (
        500,
        "the model's output is not finite: its weights are damaged",
        "not_finite",
    ),
}


@dataclass
class Progress:
    """What a request has used so far, for its usage, its log line and the metrics."""

    prompt: int = 0
    cached: int = 0
    queued: float = 0.0
    first: float | None = None
    last: dict[int, float] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


class Run:
    """One request from its admission to its end.

    Args:
        generation: What is asked for.
        key: The client's.
        arrived: Time of arrival, of time.monotonic.
        timeout: Seconds from the arrival.

    Raises:
        ApiError: The server takes no work, or the client may not have more of it.
    """

    def __init__(
        self, state: State, generation: Generation, key: Key | None, arrived: float, timeout: float
    ) -> None:
        self.generation, self.arrived, self.progress = generation, arrived, Progress()
        self._state, self._key, self._timeout = state, key, timeout
        self._link: Link = state.require_ready()
        samples = generation.samples * len(generation.prompts)
        self.progress.prompt = sum(len(prompt.ids) for prompt in generation.prompts)
        self._ticket: Ticket = state.admission.enter(samples, self.progress.prompt)
        try:
            self.headers = state.limiter.take(key, generation.tokens_at_most)
        except ApiError:
            state.admission.leave(self._ticket)
            raise
        prefix = "chatcmpl" if generation.chat else "cmpl"
        self.answers = Answers(
            generation, state.facts, f"{prefix}-{uuid.uuid4().hex}", int(time.time()), state.fingerprint
        )
        self._stops = state.facts.stop_forms(generation.stop)
        self._jobs: dict[int, int] = {}  # index of a prompt by the number of its job
        self._events = Events()
        self._with_prompt: set[int] = set()  # choices that have begun with the prompt
        self.choices: dict[int, Choice] = {}
        self._echoed: dict[int, Piece] = {}
        self._submit()

    def close(self) -> None:
        """Ends the request, whatever is left of it."""
        for number in self._jobs:
            self._link.cancel(number)
        self._state.admission.leave(self._ticket)
        used = self.progress.prompt + self.generated
        self._state.limiter.settle(self._key, self.generation.tokens_at_most, used)

    @property
    def generated(self) -> int:
        """Number of generated tokens of all samples."""
        return sum(choice.generated for choice in self.choices.values())

    @property
    def usage(self) -> Usage:
        """What has been used."""
        return Usage(self.progress.prompt, self.generated, self.progress.cached)

    async def pieces(self) -> AsyncGenerator[tuple[int, Piece] | None, None]:
        """Yields the pieces of all choices as they become certain, with the index of the choice.

        None is yielded whenever none has come for a while.

        Raises:
            ApiError: The engine is lost, the time is over, or the server ends.
        """
        cut: asyncio.Future[Any] = asyncio.ensure_future(self._state.cut.wait())
        cut.add_done_callback(lambda _: self._events.wake())
        left, spoken = len(self.choices), time.monotonic()
        try:
            while left:
                found = await self._next(spoken + _SILENCE - time.monotonic())
                if found is None:
                    spoken = time.monotonic()
                    yield None
                    continue
                for index, piece in self._taken(*found):
                    left -= piece.reason is not None
                    yield index, piece
                    spoken = time.monotonic()
        finally:
            cut.cancel()

    async def _next(self, seconds: float) -> tuple[int, list[Event]] | None:
        """The events of the next tick, unless the server ends first; None after so long without any."""
        left = self.arrived + self._timeout + _GRACE - time.monotonic()
        found = await self._events.get(0.0 if self._state.cut.is_set() else min(seconds, left))
        if found is not None:
            number, events = found
            if events is None:
                raise ApiError(500, "the engine has ended; the request may be sent again", "engine_lost")
            return number, events
        if not self._state.cut.is_set():
            if left <= seconds:
                raise ApiError(503, "the engine does not answer", "engine_lost", retry_after=_GRACE)
            return None
        self._state.cut_requests += 1
        raise ApiError(503, "the server ends before the request is finished", "draining", retry_after=1)

    def _submit(self) -> None:
        generation = self.generation
        wanted = self._logprobs_wanted()
        for index, prompt in enumerate(generation.prompts):
            job = Job(
                prompt=prompt.ids,
                draws=generation.draws,
                seed=generation.seed,
                max_tokens=generation.max_tokens,
                samples=generation.samples,
                logit_bias=generation.logit_bias,
                logprobs=wanted,
                prompt_logprobs=wanted if generation.echo and generation.logprobs is not None else None,
                key=self._key.name if self._key else "",
                timeout=max(0.001, self._timeout - (time.monotonic() - self.arrived)),
            )
            try:
                number = self._link.submit(job, self._events)
            except EngineLostError as error:
                self.close()
                raise ApiError(
                    503, "the engine is being started again", "engine_lost", retry_after=5
                ) from error
            self._jobs[number] = index
            for sample in range(generation.samples):
                self.choices[index * generation.samples + sample] = Choice(self.answers.facts, self._stops)

    def _logprobs_wanted(self) -> int | None:
        """Likeliest ids to ask the engine for: more than the client, because ids may share a text."""
        generation = self.generation
        if generation.logprobs is None:
            return 0 if generation.samples > generation.n else None  # best_of compares the samples
        return generation.logprobs * (1 if generation.as_ids else self.answers.facts.twins)

    def _taken(self, number: int, events: list[Event]) -> list[tuple[int, Piece]]:
        """What the events of one tick mean for the choices of a job."""
        prompt = self._jobs[number]
        found: dict[int, Piece] = {}
        for event in events:
            if isinstance(event, PromptScores):
                self._echo(prompt, [(each.logprob, each.top) for each in event.scores])
                continue
            index = prompt * self.generation.samples + event.sample
            if isinstance(event, Started):
                self._started(event)
            elif isinstance(event, Token | Finished) and (piece := self._grown(number, index, event)):
                found[index] = found[index].joined(piece) if index in found else piece
        return [(index, self._with_echo(prompt, index, piece)) for index, piece in found.items()]

    def _grown(self, number: int, index: int, event: Token | Finished) -> Piece | None:
        choice = self.choices[index]
        if choice.stopped:  # by a stop text; the engine had gone on
            return None
        if isinstance(event, Finished):
            return self._ended(choice, event)
        self._timed(index)
        score = event.score
        piece = choice.add(event.token, score and score.logprob, score and score.top)
        if piece.reason is not None:
            self._link.cancel(number, event.sample)
            self._state.admission.ended(self._ticket)
            self.progress.reasons.append(piece.reason)
        return piece if piece.tokens or piece.reason is not None else None

    def _ended(self, choice: Choice, event: Finished) -> Piece:
        if event.reason in _FAULTS:
            raise ApiError(*_FAULTS[event.reason])
        choice.stopped = True
        self._state.admission.ended(self._ticket)
        self.progress.reasons.append(event.reason)
        metrics = self._state.metrics
        metrics.queue.observe(event.usage.queued)
        metrics.prefill.observe(event.usage.prefill)
        metrics.decode.observe(event.usage.decode)
        return choice.end(event.reason)

    def _started(self, event: Started) -> None:
        self._state.admission.started(self._ticket)
        if event.sample == 0:  # the other samples share its prompt
            self.progress.cached += event.cached
        self.progress.queued = max(self.progress.queued, event.queued)

    def _timed(self, index: int) -> None:
        now = time.monotonic()
        if self.progress.first is None:
            self.progress.first = now - self.arrived
            self._state.metrics.first_token.observe(self.progress.first)
        elif index in self.progress.last:
            self._state.metrics.gap.observe(now - self.progress.last[index])
        self.progress.last[index] = now

    def _echo(self, prompt: int, scores: list[tuple[float, tuple[tuple[int, float], ...]]] | None) -> None:
        given = self.generation.prompts[prompt]
        self._echoed[prompt] = prompt_piece(given.ids, self.answers.facts, scores, given.text)

    def _with_echo(self, prompt: int, index: int, piece: Piece) -> Piece:
        """Puts the prompt before the first piece of a choice."""
        choice = self.choices[index]
        if not self.generation.echo or index in self._with_prompt:
            return piece
        self._with_prompt.add(index)
        if prompt not in self._echoed:
            self._echo(prompt, None)
        echoed = self._echoed[prompt]
        choice.echo = len(echoed.text)
        moved = (replace(shown, offset=shown.offset + choice.echo) for shown in piece.tokens)
        return echoed.joined(replace(piece, tokens=tuple(moved)))
