"""JSON bodies to validated requests. All problems of a request are reported in one message."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pangu_alpha.config.schema import ConfigError, Dataclass, build
from pangu_alpha.inference.tasks import TASKS
from pangu_alpha.serving.scenarios import Scenario
from pangu_alpha.serving.wire import chat
from pangu_alpha.serving.wire.catalog import Catalog
from pangu_alpha.serving.wire.errors import ApiError, invalid
from pangu_alpha.serving.wire.fields import (
    ABSENT,
    IGNORED,
    ChatFields,
    CompletionFields,
    SamplingFields,
)
from pangu_alpha.serving.wire.prompts import Prompt, chat_prompts, completion_prompts
from pangu_alpha.serving.wire.tokens import ModelFacts

T = TypeVar("T", bound=Dataclass)
_FRESH_BITS = 31  # of a seed that the server chooses; JavaScript's numbers hold it exactly
_DRAWS = ("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty")


@dataclass(frozen=True)
class Generation:
    """A validated request for continuations.

    Args:
        model: Its id, as the client named it.
        chat: Whether it came to /v1/chat/completions.
        n: Number of continuations of each prompt that are returned.
        samples: Number of them that are generated, n or best_of.
        max_tokens: Longest continuation; 0 with echo alone.
        draws: temperature, top_p, top_k, min_p, frequency_penalty and presence_penalty.
        seed: The client's, or a fresh one.
        stop: Texts that end a continuation.
        logprobs: Number of likeliest tokens reported at each place; 0 reports the chosen one alone, None
            nothing.
        as_ids: Whether tokens are named token_id:N.
    """

    model: str
    chat: bool
    prompts: tuple[Prompt, ...]
    n: int
    samples: int
    max_tokens: int
    draws: Mapping[str, float]
    seed: int
    logit_bias: Mapping[int, float]
    stop: tuple[str, ...]
    logprobs: int | None
    echo: bool
    stream: bool
    include_usage: bool
    as_ids: bool

    @property
    def tokens_at_most(self) -> int:
        """Tokens that the request can use at most: its prompts, and all continuations in full."""
        return sum(len(prompt.ids) + self.samples * self.max_tokens for prompt in self.prompts)


def read_fields(cls: type[T], body: Mapping[str, Any], ignore_unknown: bool = False) -> T:
    """Makes the fields of a body; null equals absent.

    Raises:
        ApiError: Lists all problems (400).
    """
    fields, problems = _read(cls, body, ignore_unknown)
    if problems or fields is None:
        raise invalid(problems)
    return fields


def _read(cls: type[T], body: Mapping[str, Any], ignore_unknown: bool) -> tuple[T | None, list[str]]:
    """The fields of a body, and what is wrong with it.

    Of a wrong body the fields are what is left without the wrong ones, so that these can be checked, too;
    None if that cannot be read either.
    """
    known = {field.name for field in dataclasses.fields(cls)}
    given = {name: _without_nulls(value) for name, value in body.items() if value is not None}
    problems = []
    for name in [name for name in given if name not in known]:
        if name in ABSENT and given[name] != ABSENT[name]:
            problems.append(f"{name}: this server has no such thing; leave it out")
        if name in IGNORED or name in ABSENT or ignore_unknown:
            del given[name]
    try:
        return build(cls, given), problems
    except ConfigError as error:
        problems = [*error.problems, *problems]
    wrong = {re.split(r"[:.\[]", problem)[0] for problem in problems}
    try:
        return build(cls, {name: value for name, value in given.items() if name not in wrong}), problems
    except ConfigError:
        return None, problems


def read_generation(
    cls: type[SamplingFields],
    body: Mapping[str, Any],
    catalog: Catalog,
    facts: ModelFacts,
    *,
    allowed: Collection[str] = (),
    ignore_unknown: bool = False,
) -> Generation:
    """Validates a request for continuations.

    Args:
        cls: CompletionFields or ChatFields.
        allowed: See `Catalog.scenario`.
        ignore_unknown: Whether unknown fields are dropped rather than refused.

    Raises:
        ApiError: The request cannot be served; the message lists all reasons.
    """
    scenario = _named_scenario(body, catalog, allowed)
    defaults = scenario.sampling.given() if scenario else {}
    chosen = {name for name, value in body.items() if value is not None}
    if "max_completion_tokens" in chosen:
        chosen.add("max_tokens")
    added = {name: value for name, value in defaults.items() if name not in chosen}
    fields, problems = _read(cls, {**body, **added}, ignore_unknown)
    if fields is None:
        raise invalid(problems)
    if isinstance(fields, ChatFields):
        prompts, wrong = chat_prompts(fields, facts, scenario)
    else:
        assert isinstance(fields, CompletionFields)
        prompts, wrong = completion_prompts(fields, facts, scenario)
    if scenario is not None and getattr(fields, "echo", False):
        problems.append("echo: it would show the scenario's prompt, which is not for clients")
    problems += [*wrong, *_shape_problems(fields, facts)]
    if problems:
        raise invalid(problems)
    longest = _longest(fields, prompts, facts, by_scenario="max_tokens" in added)
    return _generation(fields, tuple(prompts), longest, _stops(fields, scenario))


def _named_scenario(body: Mapping[str, Any], catalog: Catalog, allowed: Collection[str]) -> Scenario | None:
    model = body.get("model")
    return catalog.scenario(model, allowed) if isinstance(model, str) else None


def _without_nulls(value: Any) -> Any:
    """A nested object without its null members, and a list with such objects in it."""
    if isinstance(value, dict):
        return {name: each for name, each in value.items() if each is not None}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_without_nulls(each) for each in value]
    return value


def _shape_problems(fields: SamplingFields, facts: ModelFacts) -> list[str]:
    problems = []
    samples = max(fields.n, getattr(fields, "best_of", None) or 0)
    if samples > facts.slots:
        name = "n" if fields.n == samples else "best_of"
        problems.append(f"{name}: {samples} continuations at once; this server has {facts.slots} slots")
    beyond = [key for key in fields.logit_bias or {} if int(key) >= facts.vocab_size]
    if beyond:
        problems.append(f"logit_bias: id {beyond[0]} is outside the vocabulary of {facts.vocab_size}")
    if "" in ((fields.stop,) if isinstance(fields.stop, str) else fields.stop or ()):
        problems.append("stop: holds an empty text, which would stop at once; leave it out")
    return problems


def _stops(fields: SamplingFields, scenario: Scenario | None) -> tuple[str, ...]:
    """The request's own stop texts, else those of the form; a chat's turn is always one line."""
    given = (fields.stop,) if isinstance(fields.stop, str) else fields.stop
    if isinstance(fields, ChatFields):
        form = (chat.STOP,) if scenario is None or scenario.converses else scenario.stops
        return tuple(dict.fromkeys((*(given or ()), *form)))
    if given is not None:
        return given
    if scenario is not None:
        return scenario.stops
    task = getattr(fields, "task", None)
    return TASKS[task].stop if task else ()


def _generation(
    fields: SamplingFields, prompts: tuple[Prompt, ...], longest: int, stop: tuple[str, ...]
) -> Generation:
    talks = isinstance(fields, ChatFields)
    options = fields.stream_options
    return Generation(
        model=fields.model,
        chat=talks,
        prompts=prompts,
        n=fields.n,
        samples=max(fields.n, getattr(fields, "best_of", None) or 1),
        max_tokens=longest,
        draws=_draws(fields),
        seed=secrets.randbits(_FRESH_BITS) if fields.seed is None else fields.seed,
        logit_bias={int(key): value for key, value in (fields.logit_bias or {}).items()},
        stop=stop,
        logprobs=_logprobs(fields),
        echo=getattr(fields, "echo", False),
        stream=fields.stream,
        include_usage=bool(options and options.include_usage),
        as_ids=fields.return_tokens_as_token_ids,
    )


def _draws(fields: SamplingFields) -> dict[str, float]:
    values = {name: getattr(fields, name) for name in _DRAWS}
    if values["top_p"] == 0:  # OpenAI's clients send it for the likeliest token
        values |= {"temperature": 0.0, "top_p": 1.0}
    return {**values, "top_k": max(values["top_k"], 0)}


def _logprobs(fields: SamplingFields) -> int | None:
    if isinstance(fields, ChatFields):
        return (fields.top_logprobs or 0) if fields.logprobs else None
    return getattr(fields, "logprobs", None)


def _longest(fields: SamplingFields, prompts: Sequence[Prompt], facts: ModelFacts, by_scenario: bool) -> int:
    """The longest continuation that was asked for, or that the context leaves room for.

    Args:
        by_scenario: Whether the scenario, not the client, says how long; its length is one that may be cut.

    Raises:
        ApiError: The context cannot hold a prompt with its continuation.
    """
    size = max(len(prompt.ids) for prompt in prompts)
    given: int | None = getattr(fields, "max_tokens", None)
    if isinstance(fields, ChatFields) and fields.max_completion_tokens is not None:
        given = fields.max_completion_tokens
    room = max(1, facts.context - size)
    longest = room if given is None else min(room, given) if by_scenario else given
    if size + longest > facts.context:
        asked = f" and max_tokens = {longest}" if longest else ""
        raise ApiError(
            400,
            f"the context holds {facts.context} tokens; the prompt has {size}{asked}, together "
            f"{size + longest}: shorten the prompt, or ask for fewer tokens",
            "context_length_exceeded",
            "messages" if isinstance(fields, ChatFields) else "prompt",
            x_prompt_tokens=size,
            x_max_model_len=facts.context,
        )
    return longest
