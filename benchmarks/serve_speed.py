"""The server's speed: against its own engine in one process, against other servers, and how soon it answers.

The shape is the 350M's: float32, random weights, greedy, 8 slots. Each program is a process with its
children, stopped while another one runs; rounds take turns, and medians of the rounds that nothing disturbed
are compared (rounds.py). Clients run on the same cores as the server, as on a laptop. The programs:

server: `src/serve.py`, the clients streaming from 127.0.0.1.
engine: the engine of that server's process, alone: no texts, no HTTP, no second process.
fastapi: FastAPI with `generate` of transformers behind a lock, GPT-2 of the shape.
llama: llama.cpp's `llama-server` with GPT-2 of the shape, if --llama gives its path.

The figures, with prompts of 64 tokens and 64 new ones that no cache knows:

one, eight: tokens/s of the server over those of the engine, with so many clients.
first_token: time to the first token, 95th percentile while 7 other streams run, over the median alone.
gap: the longest pause in those streams while a prompt of 448 tokens is computed, over a chunk and a step.
fastapi, llama: tokens/s of the server over the peer's, 8 clients.
prefix: time to the first token of a scenario whose 448 tokens are cached, over that of an unknown text.
freed: time until a slot is free after its client has vanished, the worst of a round, over a chunk and a step.

The last line is JSON: the processor, the ratios, and whether the run was quiet.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import machine
import serve_peers
from programs import Program, Round, serve, start_all
from rounds import report, verdict
from serve_client import Answer, ask, ask_whole, get

SLOTS, PROMPT, NEW = 8, 64, 64
PROBES, VANISHED, PREFIXES, SINGLES = 12, 6, 3, 3  # measurements of a round
FIRST_ID = 20  # of the ids that prompts are made of
OTHERS_NEW = serve_peers.CONTEXT - PROMPT
OPTIONAL = ("fastapi", "llama")
TARGETS = {  # least or most of a ratio
    "one_to_engine": (0.92, None),
    "eight_to_engine": (0.92, None),
    "first_token_p95_beside_7_to_alone": (None, 2.5),
    "eight_to_fastapi": (3.0, None),
    "prefix_hit_to_miss": (None, 0.25),
    "freed_to_chunk_and_step": (None, 2.0),
}

_seeds = itertools.count()


def ids(length: int) -> list[int]:
    """A prompt that was never given before."""
    return random.Random(next(_seeds)).choices(range(FIRST_ID, serve_peers.PIECES), k=length)


def quantile_95(values: Sequence[float]) -> float:
    """Of at least two values."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


# The engine alone.


def engine(options: argparse.Namespace) -> Round:
    """A round: seconds of one and of eight requests; of a chunk, and of a step of all rows."""
    from pangu_alpha.config.generate import SamplingConfig
    from pangu_alpha.inference.engine.requests import Request
    from pangu_alpha.inference.engine.scheduler import Engine
    from pangu_alpha.serving.engine.loaded import describe
    from pangu_alpha.serving.engine.settings import EngineSettings

    settings = EngineSettings(options.folder, device="CPU", slots=SLOTS, context=serve_peers.CONTEXT)
    found = describe(settings)
    decoder, _ = found.load()
    running = Engine(decoder, {found.end_of_document}, found.banned)
    sampling, bias = SamplingConfig(greedy=True), {found.end_of_document: -100.0}

    def seconds_of(count: int) -> float:
        began, before = time.perf_counter(), running.counts.generated
        for _ in range(count):
            running.submit(Request(tuple(ids(PROMPT)), sampling, NEW, logit_bias=bias))
        while running.busy:
            running.tick()
        assert running.counts.generated - before == count * NEW
        return time.perf_counter() - began

    def seconds(work: Callable[[], Any]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    def run() -> dict[str, Any]:
        singles = [seconds_of(1) for _ in range(SINGLES)]
        times = {"one": statistics.median(singles), "seconds": seconds_of(SLOTS)}
        for row in range(SLOTS):
            decoder.feed(row, ids(PROMPT), 0)
        steps = [seconds(lambda: decoder.step([FIRST_ID] * SLOTS, [True] * SLOTS)) for _ in range(8)]
        chunks = [seconds(lambda: decoder.feed(0, ids(PROMPT), 0)) for _ in range(4)]
        return {**times, "step": statistics.median(steps), "chunk": statistics.median(chunks)}

    return run


# The server, and what its clients see.


def body(prompt: Sequence[int], new: int, end: int | None = None) -> dict[str, Any]:
    """A request that ends by its length alone."""
    banned = {} if end is None else {"logit_bias": {str(end): -100}}
    return {"model": "pangu", "prompt": list(prompt), "max_tokens": new, "temperature": 0, **banned}


async def seconds_of(count: int, new: int, one: Callable[[], Awaitable[Answer]]) -> float:
    """Of so many requests at once, until the last one has ended."""
    began = time.perf_counter()
    answers = await asyncio.gather(*(one() for _ in range(count)))
    for answer in answers:
        assert answer.usage["completion_tokens"] == new, answer.usage
    return time.perf_counter() - began


async def seconds_of_one(one: Callable[[], Awaitable[Answer]]) -> float:
    """Of a request that has the server for itself, the middle of some."""
    return statistics.median([await seconds_of(1, NEW, one) for _ in range(SINGLES)])


def server(options: argparse.Namespace) -> Round:
    """A round of everything that clients see; see `Visit`."""
    port = serve_peers.start_ours(options.folder, SLOTS).port
    end = Path(options.folder, serve_peers.END_FILE).read_text()
    return lambda: asyncio.run(Visit(port, int(end)).all())


class Visit:
    """What clients measure of a server in one round.

    Args:
        end: Id that ends documents, which no answer may hold.
    """

    def __init__(self, port: int, end: int) -> None:
        self.port, self.end = port, end
        self.pauses: list[float] = []  # of the other streams, while `watched`
        self.watched = False
        self.streaming = 0  # of the other streams, those whose prompt has been computed

    async def all(self) -> dict[str, Any]:
        """The figures, in seconds."""
        found: dict[str, Any] = {
            "alone": [(await self.request(1)).first for _ in range(PROBES)],
            **await self.prefix(),
        }
        others = [asyncio.ensure_future(self.endless()) for _ in range(SLOTS - 1)]
        while self.streaming < SLOTS - 1:
            await asyncio.sleep(0.01)
        found["beside"] = [await self.probe() for _ in range(PROBES)]
        found["freed"] = [await self.vanish(PROMPT, 3) for _ in range(VANISHED)]
        found["freed"] += [await self.vanish(serve_peers.PREFIX, 0) for _ in range(VANISHED)]
        self.watched = True
        await self.request(1, serve_peers.PREFIX)
        self.watched = False
        found["gap"] = max(self.pauses)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.wait(0)
        # Last, because the engine's round, which begins with the same, comes next: a machine has phases.
        found["seconds"] = await seconds_of(SLOTS, NEW, self.request)
        found["one"] = await seconds_of_one(self.request)
        return found

    async def request(
        self, new: int = NEW, length: int = PROMPT, taken: Callable[[int], None] = lambda count: None
    ) -> Answer:
        """A new prompt, streamed."""
        return await ask(self.port, body(ids(length), new, self.end), taken)

    async def probe(self) -> float:
        """Seconds to the first token of a prompt that comes at any moment of a tick."""
        await asyncio.sleep(random.random() * 0.1)
        return (await self.request(1)).first

    async def endless(self) -> None:
        """One stream after another, whose longest pauses are noted."""
        last = 0.0

        def taken(count: int) -> None:
            nonlocal last
            now = time.perf_counter()
            self.streaming += last == 0
            if self.watched and count > 1:
                self.pauses.append(now - last)
            last = now

        while True:
            await self.request(OTHERS_NEW, PROMPT, taken)

    async def wait(self, running: int) -> None:
        """Until so many slots are taken."""
        while (await get(self.port, "/health/ready"))["running"] != running:
            await asyncio.sleep(0.01)

    async def vanish(self, length: int, tokens: int) -> float:
        """Seconds until a slot is free whose client has closed its connection.

        Args:
            length: Of its prompt.
            tokens: That it takes before; 0 leaves while the prompt is computed.
        """
        enough = asyncio.Event()

        def taken(count: int) -> None:
            if count >= tokens:
                enough.set()

        new = serve_peers.CONTEXT - length
        victim = asyncio.ensure_future(self.request(new, length, taken))
        await (enough.wait() if tokens else self.wait(SLOTS))
        await asyncio.sleep(random.random() * 0.05)
        victim.cancel()
        with suppress(asyncio.CancelledError):
            await victim
        began = time.perf_counter()
        await self.wait(SLOTS - 1)
        return time.perf_counter() - began

    async def prefix(self) -> dict[str, list[float]]:
        """Seconds to the first token of a scenario's answer, and of a text as long that nobody has seen."""
        hits, misses = [], []
        for number in range(PREFIXES):
            asked = {**body([], 1), "model": f"pangu/{serve_peers.SCENARIO}"}
            asked |= {"prompt": "".join(chr(0x4E00 + (7 * number + place) % 50) for place in range(6))}
            answer = await ask(self.port, asked)
            cached = answer.usage["prompt_tokens_details"]["cached_tokens"]
            assert cached >= serve_peers.PREFIX // 64 * 64, answer.usage
            hits.append(answer.first)
            misses.append((await self.request(1, answer.usage["prompt_tokens"])).first)
        return {"hit": hits, "miss": misses}


def fastapi(options: argparse.Namespace) -> Round:
    """A round: seconds of eight requests to the plain server."""
    port = serve_peers.start_fastapi(options.shape).port
    one = lambda: ask_whole(port, body(ids(PROMPT), NEW))  # noqa: E731
    return lambda: {"seconds": asyncio.run(seconds_of(SLOTS, NEW, one))}


def llama(options: argparse.Namespace) -> Round:
    """A round: seconds of one and of eight requests to llama.cpp's server."""
    serve_peers.save(options.folder, options.shape, "gguf")
    port = serve_peers.start_llama(options.llama, options.folder, SLOTS).port
    more = {"ignore_eos": True, "cache_prompt": False}
    one = lambda: ask(port, {**body(ids(PROMPT), NEW), **more})  # noqa: E731
    return lambda: {
        "one": asyncio.run(seconds_of_one(one)),
        "seconds": asyncio.run(seconds_of(SLOTS, NEW, one)),
    }


PROGRAMS = {"server": server, "engine": engine, "fastapi": fastapi, "llama": llama}


# What the rounds say.


def figures(programs: Sequence[Program]) -> dict[str, float]:
    """The ratios; those of times are above 1 where the server is slower."""
    rounds = {each.name: each.rounds for each in programs}
    numbers = {each.name: each.summary().quiet_rounds for each in programs}
    quiet = {name: [rounds[name][number] for number in numbers[name]] for name in rounds}

    def middle(name: str, figure: str) -> float:
        return statistics.median(each[figure] for each in quiet[name])

    def every(figure: str) -> list[float]:
        return [value for each in quiet["server"] for value in each[figure]]

    def faster(name: str, figure: str) -> float:
        """How many times as long another program took: of rounds that came one after the other."""
        both = sorted({*numbers[name]} & {*numbers["server"]}) or range(len(rounds[name]))
        return statistics.median(rounds[name][each][figure] / rounds["server"][each][figure] for each in both)

    tick = middle("engine", "chunk") + middle("engine", "step")
    alone = statistics.median(every("alone"))
    found = {
        "one_to_engine": faster("engine", "one"),
        "eight_to_engine": faster("engine", "seconds"),
        "first_token_p95_beside_7_to_alone": quantile_95(every("beside")) / alone,
        "gap_to_chunk_and_step": middle("server", "gap") / tick,
        "prefix_hit_to_miss": statistics.median(every("hit")) / statistics.median(every("miss")),
        "freed_to_chunk_and_step": statistics.median(max(each["freed"]) for each in quiet["server"]) / tick,
        "tokens_per_second_1": NEW / middle("server", "one"),
        "tokens_per_second_8": SLOTS * NEW / middle("server", "seconds"),
        "first_token_ms": alone * 1e3,
        "chunk_ms": middle("engine", "chunk") * 1e3,
        "step_ms": middle("engine", "step") * 1e3,
    }
    for name in set(OPTIONAL) & set(quiet):
        found[f"eight_to_{name}"] = faster(name, "seconds")
    if "llama" in quiet:
        found["one_to_llama"] = faster("llama", "one")
    return {name: round(value, 3) for name, value in found.items()}


def judged(found: dict[str, float]) -> list[str]:
    """A line for each ratio that has a target."""
    lines = []
    for name, (least, most) in TARGETS.items():
        if name in found:
            value = found[name]
            good = value >= least if least is not None else value <= most
            wanted = f"at least {least}" if least is not None else f"at most {most}"
            lines.append(f"{name}: {value:.3f}, {'as wanted' if good else 'MISSED'}: {wanted}")
    return lines


def measure(options: argparse.Namespace) -> list[Program]:
    """Runs the programs in turn."""
    words = ("--shape", options.shape, "--folder", options.folder, "--llama", options.llama or "")
    programs = start_all(__file__, options.programs, OPTIONAL, options.threads, *words)
    for number in range(options.rounds):
        for each in programs:
            each.round()
            line = ", ".join(f"{key} {shown(value)}" for key, value in each.rounds[-1].items())
            print(f"round {number + 1}: {each.name}: {line}", flush=True)
    for each in programs:
        each.close()
    return programs


def shown(value: float | list[float]) -> str:
    """A figure of a round; of a list, its median and its largest."""
    if isinstance(value, list):
        return f"{statistics.median(value):.4g} (at most {max(value):.4g})"
    return f"{value:.4g}"


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """The options, which a worker gets as well."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", default="350m", help="model of the zoo whose layers and widths all have")
    parser.add_argument("--without", default="", help="peers to leave out, with commas: fastapi,llama")
    parser.add_argument("--llama", help="path of llama.cpp's llama-server")
    parser.add_argument("--threads", type=int, default=machine.usable_cores())
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    left_out = {*options.without.split(","), *([] if options.llama else ["llama"])}
    options.programs = [name for name in PROGRAMS if name not in left_out & {*OPTIONAL}]
    return options


def main() -> None:
    """Runs the programs and prints their figures."""
    if sys.argv[1:2] == ["--worker"]:
        return serve(PROGRAMS[sys.argv[2]], parsed(sys.argv[3:]))
    options = parsed(sys.argv[1:])
    found: dict[str, Any] = {"metric": "serve_speed", **machine.this_machine(options.threads)}
    with tempfile.TemporaryDirectory(prefix="serve_speed_") as folder:
        options.folder = folder
        serve_peers.save(folder, options.shape, "checkpoint")
        programs = measure(options)
    found |= figures(programs)
    summaries = {each.name: each.summary() for each in programs}
    report(summaries)
    print("\n".join(judged(found)))
    print(json.dumps({**found, **verdict(summaries), "rounds": options.rounds, "shape": options.shape}))


if __name__ == "__main__":
    main()
