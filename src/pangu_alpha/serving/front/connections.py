"""Bounds on connections, below HTTP: how many, from where, how much of a request, and for how long.

uvicorn 0.54 has no deadline for receiving; a subclass of its protocol can go when it has one.
"""

from __future__ import annotations

import resource
import uuid
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pangu_alpha.config.serve import ServeConfig
from pangu_alpha.serving.front.closing import Alarm, GentleTransport
from pangu_alpha.serving.wire.answers import to_json
from pangu_alpha.serving.wire.errors import ApiError

_HEADER_BYTES = 1 << 16
_HEADERS = 128  # of a request; browsers and proxies together send about thirty
_FRAMING = 8  # times the bytes of a body; a body in chunks of one byte takes six times its own
_DISCARD = 5.0  # seconds in which the rest of a body must arrive that was answered before its end
_PIPELINED = 4  # requests of a connection that may wait for the answer of an earlier one
_MOST_FILES = 1 << 16
_OTHER_FILES = 128  # of the process, which are no connections


def open_files() -> int:
    """Raises the number of files that this process may open as far as it may, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


class Connections:
    """Counts the open connections of a server.

    Args:
        files: That the process may open.
        refused: Called with the code of each refusal.
        shaken: Called with "started" and "completed" for the handshakes of TLS.
    """

    def __init__(
        self,
        config: ServeConfig,
        files: int = 1024,
        refused: Callable[[str], None] = lambda code: None,
        shaken: Callable[[str], None] = lambda state: None,
    ) -> None:
        self.config = config
        self.refused = refused
        self.shaken = shaken if config.certificate else lambda state: None
        self._peers: Counter[str] = Counter()
        self._most = max(config.connections, files - _OTHER_FILES)

    @property
    def crowded(self) -> bool:
        """Whether there are so many, with those that are refused, that no file is left to answer one."""
        return self._peers.total() > self._most

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
    """Closes a connection whose request takes too long or is too large.

    A request is read as its headers, then its body; the bytes of either are counted as they arrive.
    `bounded_protocol` makes the class of a server, with its `bounds`.
    """

    bounds: Connections

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self.bounds.shaken("started")  # asyncio makes a protocol before the handshake

    def connection_made(self, transport: Any) -> None:
        self.bounds.shaken("completed")
        config = self.bounds.config
        self._gentle = GentleTransport(transport, self.loop, config.send_timeout)
        super().connection_made(self._gentle)  # type: ignore[arg-type]
        self._peer = str((transport.get_extra_info("peername") or ("",))[0])
        self._alarm = Alarm(self.loop)
        self._bytes, self._limit = 0, _HEADER_BYTES
        self._in_headers = True
        self._deaf = False  # what still arrives is not read
        self._answered_now: RequestResponseCycle | None = None
        self._fault: ApiError | None = None
        refusal = self.bounds.enter(self._peer)
        if refusal is None:
            self._await_headers()
        elif self.bounds.crowded:
            self._gentle.abort()
        else:
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gentle.lost()
        self._alarm.clear()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        if self._answered_now is not None:  # uvicorn tells the latest request only
            self._tell_gone(self._answered_now)
        self.bounds.leave(self._peer)

    def data_received(self, data: bytes) -> None:
        while data and not self._gentle.is_closing() and not self._deaf:
            if self._in_headers and not self._alarm.is_set:  # the next request of a connection that was kept
                self._await_headers()
            room = self._limit - self._bytes
            part, data = data[:room], data[room:]
            self._bytes += len(part)
            self._parse(part)
            if self._bytes >= self._limit and not self._deaf:
                self._too_much()
        if data:
            self._gentle.drop(len(data))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._alarm.is_set:
            self._await_headers()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_headers:  # those after a body in chunks, which nobody needs
            return
        if len(self.headers) >= _HEADERS:
            message = f"the request has more than {_HEADERS} headers"
            self._fault = ApiError(431, message, "headers_too_many")
            raise self._fault  # which ends the parser
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        if len(self.pipeline) >= _PIPELINED:
            self._fault = ApiError(429, "too many requests at once on a connection", "pipelined")
            raise self._fault  # which ends the parser
        self._alarm.clear()
        self._in_headers = False
        self._bytes, self._limit = 0, _FRAMING * self.bounds.config.body_bytes + _HEADER_BYTES
        self._gentle.unread = True
        super().on_headers_complete()
        self.flow.resume_reading()  # or nobody would see that the client of the earlier request is gone

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._alarm.clear()
        self._in_headers = True
        self._bytes, self._limit = 0, _HEADER_BYTES
        self._gentle.unread = False

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_headers or not self.cycle.response_complete or self._gentle.is_closing():
            return
        self._limit = self._bytes + self.bounds.config.body_bytes
        self._alarm.set(_DISCARD, self._gentle.close)

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what is no HTTP, in our form."""
        fault, self._fault = self._fault, None
        self._refuse(fault or ApiError(400, "the request is not valid HTTP/1.1", "invalid_http"))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._gentle.await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._gentle.resumed()

    def shutdown(self) -> None:
        super().shutdown()
        self._gentle.hurry()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered_now = cycle
        super()._start_asgi_task(cycle, app)

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")

    def _stay(self, rest: bytes) -> None:
        """Reads a request again without its wish for another protocol, because httptools skips its body.

        Java's client sends such a wish, for HTTP/2, with every first request.
        """
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        if lines[0].startswith(b"CONNECT"):
            self.send_400_response("")
        else:
            self._parse(b"\r\n".join([*lines, b"", rest]))

    @property
    def _answering(self) -> bool:
        """Whether a request is being answered, into which no refusal may be written."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.disconnected

    def _await_headers(self) -> None:
        self._alarm.set(self.bounds.config.header_timeout, self._late)

    def _late(self) -> None:
        if self._answering:
            self._await_headers()
        elif not self._bytes:  # a connection made in advance, as by browsers
            self._gentle.close()
        else:
            limit = self.bounds.config.header_timeout
            message = f"the headers of the request did not arrive within {limit:g} s"
            self._refuse(ApiError(408, message, "header_timeout"))

    def _too_much(self) -> None:
        if self._in_headers:
            message = f"the headers of the request have more than {_HEADER_BYTES} bytes"
            self._refuse(ApiError(431, message, "headers_too_large"))
        elif self.cycle.response_started:
            self._gentle.close()
        else:
            self._tell_gone(self.cycle)
            self._refuse(ApiError(413, "the body of the request is too large", "body_too_large"))

    def _refuse(self, error: ApiError) -> None:
        """Answers without the application, and closes; an answer that is being given is finished first."""
        if self._gentle.is_closing() or self._deaf:
            return
        self._deaf = self._gentle.unread = True
        self._alarm.clear()
        if self._answering:
            self.cycle.keep_alive = False
            return
        self.bounds.refused(error.code or str(error.status))
        self._gentle.write(_whole(error))
        self._gentle.close()

    @staticmethod
    def _tell_gone(cycle: RequestResponseCycle) -> None:
        cycle.disconnected = True
        cycle.message_event.set()


def _whole(error: ApiError) -> bytes:
    """An error as an answer of HTTP, after which the connection is closed."""
    body = to_json(error.json())
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        "x-request-id": uuid.uuid4().hex,
        **error.headers,
    }
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def bounded_protocol(connections: Connections) -> type[BoundedProtocol]:
    """Makes the protocol class of a server."""
    return type("ServerProtocol", (BoundedProtocol,), {"bounds": connections})
