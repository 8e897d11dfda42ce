"""How long a connection that ends is kept, by a clock that the test moves; and how many are kept at all."""

from __future__ import annotations

import asyncio

import pytest

from pangu_alpha.config.serve import ServeConfig
from pangu_alpha.serving.front.closing import GentleTransport
from pangu_alpha.serving.front.connections import Connections


class Loop:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now, self.calls = 100.0, []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds, action, *args):
        handle = asyncio.TimerHandle(self.now + seconds, action, args, self)
        self.calls.append(handle)
        return handle

    def _timer_handle_cancelled(self, handle) -> None:
        self.calls.remove(handle)

    def get_debug(self) -> bool:
        return False

    def pass_by(self, seconds) -> None:
        end = self.now + seconds
        while due := [handle for handle in self.calls if handle.when() <= end]:
            first = min(due, key=lambda handle: handle.when())
            self.calls.remove(first)
            self.now = first.when()
            first._callback(*first._args)
        self.now = end


class Transport:
    """Notes what is done to it."""

    def __init__(self) -> None:
        self.done, self.buffered = [], 0

    def write(self, content) -> None:
        self.done.append(content)

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def is_closing(self) -> bool:
        return {"close", "abort"} & {*self.done} != set()

    def can_write_eof(self) -> bool:
        return True

    def __getattr__(self, name):
        return lambda: self.done.append(name)


@pytest.fixture
def gentle():
    transport, loop = Transport(), Loop()
    return GentleTransport(transport, loop, patience=30.0), transport, loop


def test_a_request_that_was_read_is_closed_at_once(gentle):
    closing, transport, loop = gentle
    closing.close()
    closing.close()
    assert transport.done == ["close"] and not loop.calls


def test_the_end_waits_for_silence_but_not_for_ever(gentle):
    closing, transport, loop = gentle
    closing.unread = True
    closing.close()
    assert transport.done == ["write_eof", "resume_reading"] and closing.is_closing()
    loop.pass_by(4.9)
    closing.drop(10)
    loop.pass_by(4.9)
    assert "abort" not in transport.done
    loop.pass_by(0.2)
    assert transport.done[-1] == "abort"


def test_a_trickle_ends_after_half_a_minute_and_a_flood_at_once(gentle):
    closing, transport, loop = gentle
    closing.unread = True
    closing.close()
    for _ in range(29):
        loop.pass_by(1)
        closing.drop(1)
    assert "abort" not in transport.done
    loop.pass_by(1)
    assert transport.done[-1] == "abort"
    transport.done.clear()
    closing.drop(1 << 26)
    assert transport.done == ["abort"]


def test_a_reader_may_be_slow_but_has_to_read(gentle):
    closing, transport, loop = gentle
    transport.buffered = 100_000
    closing.await_reader()
    for _ in range(4):
        transport.buffered -= 20_000
        loop.pass_by(30)
    assert not transport.done and transport.buffered == 20_000
    transport.buffered -= 10_000
    loop.pass_by(30)
    assert transport.done == ["abort"]


def test_a_closed_connection_whose_answer_is_not_taken_is_dropped(gentle):
    closing, transport, loop = gentle
    transport.buffered = 1000
    closing.close()
    assert transport.done == ["close"]
    loop.pass_by(29)
    assert transport.done == ["close"]
    loop.pass_by(2)
    assert transport.done == ["close", "abort"]
    closing.lost()
    assert not loop.calls


def test_the_end_of_the_server_shortens_the_wait(gentle):
    closing, transport, loop = gentle
    closing.unread = True
    closing.close()
    closing.hurry()
    loop.pass_by(1.1)
    assert transport.done[-1] == "abort"


def test_so_many_connections_that_no_file_is_left_are_closed_without_a_word():
    bounds = Connections(ServeConfig(connections=4, connections_per_peer=3), files=128 + 6)
    refusals = [bounds.enter(peer) for peer in "aaaabcd"]
    assert [refusal is None for refusal in refusals] == [True] * 3 + [False, False, False, False]
    assert "from this address" in refusals[3].message and "than 4 connections;" in refusals[4].message
    assert bounds.crowded
    for peer in "aaaabc":
        bounds.leave(peer)
    assert not bounds.crowded and bounds.enter("a") is None
