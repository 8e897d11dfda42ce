"""The server's benchmark: what its client notes, what rounds say together, and what misses its target."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b'data: {"id":"x","choices":[{"index":0,"text":"a"}]}\n\n'
USAGE = b'data: {"id":"x","choices":[],"usage":{"completion_tokens":2}}\n\n'


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def module(name):
    return importlib.import_module(name)


def asked(parts, **words):
    """What the client finds in an answer whose parts come 20 ms after each other."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.02)
        writer.close()

    async def run():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            return await module("serve_client").ask(server.sockets[0].getsockname()[1], {}, **words)

    return asyncio.run(run())


def test_the_client_times_the_chunks_with_a_choice_and_reads_the_usage():
    counts = []
    found = asked([HEAD, b": wait\n\n", CHUNK, CHUNK, USAGE, b"data: [DONE]\n\n"], taken=counts.append)
    assert counts == [1, 2] and found.usage == {"completion_tokens": 2}
    assert 0.04 <= found.first < found.times[1] - found.began < found.seconds
    assert found.times[1] - found.times[0] > 0.01


def test_the_client_fails_where_the_server_does():
    failed = module("serve_client").FailedError
    with pytest.raises(failed, match="429"):
        asked([b"HTTP/1.1 429 Too Many Requests\r\n\r\n", b'{"error":{}}'])
    with pytest.raises(failed, match="engine_lost"):
        asked([HEAD, CHUNK, b'data: {"error":{"code":"engine_lost"}}\n\n', b"data: [DONE]\n\n"])


def program(name, *rounds):
    """Rounds of a program that nothing disturbed."""
    summary = module("rounds").summarize([each["seconds"] for each in rounds])
    return SimpleNamespace(name=name, rounds=rounds, summary=lambda: summary)


def test_ratios_of_rounds_and_their_targets():
    speed = module("serve_speed")
    lists = {"alone": [0.1] * 4, "beside": [0.2] * 19 + [0.5], "hit": [0.1], "miss": [0.5]}
    ours = {"one": 2.0, "seconds": 4.0, "gap": 0.3, "freed": [0.2, 0.6], **lists}
    engine = {"one": 1.9, "seconds": 3.6, "chunk": 0.12, "step": 0.08}
    found = speed.figures(
        [
            program(
                "server", ours, ours, {**ours, "seconds": 40.0, "gap": 9.0}
            ),  # the last one was disturbed
            program("engine", engine, engine),
            program("fastapi", {"seconds": 16.0}),
        ]
    )
    assert found["one_to_engine"] == 0.95 and found["eight_to_engine"] == 0.9
    assert found["first_token_p95_beside_7_to_alone"] == 2.15  # of 38 times 0.2 and twice 0.5
    assert found["gap_to_chunk_and_step"] == 1.5 and found["freed_to_chunk_and_step"] == 3.0
    assert found["prefix_hit_to_miss"] == 0.2 and found["eight_to_fastapi"] == 4.0
    assert found["tokens_per_second_8"] == 128 and "eight_to_llama" not in found
    lines = speed.judged(found)
    assert [line.split(":")[0] for line in lines if "MISSED" in line] == [
        "eight_to_engine",
        "freed_to_chunk_and_step",
    ]
    assert "eight_to_fastapi: 4.000, as wanted: at least 3.0" in lines


def test_prompts_never_repeat_and_hold_no_control_id():
    speed, peers = module("serve_speed"), module("serve_peers")
    first, second = speed.ids(64), speed.ids(64)
    assert first != second and len(first) == 64
    assert min(first + second) >= speed.FIRST_ID and max(first + second) < peers.PIECES


def until(condition):
    """A signal takes effect a little later than it is sent."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
print("ready", flush=True)
for line in sys.stdin:
    time.sleep(0.3)
    print('{"seconds": 0.3}', flush=True)
child.kill()
"""


def test_a_program_is_stopped_with_what_it_started_whose_time_is_its_own(tmp_path, monkeypatch):
    """A server whose client is the program must not count as other work, nor run beside the others."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    found = module("programs").Program(str(script), "busy", 1)
    try:
        (child,) = psutil.Process(found._process.pid).children()
        until(lambda: child.status() == psutil.STATUS_STOPPED)
        before, others = child.cpu_times().user, found._seconds_of_others()
        monkeypatch.setattr(found, "_family", lambda: [])
        everything = found._seconds_of_others()
        monkeypatch.undo()
        assert everything - others >= before
        found.round()
        until(lambda: child.status() == psutil.STATUS_STOPPED)
        assert child.cpu_times().user > before
    finally:
        found.close()


def test_options():
    parsed = module("serve_speed").parsed
    assert parsed([]).programs == ["server", "engine", "fastapi"]
    assert parsed(["--llama", "x"]).programs == ["server", "engine", "fastapi", "llama"]
    assert parsed(["--without", "fastapi,server"]).programs == ["server", "engine"]
    done = subprocess.run([sys.executable, BENCHMARKS / "serve_speed.py", "--help"], capture_output=True)
    assert done.returncode == 0 and b"--llama" in done.stdout
