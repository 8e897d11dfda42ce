"""What is asked of the engine, and what it answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.inference.sampling import BAN

# Most likeliest ids that come with a token. OpenAI's API goes to 20, and two ids may have one text, so a
# server that shows 20 different texts needs 40 ids.
MOST_TOP = 40

Reason = Literal["stop", "length", "context", "expired", "not_finite"]


class RefusedError(ValueError):
    """The engine cannot work on a request; the message lists every reason."""


class QueueFullError(RefusedError):
    """Too much is waiting; the same request may be taken later.

    Args:
        limit: The limit that the request would exceed.
    """

    def __init__(self, message: str, limit: Literal["requests", "tokens"]) -> None:
        super().__init__(message)
        self.limit = limit


@dataclass(frozen=True)
class Limits:
    """The most that may wait; None is any number. A request for which rows are free does not wait.

    Args:
        tokens: Ids of all waiting prompts, and most new ids of all their samples.
    """

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Request:
    """One prompt to continue.

    Args:
        prompt: Ids.
        sampling: How to choose tokens; its `max_new_tokens` and `stop` are not used.
        max_new_tokens: 0 only computes the prompt.
        samples: Number of continuations. Sample n depends on seed, prompt and n only.
        first_sample: Number of the first one, to draw one of several samples again.
        logit_bias: Added to the logits of single ids; -100 bans an id.
        stop_ids: End a continuation as the engine's own stop ids do, and are not given out.
        logprobs: With every new token, its log-probability and those of so many likeliest ids; None for
            neither.
        prompt_logprobs: The same with every id of the prompt but the first.
        key: Whose request it is: keys take turns, and share no cached prefixes.
        timeout: Seconds from `submit` until the request is given up, wherever it is then. The clock is read
            once a tick.
        exact: Whether the results have the same bits whatever the cache holds. False also uses the keys of
            generated ids, as is right for a conversation; their roundings are other ones.
        finished: Called with (sample, new id) before each token is given out; True makes it the last one.
    """

    prompt: tuple[int, ...]
    sampling: SamplingConfig
    max_new_tokens: int
    samples: int = 1
    first_sample: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop_ids: Collection[int] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    key: str = ""
    timeout: float | None = None
    exact: bool = True
    finished: Callable[[int, int], bool] | None = None

    @property
    def tokens(self) -> int:
        """Most ids that the request takes, as `Limits` counts them."""
        return len(self.prompt) + self.samples * self.max_new_tokens


class Score(NamedTuple):
    """Natural logarithms of the network's own probabilities, before anything that sampling does to them.

    Args:
        token: An id.
        logprob: Of this id.
        top: The likeliest ids, which need not include this one, with theirs.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Usage(NamedTuple):
    """What a sample took; times are in seconds.

    Args:
        cached: Number of the prompt's ids that were not computed again.
        queued: From `submit` to a row.
        prefill: From there to the first token.
        decode: From there to the end.
    """

    prompt: int
    cached: int
    generated: int
    queued: float
    prefill: float
    decode: float


class Started(NamedTuple):
    """A sample has got a row; see Usage."""

    request: int
    sample: int
    cached: int
    queued: float


class PromptScores(NamedTuple):
    """The scores of a prompt's ids from the second one on."""

    request: int
    scores: tuple[Score, ...]


class Token(NamedTuple):
    """A new id of a sample."""

    request: int
    sample: int
    token: int
    score: Score | None = None


class Finished(NamedTuple):
    """The end of a sample.

    Args:
        reason: "stop" at a stop id, or if Request.finished was True; "length" after max_new_tokens; "context"
            if the row is full; "expired" after the timeout; "not_finite" if the logits hold NaN or infinity.
    """

    request: int
    sample: int
    reason: Reason
    usage: Usage


Event = Started | PromptScores | Token | Finished


@dataclass
class Counts:
    """Sums since the engine began.

    Args:
        rejected: By the limit that would have been exceeded.
        finished: Samples by the reason of their end, "cancelled" among them.
        prompt: Ids of the prompts of all samples that got a row.
        cached: Those of them that were not computed again.
        fed: Ids that were computed, a prompt's.
        feeds: Calls that computed them.
    """

    submitted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    finished: Counter[str] = field(default_factory=Counter)
    prompt: int = 0
    cached: int = 0
    fed: int = 0
    generated: int = 0
    ticks: int = 0
    feeds: int = 0
    steps: int = 0


def problems(request: Request, context: int, banned: np.ndarray) -> Iterator[str]:
    """Yields every reason for which a request can never be computed.

    Args:
        context: Most ids of a prompt.
        banned: bool [V], ids that are never generated.
    """
    size, prompt, bias = len(banned), request.prompt, request.logit_bias
    if not prompt:
        yield "the prompt is empty"
    elif len(prompt) > context:
        yield f"the prompt has {len(prompt)} ids, but the context holds {context}"
    elif min(prompt) < 0 or max(prompt) >= size:
        yield f"the prompt holds ids outside the vocabulary of {size}"
    if request.samples < 1 or request.first_sample < 0 or request.max_new_tokens < 0:
        yield "samples must be at least 1, first_sample and max_new_tokens at least 0"
    for name in ("logprobs", "prompt_logprobs"):
        if not 0 <= (getattr(request, name) or 0) <= MOST_TOP:
            yield f"{name} must lie between 0 and {MOST_TOP}"
    if any(not 0 <= token < size for token in bias):
        yield f"logit_bias holds ids outside the vocabulary of {size}"
    elif not np.isfinite([*bias.values()]).all():
        yield "logit_bias holds numbers that are not finite"
    elif banned.sum() + sum(value <= BAN and not banned[token] for token, value in bias.items()) >= size:
        yield "logit_bias bans every id"
