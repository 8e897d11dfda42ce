"""Tokens per second of cached decoding against Hugging Face's GPT-2 of the same shape, and against memory.

The shape is the 350M's: 24 layers (here the query layer is one of them), hidden size 1024, 16 heads, 40,000
ids; batch 1, float32, random weights, greedy. Each program is a process of its own, stopped while another one
runs; rounds alternate and medians are compared. GPT-2 runs in torch with `use_cache` and sdpa by the plainest
loop there is (no `generate`, which would add its own time); ours by the public Generator, sampling included.

The floor is the time in which the same number of threads can read the weights once: a token needs every
weight but those of the position tables. It is measured by summing an array of that many bytes in memory, one
part a thread. Rows of the cache come on top and are not in the floor.

Needs torch and transformers. The last line is JSON: tokens/s of both, their ratio, of_floor = floor / ours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time

from programs import Program, Round, serve

PROMPT_LENGTH = 64


def make_ours(new_tokens: int) -> Round:
    """A round of ours: seconds a token."""
    from pangu_alpha.parallel.context import use_device

    use_device("CPU")
    from pangu_alpha.config.generate import SamplingConfig
    from pangu_alpha.config.zoo import load_model_config
    from pangu_alpha.inference.generate import Generator
    from pangu_alpha.model.operators import operators_for
    from pangu_alpha.model.pangu import PanguAlpha

    config = load_model_config("350m")
    end = config.vocab_size - 1  # an id the prompt does not hold
    model = PanguAlpha(config, operators=operators_for(config, decoding=True)).set_train(False)
    generator = Generator(model, end, context=PROMPT_LENGTH + new_tokens)
    sampling = SamplingConfig(greedy=True, max_new_tokens=new_tokens)
    prompt = list(range(100, 100 + PROMPT_LENGTH))

    def run() -> dict[str, float]:
        tokens = generator.stream([prompt], sampling)
        next(tokens)  # the prompt's own pass gives the first token
        start = time.perf_counter()
        count = sum(event.token is not None for event in tokens)
        assert count == new_tokens - 1, count
        return {"seconds": (time.perf_counter() - start) / count}

    return run


def make_gpt2(new_tokens: int) -> Round:
    """A round of Hugging Face's GPT-2: seconds a token."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    shape = GPT2Config(n_layer=24, n_embd=1024, n_head=16, vocab_size=40000, attn_implementation="sdpa")
    model = GPT2LMHeadModel(shape).eval()
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


def make_floor(new_tokens: int) -> Round:
    """A round of reading: seconds for the bytes of all weights that a token needs."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from pangu_alpha.config.zoo import load_model_config

    config = load_model_config("350m")
    size = config.parameter_count - 2 * config.seq_length * config.hidden_size
    threads = int(os.environ["OMP_NUM_THREADS"])
    parts = np.array_split(np.ones(size, np.float32), threads)
    pool = ThreadPoolExecutor(threads)

    def run() -> dict[str, float]:
        times = []
        for _ in range(new_tokens // 2):
            start = time.perf_counter()
            list(pool.map(np.sum, parts))  # numpy lets go of the interpreter lock
            times.append(time.perf_counter() - start)
        return {"seconds": statistics.median(times)}

    return run


PROGRAMS = {"ours": make_ours, "gpt2": make_gpt2, "floor": make_floor}


def main() -> None:
    """Runs the three programs in turn and prints their figures."""
    if sys.argv[1:2] == ["--worker"]:
        return serve(PROGRAMS[sys.argv[2]], int(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    programs = [Program(__file__, name, options.threads, str(options.new_tokens)) for name in PROGRAMS]
    for number in range(options.rounds):
        words = [f"{program.name} {program.round()['seconds'] * 1e3:.1f}" for program in programs]
        print(f"round {number + 1}: ms a token: {', '.join(words)}", flush=True)
    for program in programs:
        program.close()
    ours, gpt2, floor = (statistics.median(r["seconds"] for r in program.rounds) for program in programs)
    figures = {
        "ratio": gpt2 / ours,
        "of_floor": floor / ours,
        "tokens_per_second": 1 / ours,
        "gpt2_tokens_per_second": 1 / gpt2,
        "floor_milliseconds": floor * 1e3,
    }
    rounded = {key: round(value, 3) for key, value in figures.items()}
    print(json.dumps({"metric": "decode_speed", **rounded, "rounds": options.rounds}))


if __name__ == "__main__":
    main()
