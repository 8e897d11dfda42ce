"""What goes wrong around a server: clients that leave, engines that die, signals, slow senders."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.serving.running import ROOT, until

pytestmark = pytest.mark.long  # minutes in all, and faults are a matter of time

BODY = {"model": "pangu", "prompt": "却说", "temperature": 0}


def address(server):
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


def head(server, body, *more):
    lines = ["POST /v1/completions HTTP/1.1", f"Host: {address(server)[0]}", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", *more, "", ""]).encode()


def ready(server):
    return httpx.get(server.url + "/health/ready")


def running(server):
    return ready(server).json()["running"]


def send(server, **body):
    """Sends a request, and leaves its connection open."""
    content = json.dumps({**BODY, **body}).encode()
    connection = socket.create_connection(address(server), 20)
    connection.sendall(head(server, content) + content)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_a_slot_is_free_again_two_ticks_after_its_client_left(start, stream):
    server = start("--delay", 0.1, "--slots", 2)
    with send(server, max_tokens=200, stream=stream):
        until(lambda: running(server) == 1)
    gone = time.monotonic()
    until(lambda: running(server) == 0)
    assert time.monotonic() - gone < 1.0  # two ticks take 0.2 s; the machine may be busy
    until(lambda: any(line["status"] == 499 for line in server.lines()))
    assert next(line for line in server.lines() if line["status"] == 499)["completion_tokens"] < 30


def test_clients_that_leave_while_they_wait_are_forgotten(start):
    server = start("--delay", 0.05, "--slots", 1)
    with send(server, max_tokens=100):
        until(lambda: running(server) == 1)
        others = [send(server, max_tokens=100, stream=bool(n % 2)) for n in range(6)]
        until(lambda: ready(server).json()["waiting"] == 6)
        for other in others:
            other.close()
        until(lambda: ready(server).json()["waiting"] == 0)
    assert httpx.post(server.url + "/v1/completions", json={**BODY, "max_tokens": 1}).status_code == 200


def test_200_connections_are_dropped_at_random_moments(start):
    """Queued, in prefill, while decoding, before the first byte: afterwards a request runs at once."""
    server = start("--delay", 0.002, "--slots", 4, "--connections-per-peer", 256)

    async def drop(number):
        reader, writer = await asyncio.open_connection(*address(server))
        body = json.dumps({**BODY, "max_tokens": 100, "stream": bool(number % 2)}).encode()
        writer.write(head(server, body) + body)
        await asyncio.sleep((number * 37 % 100) / 100)
        writer.close()

    async def all_of_them():
        for start_at in range(0, 200, 50):
            await asyncio.gather(*(drop(start_at + number) for number in range(50)))

    asyncio.run(all_of_them())
    until(lambda: running(server) == 0 and ready(server).json()["waiting"] == 0, 20)
    assert (
        httpx.post(server.url + "/v1/completions", json={**BODY, "max_tokens": 2}, timeout=5).status_code
        == 200
    )


def test_a_full_queue_answers_429_at_once(start):
    server = start("--delay", 0.05, "--slots", 1, "--queue", 2, "--connections-per-peer", 256)
    with ExitStack() as held:
        held.enter_context(send(server, max_tokens=200))
        until(lambda: running(server) == 1)
        for number in (1, 2):
            held.enter_context(send(server, max_tokens=1))
            until(lambda: ready(server).json()["waiting"] == number)  # noqa: B023
        for _ in range(9):
            answer = httpx.post(server.url + "/v1/completions", json=BODY, timeout=60)
            assert answer.status_code == 429 and answer.json()["error"]["code"] == "queue_full"
            assert int(answer.headers["retry-after"]) >= 1
        assert running(server) == 1  # all were refused while the first of them ran
    assert 'pangu:rejected_total{reason="queue_full"} 9.0' in httpx.get(server.url + "/metrics").text


def test_ready_says_when_the_queue_is_full(start):
    server = start("--delay", 0.05, "--slots", 1, "--queue", 0)
    with send(server, max_tokens=200):
        until(lambda: running(server) == 1)
        answer = ready(server)
        assert answer.status_code == 503 and answer.json()["status"] == "queue_full"
        assert httpx.get(server.url + "/health").status_code == 200
    until(lambda: ready(server).status_code == 200)


def test_a_killed_engine_ends_its_streams_and_is_started_again(start):
    server = start("--delay", 0.05)
    with send(server, max_tokens=200, stream=True) as connection:
        assert b"200 OK" in connection.recv(1000)
        first = server.engine()
        os.kill(first, signal.SIGKILL)
        content = b""
        while b"[DONE]" not in content:
            content += connection.recv(65536)
        assert b'"code":"engine_lost"' in content
    until(lambda: "has ended (signal 9, which the system sends when memory is short)" in server.text)
    refused = httpx.post(server.url + "/v1/completions", json=BODY)
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
    until(lambda: ready(server).status_code == 200, 20)
    assert server.engine() != first
    assert httpx.post(server.url + "/v1/completions", json={**BODY, "max_tokens": 1}).status_code == 200
    assert "pangu:engine_restarts_total 1.0" in httpx.get(server.url + "/metrics").text


def test_an_engine_that_stands_still_is_seen_and_a_busy_one_is_not_blamed():
    from pangu_alpha.config.serve import ServeConfig
    from pangu_alpha.serving.access.keys import Keys
    from pangu_alpha.serving.engine.settings import EngineSettings
    from pangu_alpha.serving.front.link import Link
    from pangu_alpha.serving.front.state import State

    async def states():
        state = State(ServeConfig(), Keys(), {})
        state.link = link = Link(EngineSettings("x"), state.greeted)
        found = [state.alive]
        link.state, link._seen = "ready", time.monotonic() - 29
        found.append(state.alive)
        link._seen -= 2
        found += [state.alive, state.readiness()]
        link.state = "engine_lost"
        return [*found, state.alive]

    assert asyncio.run(states()) == [True, True, False, (False, "stuck"), False]


@pytest.mark.long
def test_a_stopped_engine_turns_health_red_and_goes_on(start):
    server = start("--delay", 0.01)
    os.kill(server.engine(), signal.SIGSTOP)
    until(lambda: httpx.get(server.url + "/health").status_code == 503, 40)
    assert httpx.get(server.url + "/health").json()["status"] == "stuck"
    os.kill(server.engine(), signal.SIGCONT)
    until(lambda: ready(server).status_code == 200)


def test_an_engine_that_stands_still_does_not_hold_its_clients(start):
    """The engine ends what is late; if it does not move, the front does, half a minute after."""
    server = start("--delay", 0.01, "--slots", 2)
    os.kill(server.engine(), signal.SIGSTOP)
    headers = {"x-timeout": "1"}
    plain = httpx.post(server.url + "/v1/completions", json=BODY, headers=headers, timeout=120)
    assert plain.status_code == 503 and plain.json()["error"]["code"] == "engine_lost"
    os.kill(server.engine(), signal.SIGCONT)
    until(lambda: ready(server).status_code == 200)
    assert httpx.post(server.url + "/v1/completions", json={**BODY, "max_tokens": 1}).status_code == 200


def test_an_engine_that_stands_still_for_good_is_ended_and_started_again(start):
    server = start("--delay", 0.01, "--engine-timeout", 2)
    first = server.engine()
    with send(server, max_tokens=200, stream=True) as connection:
        assert b"200 OK" in connection.recv(1000)
        os.kill(first, signal.SIGSTOP)
        content = b""
        while b"[DONE]" not in content:
            content += connection.recv(65536)
        assert b'"code":"engine_lost"' in content
    until(lambda: "has ended (it had shown no sign of life for 2 s, and was killed)" in server.text)
    until(lambda: ready(server).status_code == 200, 20)
    assert server.engine() != first
    assert httpx.post(server.url + "/v1/completions", json={**BODY, "max_tokens": 1}).status_code == 200
    assert "pangu:engine_restarts_total 1.0" in httpx.get(server.url + "/metrics").text
    time.sleep(3)  # an idle engine shows that it lives
    assert "pangu:engine_restarts_total 1.0" in httpx.get(server.url + "/metrics").text


@pytest.mark.long
def test_an_engine_that_stands_still_again_and_again_ends_the_server(start):
    """However long each of them was ready: that is no service."""
    server = start("--engine-timeout", 1)
    for _ in range(4):
        until(lambda: ready(server).status_code == 200)
        engine = server.engine()
        os.kill(engine, signal.SIGSTOP)
        until(lambda: not Path(f"/proc/{engine}").exists())  # noqa: B023
    assert server.process.wait(30) == 1
    assert "the engine ended 4 times in a row; the last time: it had shown no sign of life" in server.text


def test_an_engine_that_dies_again_and_again_ends_the_server(start):
    server = start("--die", wait=False)
    assert server.process.wait(30) == 1
    assert "the engine ended 4 times in a row; the last time: exit code 9" in server.text


def test_while_the_engine_loads_everybody_is_told(start):
    server = start("--load", 3, wait=False)
    until(lambda: httpx.get(server.url + "/health").status_code == 200)
    assert ready(server).status_code == 503 and ready(server).json()["status"] == "loading"
    answer = httpx.post(server.url + "/v1/completions", json=BODY)
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "loading"
    assert int(answer.headers["retry-after"]) >= 1
    until(lambda: ready(server).status_code == 200, 20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_finish(start, number):
    server = start("--delay", 0.05, "--slots", 1, "--drain-timeout", 300)
    ask = {**BODY, "max_tokens": 60}
    with ThreadPoolExecutor(2) as pool:
        asks = [
            pool.submit(httpx.post, server.url + "/v1/completions", json=ask, timeout=60)
            for _ in range(2)  # one runs, the other waits
        ]
        until(lambda: running(server) == 1 and ready(server).json()["waiting"] == 1)
        server.process.send_signal(number)
        until(lambda: "are finished first" in server.text)
        assert ready(server).json()["status"] == "draining"
        refused = httpx.post(server.url + "/v1/completions", json=BODY)
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "draining"
        assert refused.headers["connection"] == "close"
        assert [ask.result().status_code for ask in asks] == [200, 200]
    assert server.process.wait(60) == 0


def test_what_is_not_finished_in_time_is_cut_and_the_exit_code_says_so(start):
    server = start("--delay", 0.05, "--drain-timeout", 0.5)
    with send(server, max_tokens=200, stream=True) as connection:
        until(lambda: running(server) == 1)
        server.process.send_signal(signal.SIGTERM)
        content = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b'"code":"draining"' in content and b"data: [DONE]" in content
    assert server.process.wait(60) == 128 + signal.SIGTERM


def test_a_second_signal_ends_the_server_now(start):
    server = start("--delay", 0.05)
    with send(server, max_tokens=200):
        until(lambda: running(server) == 1)
        for _ in range(2):
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        assert server.process.wait(60) == 128 + signal.SIGTERM


def answered(connection) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_slow_headers_and_bodies_are_ended(start):
    server = start("--header-timeout", 1, "--body-timeout", 1)
    with socket.create_connection(address(server), 20) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        began = time.monotonic()
        content = answered(connection)
        assert b"408 Request Timeout" in content and b"header_timeout" in content
        assert time.monotonic() - began > 0.5
    with socket.create_connection(address(server), 20) as connection:
        connection.sendall(head(server, b"x" * 1000) + b'{"model"')
        content = answered(connection)
        assert b" 408 " in content and b"body_timeout" in content
    with socket.create_connection(address(server), 20) as connection:  # a kept connection
        for _ in range(2):
            connection.sendall(b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            content = b""
            while not content.endswith(b"}"):  # head and body may come one after the other
                content += connection.recv(65536)
            assert b"200 OK" in content
        connection.sendall(b"GET /version HTTP/1.1\r\nHo")
        assert b"header_timeout" in answered(connection)
    assert ready(server).status_code == 200


def test_long_headers_are_refused(start):
    server = start()
    with socket.create_connection(address(server), 20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"a" * (1 << 20))
        assert b" 431 " in answered(connection)
    assert ready(server).status_code == 200


def test_connections_are_bounded(start):
    server = start("--connections-per-peer", 3)
    held = [socket.create_connection(address(server), 20) for _ in range(3)]
    with socket.create_connection(address(server), 20) as connection:
        content = answered(connection)
        assert b"429 Too Many Requests" in content and b"more than 3 connections" in content
        assert b"Retry-After: 1" in content
    for connection in held:
        connection.close()
    until(lambda: ready(server).status_code == 200)


def test_a_client_that_does_not_read_is_dropped(start):
    """Its answers are larger than all buffers between the two."""
    server = start("--send-timeout", 1, "--slots", 4, "--context", 4000, "--delay", 0)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(address(server))
    # Five megabytes in the first chunk of each choice, so that it does not depend on the speed of the engine.
    body = {**BODY, "prompt": "却说" * 1200, "echo": True, "max_tokens": 9, "logprobs": 20, "n": 4}
    content = json.dumps({**body, "stream": True}).encode()
    connection.sendall(head(server, content) + content)
    until(lambda: any(line["status"] == 499 for line in server.lines()), 120)
    until(lambda: running(server) == 0)
    connection.close()
    assert ready(server).status_code == 200


def fails(*options):
    done = subprocess.run(
        [sys.executable, "-m", "tests.serving.fake_server", *map(str, options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_bad_starts_are_refused_in_words(tmp_path, vocabulary):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, text = fails("--port", port, "--vocabulary", vocabulary)
        assert (
            code == 2 and f"error: port {port} of 127.0.0.1 cannot be opened: address already in use" in text
        )
    code, text = fails("--port", 0, "--vocabulary", vocabulary, "--checkpoint", "refused")
    assert code == 2 and "error: refused: this checkpoint cannot be opened" in text
    code, text = fails("--host", "0.0.0.0")
    assert code == 2 and "can be reached by others, and no keys are set" in text
    (tmp_path / "keys").write_text("x", "utf-8")
    (tmp_path / "keys").chmod(0o644)
    code, text = fails("--key-file", tmp_path / "keys")
    assert code == 2 and "run chmod 600" in text
