"""Many requests at once, slow ones, and a signal among them: nothing is lost, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.serving.running import until

pytestmark = pytest.mark.long

BODY = {"model": "pangu", "prompt": "却说", "temperature": 0}


async def ask(server, **body):
    """One request on a connection of its own: status, headers, and the value of the answer."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    content = json.dumps({**BODY, **body}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Connection: close\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
    try:
        answer = await reader.read()
    finally:
        writer.close()
    first, *lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    text = answer.partition(b"\r\n\r\n")[2].decode()
    assert len(text.encode()) == int(headers.get("content-length", len(text.encode())))
    return int(first.split()[1]), headers, text


def at_once(server, bodies):
    """Sends all requests at the same time."""

    async def all_of_them():
        return await asyncio.gather(*(ask(server, **body) for body in bodies))

    return asyncio.run(all_of_them())


def files_of(server) -> int:
    return psutil.Process(server.process.pid).num_fds()


def ready(server):
    return httpx.get(server.url + "/health/ready", timeout=60).json()


def rests(server) -> bool:
    found = ready(server)
    return found["running"] == found["waiting"] == 0


@pytest.mark.parametrize("connections", [4096, 256], ids=["queue", "connections"])
def test_2000_requests_at_once_are_all_answered(start, connections):
    """By the bound of the queue, and by that of the connections before it."""
    bounds = ("--connections", connections, "--connections-per-peer", connections)
    server = start("--delay", 0.002, "--slots", 8, "--queue", 64, *bounds)
    assert at_once(server, [{"max_tokens": 2}])[0][0] == 200
    until(lambda: rests(server))
    files = files_of(server)
    found = at_once(server, [{"max_tokens": 20}] * 2000)
    counts = Counter(status for status, *_ in found)
    assert set(counts) == {200, 429} and counts[200] >= 64, counts
    for status, headers, text in found:
        if status == 429:
            assert int(headers["retry-after"]) >= 1 and json.loads(text)["error"]["code"] in (
                "queue_full",
                "connections",
            )
        else:
            assert json.loads(text)["usage"]["completion_tokens"] == 20
    until(lambda: rests(server))
    until(lambda: files_of(server) <= files)
    assert at_once(server, [{"max_tokens": 2}])[0][0] == 200


def test_health_stays_green_under_full_load(start):
    """A busy engine is not taken for a dead one, and probes are answered while slots and queue are full."""
    server = start("--delay", 0.02, "--slots", 4, "--queue", 16, "--connections-per-peer", 256)
    end = time.monotonic() + 60

    def work(_):
        while time.monotonic() < end:
            httpx.post(server.url + "/v1/completions", json={**BODY, "max_tokens": 50}, timeout=120)

    with ThreadPoolExecutor(24) as pool:
        working = pool.map(work, range(24))
        probed = []
        while time.monotonic() < end:
            probed.append(httpx.get(server.url + "/health", timeout=60).status_code)
            time.sleep(0.1)
        list(working)
    assert set(probed) == {200} and len(probed) > 20
    until(lambda: rests(server))


def test_a_signal_under_load_cuts_nothing(start):
    """What was taken before it is finished; what comes later is told to go elsewhere."""
    bounds = ("--connections-per-peer", 256, "--drain-timeout", 300)
    server = start("--delay", 0.05, "--slots", 4, "--queue", 256, *bounds)

    def asks_of(numbers, tokens):
        return [asyncio.ensure_future(ask(server, max_tokens=tokens, stream=bool(n % 2))) for n in numbers]

    async def load():
        asks = asks_of(range(4), 200)  # hold the slots for ten seconds, in which all others come to wait
        await asyncio.to_thread(until, lambda: ready(server)["running"] == 4)
        asks += asks_of(range(96), 20)
        await asyncio.to_thread(until, lambda: ready(server)["waiting"] == 96)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(until, lambda: "are finished first" in server.text)
        late = await asyncio.gather(*(ask(server, max_tokens=1) for _ in range(5)))
        return await asyncio.gather(*asks), late

    found, late = asyncio.run(load())
    assert Counter(status for status, *_ in found) == {200: 100}
    assert all("[DONE]" in text or json.loads(text)["usage"] for _, _, text in found)
    assert not any("error" in text for _, _, text in found)
    assert [(status, headers["connection"]) for status, headers, _ in late] == [(503, "close")] * 5
    assert server.process.wait(60) == 0


def test_an_answer_does_not_depend_on_what_runs_beside_it(start):
    """50 requests with seeds, alone and among 400 others; and 20 without a seed, which all differ."""
    server = start(
        "--delay",
        0,
        "--random",
        "--slots",
        8,
        "--queue",
        600,
        "--connections",
        600,
        "--connections-per-peer",
        600,
    )
    seeded = [
        {"prompt": "却说曹操" * (1 + n % 12), "max_tokens": 24, "seed": n, "temperature": 1.0, "logprobs": 2,
         "n": 1 + n % 3}
        for n in range(50)
    ]  # fmt: skip
    others = [{"prompt": "玄德" * (1 + n % 9), "max_tokens": 8, "temperature": 1.0} for n in range(400)]

    def choices(answers):
        assert {status for status, *_ in answers} == {200}
        return [json.loads(text)["choices"] for *_, text in answers]

    alone = [choices(at_once(server, [body]))[0] for body in seeded]
    mixed = choices(
        at_once(server, [body for n in range(50) for body in (seeded[n], *others[8 * n : 8 * n + 8])])
    )
    assert mixed[::9] == alone
    # Without the end of a document, at which two texts could end as they began.
    end = str(httpx.get(server.url + "/tokenizer_info").json()["eos_token_id"])
    fresh = {"max_tokens": 24, "temperature": 1.0, "logit_bias": {end: -100}}
    drawn = choices(at_once(server, [fresh] * 20))
    assert len({each[0]["text"] for each in drawn}) == 20


@pytest.mark.parametrize("attack", ["-H", "-B", "-X"], ids=["headers", "body", "read"])
def test_slow_requests_leave_room_for_others(start, tmp_path, attack):
    """slowhttptest's three attacks from one address, which may not take all connections of the server."""
    program = shutil.which("slowhttptest")
    if program is None:
        pytest.skip("needs slowhttptest, which Debian's package of that name brings")
    bounds = ("--connections", 64, "--connections-per-peer", 48)
    server = start("--header-timeout", 2, "--body-timeout", 2, "--send-timeout", 2, *bounds)
    url = server.url + ("/v1/completions" if attack != "-X" else "/openapi.json")
    words = [attack, "-c", "200", "-r", "100", "-i", "1", "-x", "8", "-l", "20", "-p", "5", "-u", url]
    words += ["-t", "POST", "-f", "application/json", "-s", "100000"] if attack == "-B" else []
    words += ["-w", "1", "-y", "16", "-z", "4", "-n", "2", "-k", "3"] if attack == "-X" else []
    with (tmp_path / "attack.txt").open("wb") as file:
        attacker = subprocess.Popen([program, *words], stdout=file, stderr=subprocess.STDOUT)
    answered = 0
    try:
        while attacker.poll() is None:
            found = httpx.get(server.url.replace("127.0.0.1", "localhost") + "/health", timeout=60)
            answered += found.status_code == 200  # else 429: the address has its share already
    finally:
        attacker.kill()
        attacker.wait()
    report = re.sub(r"\x1b\[[0-9;]*m", "", (tmp_path / "attack.txt").read_text("utf-8", "replace"))
    assert answered > 5, report[-2000:]
    until(lambda: rests(server))
    until(lambda: len(psutil.Process(server.process.pid).net_connections("tcp")) <= 2)
    assert httpx.post(server.url + "/v1/completions", json={**BODY, "max_tokens": 1}).status_code == 200
