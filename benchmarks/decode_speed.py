"""Tokens per second of cached decoding against Hugging Face's GPT-2 of the same shape, and against memory.

The shape is the 350M's: 24 layers (here the query layer is one of them), hidden size 1024, 16 heads, 40,000
ids; batch 1, float32, random weights, greedy. Each program is a process of its own, stopped while another one
runs; rounds alternate and medians of the rounds that nothing disturbed are compared (rounds.py). GPT-2 runs
in torch with `use_cache` and sdpa by the plainest loop there is (no `generate`, which would add its own
time); ours by the public Generator, sampling included. The second peer is GPT-2 by torch.compile with a
static cache, where that runs.

The limit is the time in which the same number of threads can read what a token needs: every weight, but of
the position tables a row, and the keys and values of the tokens before it (work.py), at the best rate of
reading that any method reached (machine.py). Each round is compared with the measurements before and after
it, because the memory of a shared machine is not always equally fast; share_of_best_limit takes the best one
of the whole run. A program faster than that ends the benchmark with an error.

The limit is the best of many short reads, and a token's time the mean of many: where the rate of reading
varies from one hundredth of a second to the next, no program reaches the limit. So the reader is a program as
well, which reads the same number of bytes as often as there are tokens, in the way that is fastest here. Its
own share_of_limit says what can be reached, and share_of_reader compares the others with it round by round.

--profile says instead where a token's time goes. host: everything outside the decoder's step, sampling
included. launches: what a step takes for a network of as many layers but with almost no numbers. kernels:
the rest.

Needs torch and transformers. The last line is JSON: the processor, tokens/s, ratios and shares of the limit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import machine
import work
from programs import Program, Round, serve, start_all
from rounds import compare_with_limit, median_ratio, report, summarize, verdict

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.network.parameters import parameter_shapes

PROMPT_LENGTH = 64
TABLES = ("position_embedding.table", "query_embedding.table")
LIMIT_EVERY = 1  # rounds between two measurements of the limit
WARM_UP = 5  # reads in each way, of which the reader takes the fastest
SMALL_HIDDEN, SMALL_VOCABULARY = 64, 1000  # of the network that measures launches


def shape(small: bool = False) -> ModelConfig:
    """The 350M, or as many layers with almost no numbers."""
    config = load_model_config("350m")
    if small:
        config = dataclasses.replace(config, hidden_size=SMALL_HIDDEN, vocab_size=SMALL_VOCABULARY)
    return config


def make_ours(new_tokens: int, small: bool = False, timed: bool = False) -> Round:
    """A round of ours: seconds a token, and with `timed` those of them in the decoder's steps.

    Args:
        small: A network of as many layers with almost no numbers.
    """
    from pangu_alpha.parallel.context import use_device

    use_device("CPU")
    from pangu_alpha.config.generate import SamplingConfig
    from pangu_alpha.inference.generate import Generator
    from pangu_alpha.model.operators import operators_for
    from pangu_alpha.model.pangu import PanguAlpha

    config = shape(small)
    end = config.vocab_size - 1  # an id the prompt does not hold
    model = PanguAlpha(config, operators=operators_for(config, decoding=True)).set_train(False)
    generator = Generator(model, end, context=PROMPT_LENGTH + new_tokens)
    step = Timed(generator.decoder.step)
    if timed:
        generator.decoder.step = step
    sampling = SamplingConfig(greedy=True, max_new_tokens=new_tokens)
    prompt = list(range(100, 100 + PROMPT_LENGTH))

    def run() -> dict[str, float]:
        tokens = generator.stream([prompt], sampling)
        next(tokens)  # the prompt's own pass gives the first token
        before, start = step.seconds, time.perf_counter()
        count = sum(event.token is not None for event in tokens)
        assert count == new_tokens - 1, count
        seconds = time.perf_counter() - start
        return {"seconds": seconds / count, "step": (step.seconds - before) / count}

    return run


class Timed:
    """A step of the decoder, and the seconds that all steps took."""

    def __init__(self, step: Callable[..., Any]) -> None:
        self.step = step
        self.seconds = 0.0

    def __call__(self, *inputs: Any) -> Any:
        began = time.perf_counter()
        logits = self.step(*inputs)
        self.seconds += time.perf_counter() - began
        return logits


def gpt2() -> tuple[Any, Any]:
    """Hugging Face's GPT-2 of the shape, and its config."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    config = GPT2Config(n_layer=24, n_embd=1024, n_head=16, vocab_size=40000, attn_implementation="sdpa")
    return GPT2LMHeadModel(config).eval(), config


def make_gpt2(new_tokens: int) -> Round:
    """A round of GPT-2 in eager mode, with the cache that it makes itself: seconds a token."""
    import torch

    model, _ = gpt2()
    prompt = torch.arange(100, 100 + PROMPT_LENGTH)[None]

    @torch.inference_mode()
    def run() -> dict[str, float]:
        output = model(prompt, use_cache=True)
        token = output.logits[:, -1:].argmax(-1)
        start = time.perf_counter()
        for _ in range(new_tokens - 1):
            output = model(token, past_key_values=output.past_key_values, use_cache=True)
            token = output.logits[:, -1:].argmax(-1)
        return {"seconds": (time.perf_counter() - start) / (new_tokens - 1)}

    return run


def make_compiled_gpt2(new_tokens: int) -> Round:
    """A round of GPT-2 by torch.compile, with a cache of fixed size: seconds a token."""
    import torch
    from transformers import StaticCache

    model, config = gpt2()
    step = torch.compile(model, dynamic=False)
    prompt, places = torch.arange(100, 100 + PROMPT_LENGTH)[None], torch.arange(PROMPT_LENGTH + new_tokens)

    @torch.inference_mode()
    def run() -> dict[str, float]:
        cache = StaticCache(config=config, max_cache_len=PROMPT_LENGTH + new_tokens)
        shared = {"past_key_values": cache, "use_cache": True}
        output = model(prompt, cache_position=places[:PROMPT_LENGTH], **shared)
        token = output.logits[:, -1:].argmax(-1)
        start = time.perf_counter()
        for place in range(PROMPT_LENGTH, PROMPT_LENGTH + new_tokens - 1):
            output = step(token, cache_position=places[place : place + 1], **shared)
            token = output.logits[:, -1:].argmax(-1)
        return {"seconds": (time.perf_counter() - start) / (new_tokens - 1)}

    return run


def make_reader(new_tokens: int) -> Round:
    """A round of reading as many bytes as a token needs, for every token: seconds a token."""
    reader = machine.Reader(int(bytes_a_token(new_tokens)))
    times = {way: [reader.seconds(way) for _ in range(WARM_UP)] for way in reader.WAYS}
    fastest = min(times, key=lambda way: statistics.median(times[way]))

    def run() -> dict[str, float]:
        return {"seconds": statistics.mean(reader.seconds(fastest) for _ in range(new_tokens - 1))}

    return run


PROGRAMS = {
    "ours": make_ours,
    "reader": make_reader,
    "gpt2": make_gpt2,
    "gpt2_compile": make_compiled_gpt2,
    "timed": partial(make_ours, timed=True),
    "small": partial(make_ours, timed=True, small=True),
}
COMPARED, PROFILED = ("ours", "reader", "gpt2", "gpt2_compile"), ("timed", "small")
READER, COMPILED = "reader", "gpt2_compile"
OPTIONAL = (READER, COMPILED)


def bytes_a_token(new_tokens: int) -> float:
    """Bytes of weights, keys and values that a token reads, on average."""
    config = shape()
    cache = work.cache_bytes(config.num_layers, config.hidden_size, PROMPT_LENGTH, new_tokens)
    return work.weight_bytes(parameter_shapes(config), TABLES) + cache


def measure(programs: list[Program], rounds: int, limits: machine.Limits | None = None) -> None:
    """Rounds in turn, with the limit before, between and after them."""
    for number in range(rounds):
        if limits and number % LIMIT_EVERY == 0:
            limits.round()
        words = [f"{program.name} {program.round()['seconds'] * 1e3:.1f}" for program in programs]
        print(f"round {number + 1}: ms a token: {', '.join(words)}", flush=True)
    if limits:
        limits.round()
        limits.close()
    for each in programs:
        each.close()


def compared(options: argparse.Namespace) -> dict[str, Any]:
    """Runs ours and the peers beside the machine's limit; fields of the JSON line.

    Raises:
        ValueError: A program was faster than the limit.
    """
    needed = bytes_a_token(options.new_tokens)
    names = [name for name in COMPARED if not (options.no_compile and name == COMPILED)]
    programs = start_all(__file__, names, OPTIONAL, options.threads, str(options.new_tokens))
    limits = machine.Limits(machine.READS, options.threads, int(needed))
    measure(programs, options.rounds, limits)
    limits.report()
    found = {program.name: program.summary() for program in programs}
    limit = compare_with_limit([needed / rate for rate in limits.rates()], LIMIT_EVERY, found)
    report(found, limit)
    typical = {name: summary.median for name, summary in found.items()}
    peers = [name for name in found if name not in ("ours", READER)]
    shares = {name: median_ratio(found[READER], found[name]) for name in found if READER in found}
    return {
        "ratio": round(typical["gpt2"] / typical["ours"], 3),
        **{f"ratio_to_{name}": round(typical[name] / typical["ours"], 3) for name in peers[1:]},
        "tokens_per_second": round(1 / typical["ours"], 3),
        **{f"{name}_tokens_per_second": round(1 / typical[name], 3) for name in peers},
        "share_of_reader": {name: share and round(share, 3) for name, share in shares.items()},
        **verdict(found, limit),
        "best_read_gb_per_second": round(max(limits.rates()) / 1e9, 1),
        "megabytes_a_token": round(needed / 1e6, 1),
    }


def profiled(options: argparse.Namespace) -> dict[str, Any]:
    """Splits the time of ours; fields of the JSON line, ms a token."""
    programs = start_all(__file__, PROFILED, (), options.threads, str(options.new_tokens))
    measure(programs, options.rounds)
    found = {program.name: program.summary() for program in programs}
    report(found)
    step = {each.name: summarize([one["step"] for one in each.rounds]).median for each in programs}
    parts = {
        "kernels": step["timed"] - step["small"],
        "launches": step["small"],
        "host": found["timed"].median - step["timed"],
    }
    total = found["timed"].median
    for name, seconds in parts.items():
        print(f"{name}: {seconds * 1e3:.2f} ms, {seconds / total:.1%} of a token")
    return {**{name: round(each * 1e3, 3) for name, each in parts.items()}, **verdict(found)}


def main() -> None:
    """Runs the programs in turn and prints their figures."""
    if sys.argv[1:2] == ["--worker"]:
        return serve(PROGRAMS[sys.argv[2]], int(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=machine.usable_cores())
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--profile", action="store_true", help="say where a token's time goes; no peers")
    options = parser.parse_args()
    found = {"metric": "decode_profile" if options.profile else "decode_speed"}
    found |= machine.this_machine(options.threads)
    try:
        found |= profiled(options) if options.profile else compared(options)
    except ValueError as error:
        raise SystemExit(f"decode_speed: {error}") from None
    print(json.dumps({**found, "rounds": options.rounds}))


if __name__ == "__main__":
    main()
