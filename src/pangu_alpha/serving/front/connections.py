"""Bounds on connections, below HTTP: how many, from where, and how long their headers may take.

uvicorn 0.54 has no deadline for receiving; a subclass of its protocol can go when it has one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pangu_alpha.config.serve import ServeConfig
from pangu_alpha.serving.wire.answers import to_json
from pangu_alpha.serving.wire.errors import ApiError

_HEADER_BYTES = 1 << 16
_WORDS = {408: "Request Timeout", 429: "Too Many Requests", 431: "Request Header Fields Too Large"}


class Connections:
    """Counts the open connections of a server."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self._peers: Counter[str] = Counter()

    def enter(self, peer: str) -> ApiError | None:
        """Counts a connection, also one that is refused; returns the refusal."""
        self._peers[peer] += 1
        if self._peers[peer] > self.config.connections_per_peer:
            reason = f"more than {self.config.connections_per_peer} connections from this address"
        elif self._peers.total() > self.config.connections:
            reason = f"more than {self.config.connections} connections"
        else:
            return None
        return ApiError(429, f"the server has {reason}; try again later", "connections", retry_after=1)

    def leave(self, peer: str) -> None:
        """Forgets a connection."""
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection whose headers take too long or are too large.

    `bounded_protocol` makes the class of a server, with its `bounds`.
    """

    bounds: Connections

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._peer = str((transport.get_extra_info("peername") or ("",))[0])
        self._header_bytes = 0
        self._in_headers = True
        self._timer: asyncio.TimerHandle | None = None
        refusal = self.bounds.enter(self._peer)
        if refusal is not None:
            self._refuse(refusal)
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._headers_came()
        self.bounds.leave(self._peer)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_headers:
            if self._timer is None:  # the next request of a connection that was kept
                self._await_headers()
            self._header_bytes += len(data)
            if self._header_bytes > _HEADER_BYTES + self.bounds.config.body_bytes:
                self._refuse(ApiError(431, "the headers of the request are too large", "headers_too_large"))
                return
        super().data_received(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if sum(len(n) + len(v) for n, v in self.headers) > _HEADER_BYTES:
            self._refuse(ApiError(431, "the headers of the request are too large", "headers_too_large"))

    def on_headers_complete(self) -> None:
        self._headers_came()
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_headers, self._header_bytes = True, 0

    def _await_headers(self) -> None:
        limit = self.bounds.config.header_timeout
        message = f"the headers of the request did not arrive within {limit:g} s"
        error = ApiError(408, message, "header_timeout")
        self._timer = self.loop.call_later(limit, self._refuse, error)

    def _headers_came(self) -> None:
        self._in_headers = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, error: ApiError) -> None:
        """Answers without the application, and closes."""
        if self.transport.is_closing():
            return
        body = to_json(error.json())
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            **error.headers,
        }
        lines = [f"HTTP/1.1 {error.status} {_WORDS[error.status]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        self.transport.close()


def bounded_protocol(connections: Connections) -> type[BoundedProtocol]:
    """Makes the protocol class of a server."""
    return type("ServerProtocol", (BoundedProtocol,), {"bounds": connections})
