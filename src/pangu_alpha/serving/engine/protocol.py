"""The messages between front and engine: what they hold, and how they become the engine's own types.

front: settings, pin, submit, cancel.  engine: hello, progress, ready, failed, beat, events.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pangu_alpha.config.generate import requested
from pangu_alpha.inference.engine.requests import (
    Event,
    Finished,
    PromptScores,
    Request,
    Score,
    Started,
    Token,
    Usage,
)

_LEAST = -9999.0  # stands for minus infinity


@dataclass(frozen=True)
class Job:
    """One prompt to continue, as the front asks for it.

    Args:
        draws: temperature, top_p, top_k, min_p, frequency_penalty and presence_penalty.
        logprobs: Number of likeliest ids with every new token; None for no log-probabilities.
        prompt_logprobs: The same with every id of the prompt but the first.
        timeout: Seconds from now.
    """

    prompt: tuple[int, ...]
    draws: Mapping[str, float]
    seed: int
    max_tokens: int
    samples: int = 1
    logit_bias: Mapping[int, float] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    key: str = ""
    timeout: float | None = None

    def message(self, number: int) -> dict[str, Any]:
        """The message that submits it under a number."""
        bias = [[token, value] for token, value in (self.logit_bias or {}).items()]
        return {"op": "submit", "request": number, **vars(self), "logit_bias": bias}


def request_of(message: Mapping[str, Any], exact: bool) -> Request:
    """The engine's request of a message submit.

    Args:
        exact: See Request.
    """
    return Request(
        prompt=tuple(message["prompt"]),
        sampling=requested(**message["draws"], seed=message["seed"]),
        max_new_tokens=message["max_tokens"],
        samples=message["samples"],
        logit_bias={int(token): value for token, value in message["logit_bias"]},
        logprobs=message["logprobs"],
        prompt_logprobs=message["prompt_logprobs"],
        key=message["key"],
        timeout=message["timeout"],
        exact=exact,
    )


def events_message(events: Iterable[Event], numbers: Mapping[int, int]) -> dict[str, Any]:
    """Events as a message.

    Args:
        numbers: The front's number of a request by the engine's; events of others are left out.
    """
    known = ((numbers.get(event.request), event) for event in events)
    return {
        "op": "events",
        "events": [_packed(number, event) for number, event in known if number is not None],
    }


def events_of(message: Mapping[str, Any]) -> list[Event]:
    """The events of a message; their requests are the front's numbers."""
    return [_unpacked(*packed) for packed in message["events"]]


def _packed(number: int, event: Event) -> list[Any]:
    if isinstance(event, Token):
        return ["token", number, event.sample, event.token, event.score and _score_list(event.score)]
    if isinstance(event, Finished):
        return ["finished", number, event.sample, event.reason, list(event.usage)]
    if isinstance(event, Started):
        return ["started", number, event.sample, event.cached, event.queued]
    return ["scores", number, [_score_list(score) for score in event.scores]]


def _unpacked(kind: str, number: int, *rest: Any) -> Event:
    if kind == "token":
        sample, token, score = rest
        return Token(number, sample, token, score and _score(score))
    if kind == "finished":
        sample, reason, usage = rest
        return Finished(number, sample, reason, Usage(*usage))
    if kind == "started":
        return Started(number, *rest)
    (scores,) = rest
    return PromptScores(number, tuple(map(_score, scores)))


def _score_list(score: Score) -> list[Any]:
    return [int(score.token), _finite(score.logprob), [[int(i), _finite(value)] for i, value in score.top]]


def _score(packed: list[Any]) -> Score:
    token, logprob, top = packed
    return Score(token, logprob, tuple((each, value) for each, value in top))


def _finite(value: float) -> float:
    """A log-probability as JSON can hold it."""
    return round(float(value), 7) if math.isfinite(value) else _LEAST
