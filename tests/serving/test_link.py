"""The front's end of the engine, over a writer that notes what is sent."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from pangu_alpha.config.serve import ServeConfig
from pangu_alpha.serving.engine.settings import EngineSettings
from pangu_alpha.serving.front.link import EngineLostError, Events, Link
from pangu_alpha.serving.front.server import check_certificate, listen


class Writer:
    """Notes the messages that are sent."""

    def __init__(self) -> None:
        self.messages = []

    def write(self, line) -> None:
        self.messages.append(json.loads(line))


class Job:
    """The message of a job."""

    def message(self, number):
        return {"op": "submit", "request": number}


@pytest.fixture
def link():
    found = Link(EngineSettings("x"), lambda hello: [])
    found._writer, found.state = Writer(), "ready"
    return found


def test_a_job_is_given_up_once_and_only_at_the_engine_that_has_it(link):
    """An engine that is being loaded ends if it hears of anything else than its settings."""
    first, second = link.submit(Job(), Events()), link.submit(Job(), Events())
    link.cancel(first, 0)
    link.cancel(first)
    link.cancel(first)
    cancelled = [each for each in link._writer.messages if each["op"] == "cancel"]
    assert [(each["request"], each["sample"]) for each in cancelled] == [(first, 0), (first, None)]
    link._end_streams()  # the engine has died
    link._writer, link.state = Writer(), "loading"
    link.cancel(second)
    assert not link._writer.messages
    with pytest.raises(EngineLostError):
        link.submit(Job(), Events())


def test_a_server_that_ends_starts_no_engine_again(tmp_path):
    """While it waits before it would."""
    link = Link(EngineSettings("x"), lambda hello: [], ("false",), back_off=0.2)

    async def run():
        live = link._live
        lives = []

        async def counted(ready):
            lives.append(1)
            link._ready_at = 0.0
            failure = await live(ready)
            link.state = "ready"  # it had been, once
            asyncio.get_running_loop().call_later(0.05, setattr, link, "_closing", True)
            return failure

        link._live = counted
        await link.run()
        return len(lives)

    assert asyncio.run(run()) == 1


def test_a_certificate_that_cannot_be_used_is_refused_at_the_start(tmp_path):
    for name in ("certificate.pem", "key.pem"):
        (tmp_path / name).write_text("nothing", "utf-8")
    wrong = ServeConfig(
        certificate=str(tmp_path / "certificate.pem"), certificate_key=str(tmp_path / "key.pem")
    )
    with pytest.raises(
        ValueError, match=r"certificate: .*pem with .*key.pem cannot be used: .*; give a cert"
    ):
        check_certificate(wrong)
    missing = ServeConfig(certificate="none.pem", certificate_key="none.key")
    with pytest.raises(ValueError, match=r"none.pem with none.key cannot be used: No such file"):
        check_certificate(missing)
    check_certificate(ServeConfig())


def test_an_address_of_another_machine_has_a_remedy_of_its_own():
    with pytest.raises(ValueError, match="192.0.2.1 cannot be opened: .*; give another --host"):
        listen(ServeConfig(host="192.0.2.1", port=0, key_file="x"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match="end the program that has it, or give another --port"):
            listen(ServeConfig(port=port))
