"""The engine's end of the socket pair: JSON lines in both directions, without pickles."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Sequence
from typing import Any

_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_LOAD = 1 << 16  # bytes of one read


class Channel:
    """Reads and writes messages, each a JSON object on a line of its own."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._poll = select.poll()  # select.select refuses numbers above 1,023, which a busy front gives
        self._poll.register(connection, select.POLLIN)
        self._rest = b""
        self.closed = False

    def receive(self, wait: float = 0.0) -> list[dict[str, Any]]:
        """Returns the messages that have arrived; waits at most so many seconds for the first one.

        `closed` is True afterwards if the other end is gone.
        """
        parts = [self._rest]
        while not self.closed and self._poll.poll(wait * 1000):
            part = self._read()
            parts.append(part)
            self.closed = not part
            wait = 0.0
        *lines, self._rest = b"".join(parts).split(b"\n")
        return [json.loads(line) for line in lines if line]

    def send(self, *messages: dict[str, Any]) -> None:
        """Writes messages; the front may be slow to read, so this may wait."""
        content = b"".join(to_line(message) for message in messages)
        try:
            self._socket.sendall(content)
        except (BrokenPipeError, ConnectionResetError):  # the front has ended; receive() will tell
            self.closed = True

    def _read(self) -> bytes:
        try:
            return self._socket.recv(_LOAD)
        except ConnectionResetError:
            return b""


def to_line(message: dict[str, Any] | Sequence[Any]) -> bytes:
    """A message as a line."""
    return _ENCODER.encode(message).encode("ascii") + b"\n"
