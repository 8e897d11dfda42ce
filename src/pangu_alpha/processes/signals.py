"""Handles stop signals: the first signal asks the process to stop, a second one stops it at once."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

TOGETHER = 1.0  # seconds within which signals count as one: timeout(1) and shells send each signal twice


def signal_name(number: int) -> str:
    """Returns a signal's usual name; Python itself has no names for most realtime signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        if signal.SIGRTMIN < number < signal.SIGRTMAX:
            return f"SIGRTMIN+{number - signal.SIGRTMIN}"
        return f"signal {number}"


class Signals:
    """A context manager that catches SIGTERM, SIGINT and, unless it is ignored (nohup), SIGHUP.

    `number` is the first signal that arrived, or 0. `again` is the first SIGTERM or SIGINT that arrived more
    than TOGETHER seconds after it, or 0. Inside the block, output that can no longer be written is dropped
    without an error, because a terminal disappears before the process has reacted to its SIGHUP. Writing to a
    pipe whose reader has gone counts as SIGPIPE.

    Args:
        at_second: Called with the number of the second signal. A thread calls it, so that it also runs while
            the main thread is inside a kernel for minutes.
    """

    def __init__(self, at_second: Callable[[int], None] | None = None) -> None:
        self.number = 0
        self.again = 0
        self._at_second = at_second
        self._before: Mapping[int, Any] = {}

    def __enter__(self) -> Signals:
        taken = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            taken.append(signal.SIGHUP)
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._listener = threading.Thread(target=self._listen, args=(frozenset(taken),), daemon=True)
        self._listener.start()
        self._before = {number: signal.signal(number, self._take) for number in taken}
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (_Forgiving(stream, self._unread) for stream in self._streams)
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._streams
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._writing)  # ends the listener's loop
        self._listener.join()
        os.close(self._reading)

    def _take(self, number: int, frame: object) -> None:
        self.number = self.number or number

    def _listen(self, taken: frozenset[int]) -> None:
        """Counts signals as they arrive; Python's handlers wait until the main thread runs Python code."""
        first = None
        while byte := os.read(self._reading, 1):
            number = byte[0]
            if number not in taken:
                continue
            self.number = self.number or number
            now = time.monotonic()
            first = now if first is None else first
            if number != signal.SIGHUP and now - first > TOGETHER:
                self.again = self.again or number
                if self._at_second is not None:
                    self._at_second(number)

    def _unread(self) -> None:
        self.number = self.number or signal.SIGPIPE


class _Forgiving:
    """A wrapper of a text stream that drops what cannot be written.

    Args:
        unread: Called when the stream is a pipe whose reader has gone.
    """

    def __init__(self, stream: Any, unread: Callable[[], None]) -> None:
        self._stream = stream
        self._on_unread = unread

    def write(self, text: str) -> int:
        """Writes the text, or drops it if the stream fails."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flushes the stream, and ignores a failure."""
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except OSError as error:
            if error.errno == errno.EPIPE:
                self._on_unread()
            # The reader or terminal does not come back: later output goes to /dev/null.
            if error.errno in (errno.EPIPE, errno.EIO):
                with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), self._stream.fileno())


def stop_at_once(number: int) -> None:
    """Ends this process after a second signal, whatever its main thread is doing, without saving anything."""
    with suppress(OSError):
        os.write(2, f"signal {number} again: stopped at once, the last whole checkpoint stands\n".encode())
    os._exit(128 + number)
