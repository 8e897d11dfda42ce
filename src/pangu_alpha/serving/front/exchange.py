"""One HTTP exchange: reads the body within bounds, notices that the client is gone, and sends the answer."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from pangu_alpha.config.serve import ServeConfig
from pangu_alpha.serving.access.keys import Key
from pangu_alpha.serving.wire.answers import to_json
from pangu_alpha.serving.wire.errors import ApiError

JSON = "application/json"


async def within(seconds: float, work: Awaitable[None]) -> None:
    """Does what asyncio.wait_for does, but without a task, which would cost more than a token takes to send.

    Raises:
        asyncio.TimeoutError: The work was not done in time, and has been cancelled.
    """
    task, over = asyncio.current_task(), False
    assert task is not None

    def end() -> None:
        nonlocal over
        over = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, end)
    try:
        await work
    except asyncio.CancelledError:
        if not over:
            raise
        if sys.version_info >= (3, 11):
            task.uncancel()
        raise asyncio.TimeoutError from None
    finally:
        timer.cancel()


class ClientGoneError(Exception):
    """The client has closed the connection, or reads nothing any more."""


@dataclass
class Exchange:
    """One request and its answer.

    Args:
        id: Of the request, for the client and the log.
        key: The client's, if the server has keys.
        headers: Sent with the answer, whatever it is.
        facts: What the log says of it.
        path_params: The parts of the path that stand for something.
        status: Of the answer, once it has begun.
        reading: Whether the body was asked for.
        left: Whether `gone` has seen the client's leaving.
    """

    scope: Scope
    receive: Receive
    raw_send: Send
    config: ServeConfig
    id: str
    key: Key | None = None
    headers: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    path_params: dict[str, str] = field(default_factory=dict)
    status: int | None = None
    reading: bool = False
    left: bool = False
    arrived: float = field(default_factory=time.monotonic)

    @property
    def asked(self) -> Headers:
        """The headers of the request."""
        return Headers(scope=self.scope)

    async def body(self) -> bytes:
        """Reads the body.

        Raises:
            ApiError: It is no JSON by its own account, too large, or did not arrive in time.
            ClientGoneError: The client left before its end.
        """
        kind = self.asked.get("content-type", "").partition(";")[0].strip().lower()
        if kind != JSON:
            raise ApiError(415, f"the body must be {JSON}, not {kind[:80] or 'of no stated type'}")
        self.reading = True
        closing = {"Connection": "close"}  # what is left of the body would be read as the next request
        try:
            return await asyncio.wait_for(self._whole(closing), self.config.body_timeout)
        except asyncio.TimeoutError as error:
            message = f"the body of the request did not arrive within {self.config.body_timeout:g} s"
            raise ApiError(408, message, "body_timeout", headers=closing) from error

    async def _whole(self, closing: Mapping[str, str]) -> bytes:
        parts, size = [], 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.config.body_bytes:
                limit = f"the body of the request has more than {self.config.body_bytes} bytes"
                raise ApiError(413, limit, "body_too_large", headers=closing)
            if not message.get("more_body"):
                return b"".join(parts)

    async def gone(self) -> None:
        """Returns when the client has closed the connection; only after the body was read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.left = True

    async def send_json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """Sends a whole answer."""
        await self.send_bytes(status, to_json(value), JSON, headers)

    async def send_error(self, error: ApiError) -> None:
        """Sends an error as a whole answer."""
        self.facts.setdefault("reason", error.code or error.status)
        await self.send_json(error.status, error.json(), error.headers)

    async def send_bytes(
        self, status: int, content: bytes, kind: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Sends a whole answer of any type."""
        await self.start(status, kind, {"content-length": str(len(content)), **(headers or {})})
        await self.send(b"" if self.scope["method"] == "HEAD" else content, more=False)

    async def start(self, status: int, kind: str, headers: Mapping[str, str] | None = None) -> None:
        """Begins an answer."""
        self.status = status
        named = {"x-request-id": self.id, **({"content-type": kind} if kind else {})}
        for more in (self.headers, headers or {}):  # the later ones win, however their names are written
            named |= {name.lower(): value for name, value in more.items()}
        if "expect" in self.asked and not self.reading:  # no body follows, and what comes is not the body
            named["connection"] = "close"
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]
        await self.raw_send({"type": "http.response.start", "status": status, "headers": pairs})

    async def send(self, content: bytes, more: bool = True) -> None:
        """Sends a part of an answer; waits while the client does not read.

        Raises:
            ClientGoneError: It has left, or has not read for longer than it may.
        """
        message = {"type": "http.response.body", "body": content, "more_body": more}
        try:
            await within(self.config.send_timeout, self.raw_send(message))
        except (asyncio.TimeoutError, OSError) as error:
            raise ClientGoneError from error
        if self.left:  # uvicorn drops what is sent to nobody without a word
            raise ClientGoneError
