"""The loop of the engine's process: takes messages between two ticks, and sends what a tick brought."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from pangu_alpha.inference.engine.requests import Event, Finished, Token
from pangu_alpha.inference.engine.scheduler import Engine
from pangu_alpha.serving.engine.channel import Channel
from pangu_alpha.serving.engine.protocol import events_message, request_of

_BEAT = 1.0  # seconds between two signs of life of an idle engine
_BUSY_BEAT = 0.02  # of one that works; a tick may take longer


class Worker:
    """Serves one front until it closes the channel.

    Args:
        exact: See Request.
        clock: Seconds from any fixed time.
    """

    def __init__(
        self,
        engine: Engine,
        channel: Channel,
        exact: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._channel = channel
        self._exact = exact
        self._clock = clock
        self._numbers: dict[int, int] = {}  # the front's number of a request by the engine's
        self._own: dict[int, int] = {}  # and the other way round
        self._left: dict[int, set[int]] = {}  # samples of a request that have not ended
        self._last_beat = self._last_token = clock()

    def run(self) -> None:
        """Works until the front is gone."""
        self._channel.send(self._beat())
        while not self._channel.closed:
            idle = max(0.0, self._last_beat + _BEAT - self._clock())
            for message in self._channel.receive(0.0 if self._engine.busy else idle):
                self._take(message)
            if messages := [*self._work()]:
                self._channel.send(*messages)  # at once, so that the front wakes up once

    def _work(self) -> Iterator[dict[str, Any]]:
        """Ticks if there is work; yields what the front is to know."""
        worked = self._engine.busy
        if worked and (events := self._engine.tick()):
            yield self._told(events)
        resting = worked and not self._engine.busy  # its last figures are not those of rest
        if resting or self._clock() - self._last_beat >= (_BUSY_BEAT if worked else _BEAT):
            yield self._beat()

    def _take(self, message: dict[str, Any]) -> None:
        if message["op"] == "submit":
            self._submit(message)
        elif message["op"] == "cancel" and message["request"] in self._own:
            self._cancel(message["request"], message["sample"])

    def _submit(self, message: dict[str, Any]) -> None:
        number = message["request"]
        try:
            own = self._engine.submit(request_of(message, self._exact))
        except ValueError as error:  # the front has checked everything, so this is a fault of ours
            self._channel.send({"op": "refused", "request": number, "message": str(error)})
            return
        self._numbers[own], self._own[number], self._left[own] = number, own, set(range(message["samples"]))

    def _cancel(self, number: int, sample: int | None) -> None:
        own = self._own[number]
        self._engine.cancel(own, sample)
        self._ended(own, set(self._left[own]) if sample is None else {sample})

    def _told(self, events: list[Event]) -> dict[str, Any]:
        message = events_message(events, self._numbers)
        for event in events:
            if isinstance(event, Finished) and event.request in self._left:
                self._ended(event.request, {event.sample})
        if any(isinstance(event, Token) for event in events):
            self._last_token = self._clock()
        return message

    def _ended(self, own: int, samples: set[int]) -> None:
        self._left[own] -= samples
        if not self._left[own]:
            del self._left[own]
            del self._own[self._numbers.pop(own)]

    def _beat(self) -> dict[str, Any]:
        self._last_beat = self._clock()
        engine = self._engine
        return {
            "op": "beat",
            "running": engine.running,
            "waiting": engine.waiting,
            "used_slots": engine.used_slots,
            "all_slots": engine.decoder.rows * engine.decoder.context,
            "prefix_queries": engine.counts.prompt,
            "prefix_hits": engine.counts.cached,
            "ticks": engine.counts.ticks,
            "last_token_age": self._last_beat - self._last_token,
        }
