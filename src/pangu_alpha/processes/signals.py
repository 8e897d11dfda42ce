"""How a process is told to stop: the first signal asks, a second one insists."""

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

TOGETHER = 1.0  # seconds within which signals are one wish: timeout(1) and shells send theirs twice


def signal_name(number: int) -> str:
    """What people call a signal; Python knows no names of most realtime signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        if signal.SIGRTMIN < number < signal.SIGRTMAX:
            return f"SIGRTMIN+{number - signal.SIGRTMIN}"
        return f"signal {number}"


class Signals:
    """Takes SIGTERM, SIGINT and, unless it is ignored (nohup), SIGHUP while it is entered.

    `number` is the first signal that came, 0 before. `again` is the SIGTERM or SIGINT that came more than
    TOGETHER seconds after the first one, 0 before. While it is entered, output that can no longer be written
    is lost without an error: the terminal goes before its SIGHUP has been acted on. A pipe that nobody reads
    any more counts as SIGPIPE.

    Args:
        at_second: Called with its number when a second signal comes, by a thread, so that it happens even
            while the main thread is in a kernel for minutes.
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
        os.close(self._writing)  # the listener's end
        self._listener.join()
        os.close(self._reading)

    def _take(self, number: int, frame: object) -> None:
        self.number = self.number or number

    def _listen(self, taken: frozenset[int]) -> None:
        """Counts signals as they come; Python's own handlers wait until the main thread is back in Python."""
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
    """A stream that drops what cannot be written.

    Args:
        stream: Where it is written.
        unread: Called when it is a pipe that nobody reads.
    """

    def __init__(self, stream: Any, unread: Callable[[], None]) -> None:
        self._stream = stream
        self._on_unread = unread

    def write(self, text: str) -> int:
        """Writes what can be written."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except OSError as error:
            if error.errno == errno.EPIPE:
                self._on_unread()
            if error.errno in (
                errno.EPIPE,
                errno.EIO,
            ):  # gone for good
                with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                    os.dup2(nowhere.fileno(), self._stream.fileno())


def stop_at_once(number: int) -> None:
    """Ends this process after a second signal, wherever its main thread is; saves nothing."""
    with suppress(OSError):
        os.write(2, f"signal {number} again: stopped at once, the last whole checkpoint stands\n".encode())
    os._exit(128 + number)
