"""Does a server's memory grow? Sends requests of all kinds to one, and reads what its two processes hold.

    python benchmarks/serve_memory.py --checkpoint runs/mine      # 10,000 requests to src/serve.py
    python benchmarks/serve_memory.py --fake --requests 100000    # to an engine without a network

Plain and streamed answers, several samples, echoes, refusals, and clients that leave, from 16 clients at a
time. Prints the resident memory of the front and of the engine, and the front's open files, after each tenth
of the requests, and a JSON line last. The first tenth fills caches and pools; exit code 1 if a process grew
by more than 5 % and 8 MB after it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.serving.running import Server, until  # noqa: E402

_CLIENTS = 16
_PARTS = 10
_GROWTH, _NOISE = 0.05, 8 << 20  # of a process whose memory is flat
_WORDS = "却说曹操引兵大进次日天明玄德与孔明商议"


def body_of(draw: random.Random) -> dict[str, object]:
    """A request: most are good, some are wrong in one field."""
    prompt = "".join(draw.choice(_WORDS) for _ in range(draw.randint(1, 60)))
    body: dict[str, object] = {"model": "pangu", "prompt": prompt, "max_tokens": draw.randint(1, 12)}
    kinds: list[dict[str, object]] = [
        {}, {"stream": True}, {"n": 2}, {"echo": True, "logprobs": 3, "max_tokens": 0}, {"temperature": 0},
        {"logprobs": 5, "stream": True}, {"stop": [draw.choice(_WORDS)]}, {"unknown": 1},
        {"max_tokens": 10**6}, {"model": f"none-{draw.random()}"},
    ]  # fmt: skip
    return body | draw.choice(kinds)


async def client(url: str, left: list[int], statuses: Counter[str]) -> None:
    """Sends requests until none are left; each twentieth is left before its end."""
    async with httpx.AsyncClient(timeout=300) as asking:
        while left:
            draw = random.Random(left.pop())
            body = body_of(draw)
            if draw.random() < 0.05:
                body["stream"] = True
            async with asking.stream("POST", f"{url}/v1/completions", json=body) as answer:
                statuses[str(answer.status_code)] += 1
                if draw.random() >= 0.05:
                    await answer.aread()


async def send(url: str, requests: range, statuses: Counter[str]) -> None:
    """Sends so many requests by all clients together."""
    left = list(requests)
    await asyncio.gather(*(client(url, left, statuses) for _ in range(_CLIENTS)))


def rests(url: str) -> bool:
    """Whether nothing runs and nothing waits."""
    found = httpx.get(f"{url}/health/ready", timeout=60).json()
    return bool(found["running"] == found["waiting"] == 0)


def measure(server: Server, requests: int) -> tuple[list[dict[str, int]], Counter[str]]:
    """Sends the requests part by part; what the processes hold after each part."""
    front, engine = psutil.Process(server.process.pid), psutil.Process(server.engine())
    found, statuses = [], Counter[str]()
    for part in range(_PARTS):
        begin, end = part * requests // _PARTS, (part + 1) * requests // _PARTS
        asyncio.run(send(server.url, range(begin, end), statuses))
        until(lambda: rests(server.url))
        sizes = {"front": front.memory_info().rss, "engine": engine.memory_info().rss}
        found.append({"requests": end, **sizes, "files": front.num_fds()})
        print(
            f"{end:7,} requests: front {sizes['front'] / 1e6:6.1f} MB, "
            f"engine {sizes['engine'] / 1e6:7.1f} MB, {found[-1]['files']} open files",
            flush=True,
        )
    return found, statuses


def main() -> int:
    """Measures a server."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", help="of the network to serve")
    source.add_argument("--fake", action="store_true", help="an engine without a network")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=8)
    options = parser.parse_args()
    words = ["--slots", options.slots, "--connections-per-peer", 2 * _CLIENTS]
    words += ["--delay", 0] if options.fake else ["--checkpoint", options.checkpoint]
    program = ("-m", "tests.serving.fake_server") if options.fake else (str(ROOT / "src/serve.py"),)
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Server(Path(folder), *words, program=program)) as server,
    ):
        found, statuses = measure(server, options.requests)
    grown = {name: found[-1][name] - found[0][name] for name in ("front", "engine")}
    faults = [name for name, size in grown.items() if size > max(_NOISE, _GROWTH * found[0][name])]
    faults += [status for status in statuses if status not in ("200", "400", "404", "429")]
    print(json.dumps({"parts": found, "statuses": statuses, "grown": grown, "faults": faults}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
