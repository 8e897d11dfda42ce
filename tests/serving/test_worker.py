"""The engine's process at its end of the socket: what it does with messages that it should not get."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from pangu_alpha.inference.engine.scheduler import Engine
from pangu_alpha.serving.engine.channel import Channel
from pangu_alpha.serving.engine.process import Described, serve_front
from pangu_alpha.serving.engine.protocol import Job
from pangu_alpha.serving.engine.worker import Worker
from tests.inference.engine.fake_decoder import FakeDecoder

DRAWS = dict.fromkeys(("temperature", "top_k", "min_p", "frequency_penalty", "presence_penalty"), 0)


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        yield Channel(ours), Channel(theirs)


def job(**changes):
    return Job(**{"prompt": (1, 2, 3), "draws": DRAWS, "seed": 1, "max_tokens": 2, **changes})


def finished(messages):
    """Reason of each request that has ended, by the front's number."""
    events = [each for message in messages if message["op"] == "events" for each in message["events"]]
    return {number: rest[1] for kind, number, *rest in events if kind == "finished"}


def received(channel):
    """The kind of the next message."""
    return channel.receive(10)[0]["op"]


def fake_network(settings):
    decoder = FakeDecoder()
    return Described("v", decoder.vocab_size, 0, decoder.context, "x", [], (), lambda: (decoder, {}))


@pytest.mark.parametrize("wrong", [{"draws": {**DRAWS, "temperature": -1}}, {"prompt": ()}])
def test_a_request_that_cannot_be_computed_is_refused_and_the_others_go_on(ends, wrong):
    front, other = ends
    front.send(job().message(1), job(**wrong).message(2), job().message(3))
    worker = Worker(Engine(FakeDecoder(), {0}), other)
    front._socket.shutdown(socket.SHUT_WR)  # the worker ends when it has done what was sent
    worker.run()
    while worker._engine.busy:
        other.send(*worker._work())
    messages = front.receive(1.0)
    assert [each["request"] for each in messages if each["op"] == "refused"] == [2]
    assert set(finished(messages)) == {1, 3}


def test_a_late_cancel_of_another_engines_request_does_not_end_a_loading_one(ends):
    front, other = ends
    cancel = {"op": "cancel", "request": 7, "sample": None}
    with ThreadPoolExecutor(1) as pool:
        code = pool.submit(serve_front, other._socket.detach(), fake_network)
        front.send(cancel, {"op": "settings", "settings": {"checkpoint": "x"}})
        assert received(front) == "hello"
        front.send(cancel, {"op": "pin", "prefixes": []})
        assert received(front) == "ready"
        front._socket.shutdown(socket.SHUT_WR)
        assert code.result(10) == 0
