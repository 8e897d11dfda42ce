"""What one engine in a fixed set of rows is worth: requests beside each other, admission, pauses and draws.

The shape is the 350M's of decode_speed.py: float32, random weights. The parts:

concurrent: tokens/s of 8 and of 16 requests against one, at a context of 256, greedy.
mixed: 64 requests of mixed lengths, against static batching in groups of 8 as Generator did it before, with
    its draws by sorting (static_batching.py). Both use the same step.
admission: a prompt of 64 ids fed to one row, against a pass over all 8 rows, once the only way to admit one.
draw: milliseconds to choose one of 40,000 tokens by top_p 0.9, beside those of sorting them all.
gap: the longest pause of a running row while a prompt of 900 ids is fed, in chunks and steps at that length.
generate: 8 requests of 64 ids and as many new ones, against `generate` of Hugging Face's transformers with
    GPT-2 of the same shape: one batch, greedy.

Both sides of a ratio take turns in one process, or in two of which one is stopped; medians of the rounds that
nothing disturbed are compared (rounds.py). `generate` needs torch and transformers. The last line is JSON:
the processor, the ratios, and whether the run was quiet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import machine
import numpy as np
from decode_speed import gpt2, shape
from programs import Program, Round, serve, start_all
from rounds import Summary, report, verdict

ROWS, PROMPT, CONTEXT, TICKS = 8, 64, 256, 16
COUNTS = (1, 8, 16)  # requests beside each other
PROMPTS, ANSWERS, REQUESTS = (16, 512), (8, 256), 64
LONG, LONG_CONTEXT = 900, 1024
DRAWS = 200
PARTS = ("concurrent", "mixed", "admission", "draw", "gap", "generate")


def network() -> Any:
    """The model, and the id that ends documents, which no prompt holds."""
    from pangu_alpha.parallel.context import use_device

    use_device("CPU")
    from pangu_alpha.model.operators import operators_for
    from pangu_alpha.model.pangu import PanguAlpha

    config = shape()
    model = PanguAlpha(config, operators=operators_for(config, decoding=True)).set_train(False)
    return model, config.vocab_size - 1


def ids(length: int, seed: int = 0) -> tuple[int, ...]:
    """A prompt."""
    return tuple(np.random.default_rng(seed).integers(100, 30000, length).tolist())


class Rows:
    """An engine whose caches are in the model only while it is used.

    Args:
        greedy: Whether requests choose the likeliest id; else by top_p 0.9.
    """

    def __init__(self, model: Any, end: int, rows: int, context: int, greedy: bool = True) -> None:
        from pangu_alpha.config.generate import SamplingConfig
        from pangu_alpha.inference.decoder import Decoder
        from pangu_alpha.inference.engine.scheduler import Engine

        self.decoder = Decoder(model, end, rows, context)
        self.decoder.warm_up()  # as the server does
        self.engine = Engine(self.decoder, {end}, {end})
        self.sampling = SamplingConfig(greedy=True) if greedy else SamplingConfig(top_p=0.9)
        self.decoder.close()

    def __enter__(self) -> Rows:
        self.decoder.caches.attach()
        return self

    def __exit__(self, *_: Any) -> None:
        self.decoder.close()

    def submit(self, prompt: Sequence[int], new: int) -> int:
        """A request that nothing cached serves, because its key is its own."""
        from pangu_alpha.inference.engine.requests import Request

        key = str(self.engine.counts.submitted)
        return self.engine.submit(Request(tuple(prompt), self.sampling, new, key=key))

    def finish(self) -> int:
        """Ticks until nothing is left; number of new tokens."""
        before = self.engine.counts.generated
        while self.engine.busy:
            self.engine.tick()
        return self.engine.counts.generated - before


def seconds(work: Callable[[], Any]) -> float:
    """Of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def concurrent(divide: int) -> Round:
    """A round: tokens/s by number of requests; seconds of a token of one request beside 7 others."""
    model, end = network()
    engines = {count: Rows(model, end, count, CONTEXT) for count in COUNTS}

    def run() -> dict[str, float]:
        found = {}
        for count, rows in engines.items():
            with rows:
                fed = rows.engine.counts.feeds + count
                for seed in range(count):
                    rows.submit(ids(PROMPT, seed), TICKS + count + 8)
                while rows.engine.counts.feeds < fed:
                    rows.engine.tick()
                for _ in range(2):
                    rows.engine.tick()  # steps of all rows from here on
                took = seconds(lambda rows=rows: [rows.engine.tick() for _ in range(TICKS)])
                found[f"tokens_{count}"] = count * TICKS / took
                rows.finish()
        return {**found, "seconds": ROWS / found[f"tokens_{ROWS}"]}

    return run


def static_batching(model: Any, context: int) -> Any:
    """What the engine is compared with, compiled for prompts of up to 64 ids."""
    from static_batching import StaticBatching

    static = StaticBatching(model, ROWS, context, by_sorting)
    static.generate([((1, 2), 3)])
    return static


def by_sorting(logits: np.ndarray, top_p: float = 0.9) -> int:
    """A token drawn by the plain definition: all are sorted."""
    order = np.argsort(-logits, kind="stable")
    powers = np.exp((logits[order] - logits[order[0]]).astype(np.float64))
    sums = np.cumsum(powers / powers.sum())
    kept = int(np.searchsorted(sums, top_p))
    return int(order[np.searchsorted(sums[: kept + 1], np.random.random() * sums[kept])])


def mixed_requests(divide: int) -> list[tuple[tuple[int, ...], int]]:
    """(prompt, number of new ids) of all requests, all lengths divided by a number."""
    random = np.random.default_rng(0)
    draws = zip(random.integers(*PROMPTS, REQUESTS), random.integers(*ANSWERS, REQUESTS), strict=True)
    return [
        (ids(max(1, int(prompt) // divide), number), max(1, int(new) // divide))
        for number, (prompt, new) in enumerate(draws)
    ]


def mixed(divide: int) -> Round:
    """A round: seconds of all requests by the engine and by static batching."""
    model, end = network()
    context = (PROMPTS[1] + ANSWERS[1]) // divide
    requests = mixed_requests(divide)
    rows = Rows(model, end, ROWS, context, greedy=False)
    static = static_batching(model, context)
    for bucket in {static.bucket(len(prompt)) for prompt, _ in requests}:
        static.prefill([ids(bucket)])
    static.caches.detach()

    def by_engine() -> None:
        for prompt, new in requests:
            rows.submit(prompt, new)
        assert rows.finish() == sum(new for _, new in requests)

    warm = False

    def run() -> dict[str, float]:
        nonlocal warm
        if not warm:  # everything is compiled; a round takes minutes
            warm = True
            return {"seconds": 0.0}
        with rows:
            ours = seconds(by_engine)
        static.caches.attach()
        theirs = seconds(lambda: static.generate(requests))
        static.caches.detach()
        return {"seconds": ours, "static": theirs}

    return run


def admission(divide: int) -> Round:
    """A round: seconds to admit one prompt by a chunk of one row, and by a pass over all rows."""
    model, end = network()
    rows, static = Rows(model, end, ROWS, CONTEXT), static_batching(model, CONTEXT)
    prompt = ids(PROMPT)
    static.caches.detach()

    def run() -> dict[str, float]:
        with rows:
            ours = statistics.median(seconds(lambda: rows.decoder.feed(5, prompt, 0)) for _ in range(5))
        static.caches.attach()
        theirs = statistics.median(seconds(lambda: static.prefill([prompt])) for _ in range(3))
        static.caches.detach()
        return {"seconds": ours, "whole": theirs}

    return run


def draw(divide: int) -> Round:
    """A round: seconds of a draw by top_p, and by a sort of the whole vocabulary."""
    from pangu_alpha.config.generate import SamplingConfig
    from pangu_alpha.inference.sampling import Sampler

    size = shape().vocab_size
    # The logits of a trained network: most of the mass on some dozens of ids.
    logits = (np.random.default_rng(0).standard_normal((DRAWS, size)) * 2.5).astype(np.float32)
    config = SamplingConfig(top_p=0.9)
    sampler = Sampler(config, (1, 2, 3), np.zeros(size, bool))

    def run() -> dict[str, float]:
        ours = seconds(lambda: [sampler(line) for line in logits]) / DRAWS
        return {"seconds": ours, "sort": seconds(lambda: [by_sorting(line) for line in logits]) / DRAWS}

    return run


def gap(divide: int) -> Round:
    """A round: seconds of the longest pause, of a chunk, and of a step, while a long prompt is fed."""
    model, end = network()
    rows = Rows(model, end, ROWS, LONG_CONTEXT)
    engine, decoder = rows.engine, rows.decoder

    def run() -> dict[str, float]:
        with rows:
            rows.submit(ids(PROMPT), 40)
            for _ in range(4):
                engine.tick()
            rows.submit(ids(LONG, 1), 1)
            pauses = []
            while engine.running + engine.waiting > 1:
                pauses.append(seconds(engine.tick))
            rows.finish()
            active = [True] + [False] * (ROWS - 1)
            decoder.feed(0, ids(PROMPT), 0)
            steps = [seconds(lambda: decoder.step([5] * ROWS, active)) for _ in range(8)]
            chunks = [
                seconds(lambda start=start: decoder.feed(1, ids(64), start)) for start in range(0, 896, 64)
            ]
        # The last chunks attend to the most keys.
        alone = statistics.median(steps) + max(chunks[-3:])
        return {"seconds": max(pauses), "alone": alone}

    return run


def generate(divide: int) -> Round:
    """A round: seconds of 8 requests by the engine."""
    model, end = network()
    rows = Rows(model, end, ROWS, 2 * PROMPT)

    def run() -> dict[str, float]:
        with rows:
            for seed in range(ROWS):
                rows.submit(ids(PROMPT, seed), PROMPT)
            return {"seconds": seconds(rows.finish)}

    return run


def transformers_generate(divide: int) -> Round:
    """A round: seconds of the same requests by GPT-2's generate."""
    import torch

    model, _ = gpt2()
    prompts = torch.tensor([ids(PROMPT, seed) for seed in range(ROWS)])
    words = {"max_new_tokens": PROMPT, "min_new_tokens": PROMPT, "do_sample": False, "pad_token_id": 0}

    def run() -> dict[str, float]:
        with torch.inference_mode():
            return {"seconds": seconds(lambda: model.generate(prompts, **words))}

    return run


PROGRAMS: dict[str, Callable[[int], Round]] = {
    "concurrent": concurrent,
    "mixed": mixed,
    "admission": admission,
    "draw": draw,
    "gap": gap,
    "generate": generate,
    "transformers": transformers_generate,
}


def middle(program: Program, work: Callable[[dict[str, float]], float]) -> float:
    """Median over a program's quiet rounds of a figure of each."""
    return round(statistics.median(work(program.rounds[n]) for n in program.summary().quiet_rounds), 3)


def figures(part: str, programs: list[Program]) -> dict[str, float]:
    """What the rounds of a part say; ratios above 1 mean that the engine is faster, except for the gap."""
    one = programs[0]
    if part == "concurrent":
        ratios = {
            f"tokens_{count}_to_1": middle(one, lambda r, n=count: r[f"tokens_{n}"] / r["tokens_1"])
            for count in COUNTS[1:]
        }
        return ratios | {
            f"tokens_per_second_{count}": middle(one, lambda r, n=count: r[f"tokens_{n}"]) for count in COUNTS
        }
    if part == "mixed":
        return {"mixed_to_static": middle(one, lambda r: r["static"] / r["seconds"])}
    if part == "admission":
        return {"admission_to_prefill": middle(one, lambda r: r["whole"] / r["seconds"])}
    if part == "draw":
        return {
            "draw_ms": middle(one, lambda r: r["seconds"] * 1e3),
            "sort_ms": middle(one, lambda r: r["sort"] * 1e3),
        }
    if part == "gap":
        return {"gap_to_chunk_and_step": middle(one, lambda r: r["seconds"] / r["alone"])}
    typical = {each.name: each.summary().median for each in programs}
    return {"generate_to_transformers": round(typical["transformers"] / typical["generate"], 3)}


def measure(part: str, options: argparse.Namespace) -> tuple[dict[str, float], dict[str, Summary]]:
    """Runs a part; its figures, and its rounds by program."""
    names = [part, "transformers"] if part == "generate" else [part]
    programs = start_all(__file__, names, (), options.threads, str(options.divide))
    for number in range(options.rounds):
        for each in programs:
            each.round()
        last = "; ".join(
            f"{each.name}: " + ", ".join(f"{name} {value:.4g}" for name, value in each.rounds[-1].items())
            for each in programs
        )
        print(f"round {number + 1}: {last}", flush=True)
    for each in programs:
        each.close()
    return figures(part, programs), {each.name: each.summary() for each in programs}


def main() -> None:
    """Runs the parts one after another and prints their figures."""
    if sys.argv[1:2] == ["--worker"]:
        return serve(PROGRAMS[sys.argv[2]], int(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them, with commas between")
    parser.add_argument("--threads", type=int, default=machine.usable_cores())
    parser.add_argument("--divide", type=int, default=1, help="lengths of the part `mixed` by this number")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"--parts: {', '.join(unknown)}: no such part; choose from {', '.join(PARTS)}")
    found: dict[str, Any] = {"metric": "engine_speed", **machine.this_machine(options.threads)}
    rounds: dict[str, Summary] = {}
    for part in parts:
        measured, summaries = measure(part, options)
        found |= measured
        rounds |= summaries
    report(rounds)
    print(json.dumps({**found, **verdict(rounds), "rounds": options.rounds, "divide": options.divide}))


if __name__ == "__main__":
    main()
