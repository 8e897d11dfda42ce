"""The end of a connection: the peer gets time to read the last answer, and one that does not read is dropped.

A socket that is closed while bytes of its peer are unread, or arrive later, is reset; the peer's system then
throws away what it has received and not yet read, which may be the answer that says what was wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

_SILENCE = 5.0  # seconds without a byte, after which a peer that still may send counts as finished
_LONGEST = 30.0  # seconds in which what a peer still sends is read at most
_MOST = 1 << 26  # bytes of it
_LEAST_READ = 1 << 14  # bytes; a peer that takes fewer in its time does not read


class Alarm:
    """A call in the future, which can be put off and called off."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        """Whether the call is still to come."""
        return self._handle is not None

    def set(self, seconds: float, action: Callable[..., None], *args: Any) -> None:
        """Calls in so many seconds, and no longer at the time that was set before."""
        self.clear()
        self._handle = self._loop.call_later(seconds, self._ring, action, args)

    def clear(self) -> None:
        """Calls it off."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring(self, action: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._handle = None
        action(*args)


class GentleTransport:
    """A transport of asyncio whose `close` leaves time to read; all else is the transport's own.

    Args:
        patience: Seconds in which the peer has to read something of what is written to it.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop, patience: float) -> None:
        self._transport, self._loop, self._patience = transport, loop, patience
        self._linger, self._reader = Alarm(loop), Alarm(loop)
        self._until = 0.0
        self._left = _MOST
        self.write = transport.write
        self.unread = False  # whether the peer may be sending what nobody reads
        self.lingering = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether nothing more is to be written."""
        return self.lingering or self._transport.is_closing()

    def close(self) -> None:
        """Closes when all is written and, if the peer may still send, when it has had time to read it."""
        if self.is_closing():
            return
        if self.unread:
            self._begin_to_linger()
            return
        self._transport.close()
        if self._transport.get_write_buffer_size() and not self._reader.is_set:
            self.await_reader()

    def abort(self) -> None:
        """Closes at once; what is not written yet is lost."""
        self._transport.abort()

    def hurry(self) -> None:
        """Lingers for at most a second from now, because the server ends."""
        if self.lingering:
            self._until = min(self._until, self._loop.time() + 1.0)
            self._await_silence()

    def drop(self, size: int) -> None:
        """Counts bytes that nobody reads; too many, or for too long, end the connection."""
        self._left -= size
        if self._left < 0:
            self.abort()
        elif self.lingering:
            self._await_silence()

    def await_reader(self) -> None:
        """Drops the peer if it does not read."""
        self._reader.set(self._patience, self._check_reader, self._transport.get_write_buffer_size())

    def lost(self) -> None:
        """The connection is closed."""
        self.lingering = True
        self._linger.clear()
        self._reader.clear()

    def resumed(self) -> None:
        """The peer has read most of what was written."""
        if not self.is_closing():
            self._reader.clear()

    def _begin_to_linger(self) -> None:
        self.lingering = True
        self._until = self._loop.time() + _LONGEST
        if self._transport.can_write_eof():  # TLS has no such thing
            self._transport.write_eof()
        self._transport.resume_reading()
        self._await_silence()

    def _await_silence(self) -> None:
        left = self._until - self._loop.time()
        self._linger.set(max(0.0, min(_SILENCE, left)), self._transport.abort)

    def _check_reader(self, before: int) -> None:
        size = self._transport.get_write_buffer_size()
        if size > before - _LEAST_READ and size:
            self.abort()
        elif size:
            self.await_reader()
