"""Pieces of choices as OpenAI's JSON: whole answers, stream chunks, log-probabilities and usage."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pangu_alpha.serving.wire.choices import LEAST, Piece, Shown, Top
from pangu_alpha.serving.wire.requests import Generation
from pangu_alpha.serving.wire.tokens import ModelFacts

DONE = b"data: [DONE]\n\n"
WAIT = b": wait\n\n"  # a comment, which keeps proxies from closing a silent stream
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_REASONS = {"stop": "stop", "length": "length", "context": "length"}


@dataclass(frozen=True)
class Usage:
    """Tokens of a request: each prompt counts once, every generated sample counts."""

    prompt: int
    completion: int
    cached: int

    def json(self) -> dict[str, Any]:
        """As clients read it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass(frozen=True)
class Answers:
    """Makes the JSON of one request's answers.

    Args:
        id: Of the answer; all chunks of a stream have the same.
        created: Time of the request, in seconds since 1970.
        fingerprint: What of the server decides the bits of an answer, besides the request.
    """

    generation: Generation
    facts: ModelFacts
    id: str
    created: int
    fingerprint: str

    def whole(self, choices: Sequence[Piece], usage: Usage) -> dict[str, Any]:
        """The answer to a request without stream; the index of a choice is its place."""
        kind = "chat.completion" if self.generation.chat else "text_completion"
        made = [self._whole_choice(index, piece) for index, piece in enumerate(choices)]
        return {**self._head(kind), "choices": made, "usage": usage.json(), "x_seed": self.generation.seed}

    def first_chunk(self, index: int) -> bytes | None:
        """The chunk that begins a choice of a chat's stream; None for completions."""
        if not self.generation.chat:
            return None
        delta = {"role": "assistant", "content": ""}
        return self._chunk([{"index": index, "delta": delta, "finish_reason": None}])

    def chunk(self, index: int, piece: Piece) -> bytes:
        """A piece as a server-sent event."""
        finish = finish_reason(piece)
        logprobs = self._logprobs(piece.tokens)
        asked = {} if self.generation.logprobs is None else {"logprobs": logprobs}
        ended = {} if finish is None else {"stop_reason": piece.stop}
        if not self.generation.chat:
            choice = {"index": index, "text": piece.text, "logprobs": logprobs, "finish_reason": finish}
            return self._chunk([{**choice, "stop_reason": piece.stop}])
        delta = {"content": piece.text} if piece.text or finish is None else {}
        return self._chunk([{"index": index, "delta": delta, **asked, "finish_reason": finish, **ended}])

    def usage_chunk(self, usage: Usage) -> bytes:
        """The last chunk of a stream whose client asked for the usage."""
        return self._chunk([], usage=usage.json())

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.generation.model,
            "system_fingerprint": self.fingerprint,
        }

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        kind = "chat.completion.chunk" if self.generation.chat else "text_completion"
        return event({**self._head(kind), "choices": choices, **more, "x_seed": self.generation.seed})

    def _whole_choice(self, index: int, piece: Piece) -> dict[str, Any]:
        ended = {"finish_reason": finish_reason(piece), "stop_reason": piece.stop}
        content: dict[str, Any] = {"text": piece.text}
        if self.generation.chat:
            content = {"message": {"role": "assistant", "content": piece.text}}
        return {"index": index, **content, "logprobs": self._logprobs(piece.tokens), **ended}

    def _logprobs(self, tokens: Sequence[Shown]) -> dict[str, Any] | None:
        if self.generation.logprobs is None:
            return None
        return self._chat_logprobs(tokens) if self.generation.chat else self._completion_logprobs(tokens)

    def _completion_logprobs(self, tokens: Sequence[Shown]) -> dict[str, Any]:
        count = self.generation.logprobs or 0
        return {
            "tokens": [self._name(shown.token, shown.text) for shown in tokens],
            "token_logprobs": [clipped(shown.logprob) for shown in tokens],
            "top_logprobs": [self._top(shown, count) for shown in tokens] if count else None,
            "text_offset": [shown.offset for shown in tokens],
        }

    def _top(self, shown: Shown, count: int) -> dict[str, float] | None:
        """The likeliest `count` different texts of a place, and the chosen token's if it is none of them."""
        if shown.logprob is None or shown.top is None:
            return None
        entries = {name: value for _, name, value in self._likeliest(shown.top, count)}
        chosen = self._name(shown.token, self.facts.text_of(shown.token))
        entries.setdefault(chosen, max(shown.logprob, LEAST))
        return entries

    def _likeliest(self, top: Top, count: int) -> list[tuple[int, str, float]]:
        """Two ids may have the same text: the likelier of them stands for both."""
        found: dict[str, tuple[int, str, float]] = {}
        for token, value in top:
            if len(found) == count:
                break
            name = self._name(token, self.facts.text_of(token))
            found.setdefault(name, (token, name, max(value, LEAST)))
        return list(found.values())

    def _chat_logprobs(self, tokens: Iterable[Shown]) -> dict[str, Any]:
        count = self.generation.logprobs or 0
        return {
            "content": [
                {
                    **_chat_entry(self._name(shown.token, shown.text), shown.text, shown.logprob or 0.0),
                    "top_logprobs": [
                        _chat_entry(name, self.facts.text_of(token), value)
                        for token, name, value in self._likeliest(shown.top or (), count)
                    ],
                }
                for shown in tokens
            ]
        }

    def _name(self, token: int, text: str) -> str:
        return f"token_id:{token}" if self.generation.as_ids else text


def finish_reason(piece: Piece) -> str | None:
    """Why a choice ended, in OpenAI's words."""
    return None if piece.reason is None else _REASONS[piece.reason]


def clipped(logprob: float | None) -> float | None:
    """A log-probability as JSON can hold it."""
    return None if logprob is None else max(logprob, LEAST)


def event(value: Any) -> bytes:
    """A value as a server-sent event."""
    return b"data: " + to_json(value) + b"\n\n"


def to_json(value: Any) -> bytes:
    """JSON in UTF-8, in which NaN and infinities are an error of ours."""
    return _ENCODER.encode(value).encode("utf-8")


def _chat_entry(name: str, text: str, logprob: float) -> dict[str, Any]:
    return {"token": name, "logprob": max(logprob, LEAST), "bytes": list(text.encode("utf-8"))}
