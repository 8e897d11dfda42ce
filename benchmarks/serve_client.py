"""Clients of a server under measurement: plain HTTP/1.1 with as little work as possible, and their times.

They share the machine with the server, so they parse nothing that they do not need. Each request has a
connection of its own. The times are those of `vllm bench serve`: the first token has come with the first
chunk that has choices.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

COMPLETIONS = "/v1/completions"


@dataclass
class Answer:
    """What came back.

    Args:
        began: Time at which the request was sent, of time.perf_counter.
        times: Of the chunks with a choice.
        usage: As the server gives it.
    """

    began: float
    times: list[float] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    ended: float = 0.0

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.times[0] - self.began

    @property
    def seconds(self) -> float:
        """Seconds to the end."""
        return self.ended - self.began


class FailedError(RuntimeError):
    """A server answered something else than 200."""


@asynccontextmanager
async def opened(port: int, method: str, path: str, body: Any = None) -> AsyncIterator[asyncio.StreamReader]:
    """Sends a request, gives what follows the headers of its answer, and closes the connection at the end.

    Raises:
        FailedError: The status is not 200.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        content = b"" if body is None else json.dumps(body).encode()
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        )
        writer.write(content)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head[:16]:
            raise FailedError(f"{path}: {head!r} {(await reader.read())!r}")
        yield reader
    finally:
        writer.close()


async def ask(port: int, body: dict[str, Any], taken: Callable[[int], None] = lambda count: None) -> Answer:
    """Streams a completion.

    Args:
        taken: Called after each chunk with a choice, with their number so far.

    Raises:
        FailedError: It was refused, or ended by an error.
    """
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    found = Answer(time.perf_counter())
    async with opened(port, "POST", COMPLETIONS, body) as reader:
        async for line in reader:
            if line.startswith(b"data: [DONE]"):
                break
            if line.startswith(b"data: "):
                now = time.perf_counter()
                if b'"choices":[{' in line:
                    found.times.append(now)
                    taken(len(found.times))
                if b'"usage":{' in line:
                    found.usage = json.loads(line[6:])["usage"]
                if line.startswith(b'data: {"error"'):
                    raise FailedError(line.decode())
    found.ended = time.perf_counter()
    return found


async def ask_whole(port: int, body: dict[str, Any]) -> Answer:
    """Takes a completion as one answer."""
    found = Answer(time.perf_counter())
    async with opened(port, "POST", COMPLETIONS, body) as reader:
        content = await reader.read()
    found.ended = time.perf_counter()
    found.usage = json.loads(content[content.index(b"{") : content.rindex(b"}") + 1])["usage"]
    return found


async def get(port: int, path: str) -> Any:
    """JSON of a route.

    Raises:
        FailedError: The status is not 200.
    """
    async with opened(port, "GET", path) as reader:
        content = await reader.read()
    return json.loads(content[content.index(b"{") : content.rindex(b"}") + 1])
