"""What each route answers. A handler takes the server's state and one exchange."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from pangu_alpha import __version__
from pangu_alpha.serving.front import metrics
from pangu_alpha.serving.front.exchange import ClientGoneError, Exchange
from pangu_alpha.serving.front.generation import Run
from pangu_alpha.serving.front.pages import HEADERS, INDEX, PageFile
from pangu_alpha.serving.front.state import State
from pangu_alpha.serving.scenarios import task_list
from pangu_alpha.serving.wire import chat
from pangu_alpha.serving.wire.answers import DONE, WAIT, event
from pangu_alpha.serving.wire.body import parse_body
from pangu_alpha.serving.wire.choices import Piece
from pangu_alpha.serving.wire.errors import ApiError, invalid
from pangu_alpha.serving.wire.fields import (
    ChatFields,
    CompletionFields,
    DetokenizeFields,
    SamplingFields,
    TokenizeFields,
)
from pangu_alpha.serving.wire.openapi import document
from pangu_alpha.serving.wire.prompts import text_to_encode
from pangu_alpha.serving.wire.requests import Generation, read_fields, read_generation

Handler = Callable[[State, Exchange], Awaitable[None]]
_LARGE = 1 << 14  # bytes of a body whose text is encoded in a thread, so that streams do not wait for it
_STREAM = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


async def completions(state: State, exchange: Exchange) -> None:
    """POST /v1/completions."""
    await _generate(state, exchange, CompletionFields)


async def chat_completions(state: State, exchange: Exchange) -> None:
    """POST /v1/chat/completions."""
    await _generate(state, exchange, ChatFields)


async def models(state: State, exchange: Exchange) -> None:
    """GET /v1/models."""
    listed = state.catalog.listed(state.facts, _allowed(exchange))
    await exchange.send_json(200, {"object": "list", "data": listed})


async def model(state: State, exchange: Exchange) -> None:
    """GET /v1/models/{id}; an id contains a slash if it is a scenario's."""
    name = exchange.path_params["id"]
    state.catalog.scenario(name, _allowed(exchange))
    await exchange.send_json(200, state.catalog.entry(name, state.facts))


async def tasks(state: State, exchange: Exchange) -> None:
    """GET /v1/tasks."""
    await exchange.send_json(200, {"object": "list", "data": task_list()})


async def tokenize(state: State, exchange: Exchange) -> None:
    """POST /tokenize."""
    content = await exchange.body()
    await exchange.send_json(200, await _away(len(content), lambda: _tokenized(state, exchange, content)))


def _tokenized(state: State, exchange: Exchange, content: bytes) -> dict[str, Any]:
    fields = read_fields(TokenizeFields, parse_body(content), state.config.unknown_fields == "ignore")
    facts = state.facts
    talks = fields.messages is not None and fields.model is not None
    scenario = state.catalog.scenario(fields.model or "", _allowed(exchange)) if talks else None
    text, problems = text_to_encode(fields, scenario)
    if problems:
        raise invalid(problems)
    ids = facts.encode(text)
    found: dict[str, Any] = {"count": len(ids), "max_model_len": facts.context}
    if scenario is not None:  # its prompt is the operator's
        return found
    found |= {"tokens": ids, "prompt": text}
    if fields.return_token_strs:
        found["token_strs"] = [facts.text_of(token) for token in ids]
    return found


async def detokenize(state: State, exchange: Exchange) -> None:
    """POST /detokenize."""
    content = await exchange.body()
    await exchange.send_json(200, await _away(len(content), lambda: _detokenized(state, content)))


def _detokenized(state: State, content: bytes) -> dict[str, Any]:
    fields = read_fields(DetokenizeFields, parse_body(content), state.config.unknown_fields == "ignore")
    size = state.facts.vocab_size
    if any(not 0 <= token < size for token in fields.tokens):
        raise invalid([f"tokens: holds ids outside the vocabulary of {size}"])
    return {"prompt": state.facts.decode(fields.tokens)}


async def tokenizer_info(state: State, exchange: Exchange) -> None:
    """GET /tokenizer_info."""
    tokenizer = state.facts.tokenizer
    info = {
        "tokenizer_class": "PanguTokenizer",
        "vocab_size": tokenizer.vocab_size,
        "bos_token": None,
        "eos_token": state.facts.end_text,
        "eos_token_id": state.facts.end_of_document,
        "pad_token": tokenizer.piece_of(tokenizer.pad_id),
        "unk_token": tokenizer.piece_of(tokenizer.unk_id),
        "chat_template": chat.TEMPLATE,
        "model_max_length": state.facts.context,
    }
    await exchange.send_json(200, info)


async def health(state: State, exchange: Exchange) -> None:
    """GET /health: whether the engine's loop moves."""
    word = "ok" if state.alive else "engine_lost" if state.link is None or not state.link.silent else "stuck"
    await exchange.send_json(200 if state.alive else 503, {"status": word, **state.load()})


async def ready(state: State, exchange: Exchange) -> None:
    """GET /health/ready: whether new work is welcome."""
    welcome, word = state.readiness()
    headers = {} if welcome else {"Retry-After": "5"}
    await exchange.send_json(200 if welcome else 503, {"status": word, **state.load()}, headers)


async def figures(state: State, exchange: Exchange) -> None:
    """GET /metrics."""
    beat, restarts = (state.link.beat, state.link.restarts) if state.link else ({}, 0)
    await exchange.send_bytes(200, state.metrics.text(beat, state.load(), restarts), metrics.CONTENT_TYPE)


async def version(state: State, exchange: Exchange) -> None:
    """GET /version."""
    await exchange.send_json(200, {"version": __version__, "model": state.catalog.name})


async def openapi(state: State, exchange: Exchange) -> None:
    """GET /openapi.json."""
    await exchange.send_json(200, document(state.catalog, _allowed(exchange)))


async def no_icon(state: State, exchange: Exchange) -> None:
    """GET /favicon.ico, which browsers ask for by themselves."""
    await exchange.start(204, "")
    await exchange.send(b"", more=False)


@dataclass(frozen=True)
class Pages:
    """GET / and /page/{name}."""

    files: dict[str, PageFile]

    async def __call__(self, state: State, exchange: Exchange) -> None:
        """Sends a file of the page."""
        file = self.files.get(exchange.path_params.get("name", INDEX))
        if file is None:
            raise ApiError(404, "there is no such page", "not_found")
        headers = {**HEADERS, "ETag": file.tag}
        if exchange.asked.get("if-none-match") == file.tag:
            await exchange.start(304, "", headers)
            await exchange.send(b"", more=False)
        else:
            await exchange.send_bytes(200, file.content, file.kind, headers)


async def _generate(state: State, exchange: Exchange, cls: type[SamplingFields]) -> None:
    state.require_ready()
    content = await exchange.body()
    generation = await _away(len(content), lambda: _read(state, exchange, cls, content))
    run = Run(state, generation, exchange.key, exchange.arrived, _timeout(state, exchange))
    exchange.headers.update(run.headers)
    answering = _stream(run, exchange) if generation.stream else _plain(run, exchange)
    try:
        await _unless_gone(exchange, answering)
    except ClientGoneError:
        state.metrics.cancelled.inc()
        raise
    finally:
        run.close()
        _count(state, exchange, run)


def _read(state: State, exchange: Exchange, cls: type[SamplingFields], content: bytes) -> Generation:
    body = parse_body(content)
    if state.config.log_prompts:
        exchange.facts["prompt"] = body.get("prompt", body.get("messages", body.get("fields")))
    ignore = state.config.unknown_fields == "ignore"
    return read_generation(
        cls, body, state.catalog, state.facts, allowed=_allowed(exchange), ignore_unknown=ignore
    )


async def _away(size: int, work: Callable[[], Any]) -> Any:
    """Does a piece of work, in a thread if it is large."""
    return work() if size < _LARGE else await asyncio.to_thread(work)


def _timeout(state: State, exchange: Exchange) -> float:
    """Seconds that a request may take: the server's deadline, or less if the client says so."""
    given = exchange.asked.get("x-timeout")
    if given is None:
        return state.config.deadline
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ApiError(400, f"x-timeout: {given[:40]!r} is no number of seconds above 0", "invalid_value")
    return min(seconds, state.config.deadline)


async def _unless_gone(exchange: Exchange, answering: Coroutine[Any, Any, None]) -> None:
    """Answers, unless the client goes away: then the work is cancelled at once.

    Raises:
        ClientGoneError: It has.
    """
    work = asyncio.ensure_future(answering)
    watch = asyncio.ensure_future(exchange.gone())
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientGoneError
        work.result()
    finally:
        for task in (work, watch):
            task.cancel()
        with suppress(asyncio.CancelledError, ClientGoneError, ApiError):
            await work


async def _plain(run: Run, exchange: Exchange) -> None:
    generation = run.generation
    whole: dict[int, Piece] = {}
    async with aclosing(run.pieces()) as pieces:
        async for found in pieces:
            if found is not None:
                index, piece = found
                whole[index] = whole[index].joined(piece) if index in whole else piece
    kept = [whole[index] for index in _kept(run)]
    if exchange.config.log_prompts:
        exchange.facts["answer"] = [piece.text for piece in kept]
    await exchange.send_json(200, run.answers.whole(kept, run.usage))
    assert generation.n * len(generation.prompts) == len(kept)


def _kept(run: Run) -> list[int]:
    """The choices to return, prompt by prompt: the n with the highest log-probability of a token."""
    generation = run.generation
    kept = []
    for prompt in range(len(generation.prompts)):
        first = prompt * generation.samples
        indices = list(range(first, first + generation.samples))
        if generation.samples > generation.n:
            indices.sort(key=lambda index: -run.choices[index].mean_logprob)
        kept += indices[: generation.n]
    return kept


async def _stream(run: Run, exchange: Exchange) -> None:
    begun: set[int] = set()
    try:
        async with aclosing(run.pieces()) as pieces:
            async for found in pieces:
                if exchange.status is None:
                    await exchange.start(200, "text/event-stream", _STREAM)
                if found is None:
                    await exchange.send(WAIT)
                    continue
                index, piece = found
                first = None if index in begun else run.answers.first_chunk(index)
                begun.add(index)
                await exchange.send((first or b"") + run.answers.chunk(index, piece))
    except ApiError as error:
        if exchange.status is None:
            raise
        exchange.facts["reason"] = error.code
        await exchange.send(event(error.json()) + DONE, more=False)
        return
    last = run.answers.usage_chunk(run.usage) if run.generation.include_usage else b""
    await exchange.send(last + DONE, more=False)


def _count(state: State, exchange: Exchange, run: Run) -> None:
    """Puts a finished request into the metrics and its log line."""
    progress, metrics = run.progress, state.metrics
    total = time.monotonic() - exchange.arrived
    metrics.total.observe(total)
    metrics.prompt_tokens.inc(progress.prompt)
    metrics.generation_tokens.inc(run.generated)
    metrics.request_prompt.observe(progress.prompt)
    metrics.request_generated.observe(run.generated)
    for reason in progress.reasons:
        metrics.success.labels(reason).inc()
    exchange.facts |= {
        "model": run.generation.model,
        "stream": run.generation.stream,
        "prompt_tokens": progress.prompt,
        "completion_tokens": run.generated,
        "cached_tokens": progress.cached,
        "queue": round(progress.queued, 4),
        "ttft": None if progress.first is None else round(progress.first, 4),
    }
    if progress.reasons:
        exchange.facts.setdefault("reason", ",".join(sorted(set(progress.reasons))))


def _allowed(exchange: Exchange) -> tuple[str, ...]:
    return exchange.key.scenarios if exchange.key else ()
