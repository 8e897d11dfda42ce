"""Waiting in the front: for what the engine tells, and for a client that reads slowly."""

from __future__ import annotations

import asyncio

import pytest

from pangu_alpha.config.serve import ServeConfig
from pangu_alpha.serving.front.exchange import ClientGoneError, Exchange, within
from pangu_alpha.serving.front.link import Events


def test_events_come_in_order_and_nothing_comes_after_the_time():
    async def run():
        events = Events()
        events.put((1, []))
        events.put((2, None))
        return [await events.get(9), await events.get(9), await events.get(0.01)]

    assert asyncio.run(run()) == [(1, []), (2, None), None]


def test_a_reader_that_waits_is_woken_by_the_next_event_or_without_one():
    async def run():
        events = Events()
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, events.put, (7, []))
        first = await events.get(60)
        loop.call_later(0.01, events.wake)
        return first, await events.get(60), events._waiting

    assert asyncio.run(run()) == ((7, []), None, None)


def test_a_reader_that_is_cancelled_leaves_the_event_for_the_next_one():
    async def run():
        events = Events()
        reader = asyncio.ensure_future(events.get(60))
        await asyncio.sleep(0)
        reader.cancel()
        events.put((1, []))
        with pytest.raises(asyncio.CancelledError):
            await reader
        return await events.get(0)

    assert asyncio.run(run()) == (1, [])


def test_work_that_takes_too_long_is_cancelled():
    done = []

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            done.append(True)

    async def run():
        with pytest.raises(asyncio.TimeoutError):
            await within(0.01, work())
        await within(60, asyncio.sleep(0))
        await asyncio.sleep(0.02)  # no cancellation is left over

    asyncio.run(run())
    assert done == [True]


def test_a_cancellation_from_outside_is_no_timeout():
    async def run():
        task = asyncio.ensure_future(within(60, asyncio.sleep(60)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    assert asyncio.run(run())


def test_an_answer_to_a_client_that_has_left_ends_with_the_next_part():
    """uvicorn takes such parts in silence, so a request with all its tokens would count as answered."""
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message["type"])

    async def run():
        exchange = Exchange({"type": "http", "headers": []}, receive, send, ServeConfig(), "id")
        await exchange.send(b"a")
        await exchange.gone()
        with pytest.raises(ClientGoneError):
            await exchange.send(b"b")

    asyncio.run(run())
    assert sent == ["http.response.body"] * 2
