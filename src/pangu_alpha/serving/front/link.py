"""The front's end of the engine: starts its process, sends it jobs, hands out its events, starts it again."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import math
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from pangu_alpha.inference.engine.requests import Event, Token
from pangu_alpha.serving.engine.channel import to_line
from pangu_alpha.serving.engine.protocol import Job, events_of
from pangu_alpha.serving.engine.settings import EngineSettings

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "pangu_alpha.serving.engine")
_LONGEST_LINE = 1 << 26  # bytes; the scores of a long prompt are the longest message
_RESTARTS = 3
_STEADY = 60.0  # seconds of service after which earlier deaths are forgiven
_END_WITHIN = 10.0  # seconds


# The events of a job's tick, as (its number, they); None instead of them when the engine has died.
Ticked = tuple[int, "list[Event] | None"]


class Events:
    """What the engine tells one reader about its jobs.

    asyncio.Queue under asyncio.wait would cost two tasks for every token.
    """

    def __init__(self) -> None:
        self._items: deque[Ticked] = deque()
        self._waiting: asyncio.Future[None] | None = None

    def put(self, item: Ticked) -> None:
        """Adds what was told, and wakes the reader."""
        self._items.append(item)
        self.wake()

    def wake(self) -> None:
        """Ends the reader's waiting."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def get(self, seconds: float) -> Ticked | None:
        """Takes the oldest item, for which this waits so long at most; None if there is none then."""
        if not self._items:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            timer = loop.call_later(seconds, self.wake)
            try:
                await self._waiting
            finally:
                timer.cancel()
                self._waiting = None
        return self._items.popleft() if self._items else None


class EngineLostError(Exception):
    """The engine's process has ended while it worked on a request."""


class EngineFailedError(ValueError):
    """The engine cannot start, or has died too often; the message is for the operator."""


class Link:
    """A running engine, and another one when it has died.

    Args:
        settings: Sent to every process that is started.
        command: Starts the process; the socket's number is appended.
        greeted: Called with the engine's description, before its network is loaded; returns the prefixes to
            pin, as ids.
        back_off: Seconds before the first restart; they double.
        stuck_after: Seconds without a sign of life after which a ready engine's process is ended.
    """

    def __init__(
        self,
        settings: EngineSettings,
        greeted: Callable[[dict[str, Any]], Sequence[Sequence[int]]],
        command: Sequence[str] = COMMAND,
        back_off: float = 1.0,
        stuck_after: float = math.inf,
    ) -> None:
        self._settings, self._greeted, self._command, self._back_off = settings, greeted, command, back_off
        self._stuck_after = stuck_after
        self.state = "loading"  # "ready", "engine_lost"
        self.beat: dict[str, Any] = {}
        self.restarts = 0
        self.on_tick: Callable[[int], None] = lambda tokens: None  # takes the number of a tick's new tokens
        self._deaths = 0
        self._seen = time.monotonic()
        self._numbers = 0
        self._streams: dict[int, Events] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False
        self._stuck = False  # whether its process was ended because it stood still

    @property
    def process_id(self) -> int | None:
        """Of the engine's process."""
        return None if self._process is None else self._process.pid

    @property
    def silent(self) -> float:
        """Seconds since the last sign of life; 0 while no loop is running that could give one."""
        return time.monotonic() - self._seen if self.state == "ready" else 0.0

    async def run(self, ready: Callable[[], Awaitable[None]] | None = None) -> None:
        """Keeps an engine running until `close`.

        Args:
            ready: Awaited each time that an engine becomes ready.

        Raises:
            EngineFailedError: The first engine could not start, or engines died too often in a row.
        """
        first = True
        while True:
            failure = await self._live(ready)
            if self._closing:
                return
            if self.state == "ready" and self._seen - self._ready_at > _STEADY:
                self._deaths = 0
            was_ready, self.state = self.state == "ready", "engine_lost"
            self._end_streams()
            first = first and not was_ready
            if failure and first:
                raise EngineFailedError(failure)
            self._deaths += 1
            reason = failure or self._how_it_ended()
            if self._deaths > _RESTARTS:
                raise EngineFailedError(
                    f"the engine ended {self._deaths} times in a row; the last time: {reason}"
                )
            pause = self._back_off * 2 ** (self._deaths - 1)
            logger.error("the engine's process has ended (%s); starting it again in %g s", reason, pause)
            await asyncio.sleep(pause)
            if self._closing:
                return
            self.restarts += 1

    def submit(self, job: Job, events: Events) -> int:
        """Sends a job, whose events are put into a queue; returns its number.

        Raises:
            EngineLostError: There is no engine that could take it.
        """
        if self._writer is None or self.state != "ready":
            raise EngineLostError("the engine is not running")
        self._numbers += 1
        self._streams[self._numbers] = events
        self._writer.write(to_line(job.message(self._numbers)))
        return self._numbers

    def cancel(self, number: int, sample: int | None = None) -> None:
        """Gives up a job or one of its samples, of which no event is read any more; it may have ended."""
        known = number in self._streams  # an engine that was started later has never heard of it
        if sample is None:
            self._streams.pop(number, None)
        if known and self._writer is not None and self.state == "ready":
            self._writer.write(to_line({"op": "cancel", "request": number, "sample": sample}))

    async def close(self) -> None:
        """Ends the engine's process."""
        self._closing = True
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            await asyncio.to_thread(_end, self._process)

    def _how_it_ended(self) -> str:
        if self._stuck:
            return f"it had shown no sign of life for {self._stuck_after:g} s, and was killed"
        code = None if self._process is None else self._process.returncode
        if code is None or code >= 0:
            return f"exit code {code}"
        hint = ", which the system sends when memory is short" if -code == signal.SIGKILL else ""
        return f"signal {-code}{hint}"

    async def _live(self, ready: Callable[[], Awaitable[None]] | None) -> str:
        """Starts a process and reads from it to its end; returns its message if it could not start."""
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: Ctrl-C on a terminal is for the front, which then drains.
            self._process = subprocess.Popen(
                [*self._command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=_LONGEST_LINE)
        self.state, self._stuck = "loading", False
        self._writer.write(to_line({"op": "settings", "settings": dataclasses.asdict(self._settings)}))
        failure = ""
        watching = asyncio.ensure_future(self._end_if_stuck(self._process))
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while line := await reader.readline():
                    message = json.loads(line)
                    failure = message["message"] if message["op"] == "failed" else failure
                    await self._take(message, ready)
        finally:
            watching.cancel()
        self._writer.close()
        self._writer = None
        await asyncio.to_thread(_end, self._process)
        return failure

    async def _end_if_stuck(self, process: subprocess.Popen[bytes]) -> None:
        """Ends a process whose loop has stood still for too long.

        What counts is the time in which this loop itself ran: after a pause of the whole machine, signs of
        life may be there that have not been read yet.
        """
        silent, pause = 0.0, min(1.0, self._stuck_after / 4)
        while silent < self._stuck_after:
            seen = self._seen
            await asyncio.sleep(pause)
            silent = silent + pause if self.state == "ready" and seen == self._seen else 0.0
        self._stuck = True
        process.kill()  # a process that is stopped takes no other signal

    async def _take(self, message: dict[str, Any], ready: Callable[[], Awaitable[None]] | None) -> None:
        self._seen = time.monotonic()
        kind = message["op"]
        if kind == "events":
            self._hand_out(events_of(message))
        elif kind == "beat":
            self.beat = message
        elif kind == "hello":
            assert self._writer is not None
            for line in message["lines"]:
                logger.info("%s", line)
            prefixes = [list(ids) for ids in self._greeted(message)]
            self._writer.write(to_line({"op": "pin", "prefixes": prefixes}))
        elif kind == "progress":
            logger.info("%s", message["text"])
        elif kind == "refused":
            logger.error("the engine refused a request: %s", message["message"])
            if queue := self._streams.pop(message["request"], None):
                queue.put((message["request"], None))
        elif kind == "ready":
            self.state, self._ready_at = "ready", time.monotonic()
            if ready is not None:
                await ready()

    def _hand_out(self, events: list[Event]) -> None:
        if tokens := sum(isinstance(event, Token) for event in events):
            self.on_tick(tokens)
        lists: dict[int, list[Event]] = {}
        for event in events:
            lists.setdefault(event.request, []).append(event)
        for number, each in lists.items():
            if queue := self._streams.get(number):
                queue.put((number, each))

    def _end_streams(self) -> None:
        for number, queue in self._streams.items():
            queue.put((number, None))
        self._streams.clear()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Waits for a process whose socket is closed, and kills it if it does not end."""
    try:
        process.wait(_END_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
