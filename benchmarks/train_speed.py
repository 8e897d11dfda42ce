"""Training tokens per second against the same network in PyTorch eager, on the same threads.

6 layers of which the last is the query layer, H 512, 8 heads, V 8000, B 4, S 256, float32, one document a
row, dropout off, AdamW with decay groups and a global-norm clip in both. PyTorch uses its fused causal
attention and fused AdamW; ours is the step of train.py, with the document mask it always has. The second
peer is the same by torch.compile, where that runs. Rounds of one step alternate between the processes;
medians of the rounds that nothing disturbed are compared (rounds.py).

Between the rounds, the best float32 product of MindSpore, torch and numpy is measured on the same threads
(machine.py). share_of_limit is the time in which the step's matrix products (work.py) could be done at that
speed, over the step's time. 1 would mean that everything else took no time at all. Each round is compared
with the measurements before and after it; share_of_best_limit takes the best one of the whole run.

--medium adds both again with products of factors rounded to bfloat16: ours with
run.float32_matmul_precision=medium, and torch with the same word. They have no limit here, because that one
is of float32 products; products_medium is the fastest of the step's products alone.

Needs torch. The last line is JSON: the processor, tokens/s of ours and of torch, their ratio, the ratio of
peak memories, and the shares.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from functools import partial
from typing import Any

import machine
import numpy as np
import work
from programs import Program, Round, peak_memory, serve, start_all
from rounds import Limit, Summary, compare_with_limit, report, verdict

LAYERS, HIDDEN, HEADS, VOCABULARY, ROWS, LENGTH = 6, 512, 8, 8000, 4, 256
TOKENS = ROWS * LENGTH
COLUMNS = (HIDDEN, 3 * HIDDEN, 4 * HIDDEN, VOCABULARY)  # outputs of the linear layers, query-key-value fused
PRODUCTS = (  # of the step: forward, gradient of the input, gradient of the weight
    *((TOKENS, HIDDEN, columns) for columns in COLUMNS),
    *((TOKENS, columns, HIDDEN) for columns in COLUMNS[1:]),
    *((columns, TOKENS, HIDDEN) for columns in COLUMNS),
)
LIMIT_EVERY = 3  # rounds between two measurements of the limit


def windows(step: int) -> np.ndarray:
    """Random ids, int32 [ROWS, LENGTH + 1], none of which ends a document."""
    return np.random.default_rng(step).integers(10, VOCABULARY, (ROWS, LENGTH + 1)).astype(np.int32)


def make_ours(precision: str = "highest") -> Round:
    """A step of the project's engine."""
    from pangu_alpha.parallel.context import use_device

    use_device("CPU")
    from pangu_alpha.config.run import build_train_config
    from pangu_alpha.data.manifest import Vocabulary
    from pangu_alpha.data.windows import make_batch
    from pangu_alpha.training.engine import Engine
    from pangu_alpha.training.guard import make_guard

    model = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_layers": LAYERS, "num_heads": HEADS}
    config = build_train_config(
        {
            "model": {**model, "seq_length": LENGTH, "dropout": 0.0},
            "data": {"train": {"random": {"records": "none"}}},
            "run": {
                "output": "none",
                "steps": 1000,
                "batch_size": ROWS,
                "float32_matmul_precision": precision,
            },
        }
    )
    engine = Engine(config)
    engine.initialize()
    guard = make_guard(config.run.guard, config.optim.loss_scale, "float32")
    vocabulary = Vocabulary("", VOCABULARY, "<eod>", 8, 6)
    steps = iter(range(1, 10**6))

    def run() -> dict[str, float]:
        step = next(steps)
        batch = make_batch(windows(step), np.zeros(ROWS), vocabulary)
        began = time.perf_counter()
        result = engine.step(step, [batch], guard)
        return {"seconds": time.perf_counter() - began, "loss": result.loss, "memory": peak_memory()}

    return run


def torch_network() -> Any:
    """The same network in PyTorch: (ids, places, labels) -> mean loss."""
    import torch
    from torch import nn
    from torch.nn import functional

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.view(ROWS, LENGTH, HEADS, HIDDEN // HEADS).transpose(1, 2)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
            self.query, self.key = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
            self.value, self.output = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
            self.up, self.down = nn.Linear(HIDDEN, 4 * HIDDEN), nn.Linear(4 * HIDDEN, HIDDEN)

        def forward(self, x: torch.Tensor, query: torch.Tensor | None = None) -> torch.Tensor:
            a = self.norm1(x)
            q = heads(self.query(a if query is None else query))
            o = functional.scaled_dot_product_attention(
                q, heads(self.key(a)), heads(self.value(a)), is_causal=True
            )
            x = x + self.output(o.transpose(1, 2).reshape(ROWS, LENGTH, HIDDEN))
            return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(VOCABULARY, HIDDEN)
            self.places, self.queries = nn.Embedding(LENGTH, HIDDEN), nn.Embedding(LENGTH, HIDDEN)
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.norm = nn.LayerNorm(HIDDEN)

        def forward(self, ids: torch.Tensor, places: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            x = self.words(ids) + self.places(places)
            for block in self.blocks[:-1]:
                x = block(x)
            x = self.blocks[-1](self.norm(x), self.queries(places))
            logits = functional.linear(x, self.words.weight)
            return functional.cross_entropy(logits.view(-1, VOCABULARY), labels.reshape(-1))

    return Network()


def make_products() -> Round:
    """The step's products alone in medium precision; "gflops" is the speed of the fastest."""
    from pangu_alpha.parallel.context import use_device

    use_device("CPU")
    from mindspore import Tensor

    from pangu_alpha.model.operators.native.training import linear

    product = linear("medium")
    operands = [[Tensor(each) for each in machine.operands(shape)] for shape in PRODUCTS]

    def run() -> dict[str, float]:
        began, rates = time.perf_counter(), []
        for (rows, inner, columns), (x, weight) in zip(PRODUCTS, operands, strict=True):
            seconds = machine.fastest(lambda x=x, weight=weight: product(x, weight).asnumpy())
            rates.append(2e-9 * rows * inner * columns / seconds)
        return {"seconds": time.perf_counter() - began, "gflops": max(rates)}

    return run


def make_torch(compiled: bool = False, precision: str = "highest") -> Round:
    """A step of the same network in PyTorch, eager or by torch.compile."""
    import torch
    from torch import nn

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_float32_matmul_precision(precision)
    network = torch_network()
    for parameter in network.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.02)
    matrices = [p for p in network.parameters() if p.dim() == 2]
    vectors = [p for p in network.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    forward = torch.compile(network) if compiled else network
    places = torch.arange(LENGTH).repeat(ROWS, 1)
    steps = iter(range(1, 10**6))

    def run() -> dict[str, float]:
        ids = torch.from_numpy(windows(next(steps)).astype(np.int64))
        began = time.perf_counter()
        loss = forward(ids[:, :-1], places, ids[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        return {"seconds": time.perf_counter() - began, "loss": value, "memory": peak_memory()}

    return run


PROGRAMS = {"ours": make_ours, "torch": make_torch, "torch_compile": partial(make_torch, compiled=True)}
MEDIUM = {
    "ours_medium": partial(make_ours, precision="medium"),
    "torch_medium": partial(make_torch, precision="medium"),
    "products_medium": make_products,
}
OPTIONAL = ("torch_compile",)


def measure(programs: list[Program], limits: machine.Limits, rounds: int) -> None:
    """Rounds in turn, with the limit before, between and after them."""
    for number in range(rounds):
        if number % LIMIT_EVERY == 0:
            limits.round()
        words = [f"{program.name} {program.round()['seconds'] * 1e3:.0f}" for program in programs]
        print(f"round {number + 1}: ms a step: {', '.join(words)}", flush=True)
    limits.round()
    for each in (*programs, limits):
        each.close()


def figures(programs: list[Program], found: dict[str, Summary]) -> dict[str, Any]:
    """Speed and memory; fields of the JSON line."""
    memory = {program.name: program.rounds[-1]["memory"] for program in programs[:2]}
    speed = {name: TOKENS / summary.median for name, summary in found.items()}
    peers = [name for name in found if name not in ("ours", *MEDIUM)]
    return {
        "ratio": round(speed["ours"] / speed["torch"], 3),
        **{f"ratio_to_{name}": round(speed["ours"] / speed[name], 3) for name in peers[1:]},
        "tokens_per_second": round(speed["ours"], 1),
        **{f"{name}_tokens_per_second": round(speed[name], 1) for name in peers},
        "memory_ratio": round(memory["ours"] / memory["torch"], 3),
        "memory_mb": round(memory["ours"]),
        "torch_memory_mb": round(memory["torch"]),
    }


def medium_figures(programs: list[Program], found: dict[str, Summary]) -> dict[str, Any]:
    """What rounding factors to bfloat16 brings; fields of the JSON line."""
    speed = {name: TOKENS / summary.median for name, summary in found.items()}
    flops = work.training_flops(LAYERS, HIDDEN, VOCABULARY, ROWS, LENGTH)
    (products,) = [program for program in programs if program.name == "products_medium"]
    return {
        "medium_tokens_per_second": round(speed["ours_medium"], 1),
        "medium_to_highest": round(speed["ours_medium"] / speed["ours"], 3),
        "torch_medium_tokens_per_second": round(speed["torch_medium"], 1),
        "medium_gflops_alone": round(max(each["gflops"] for each in products.rounds), 1),
        "medium_gflops_of_step": round(flops / found["ours_medium"].median / 1e9, 1),
        "highest_gflops_of_step": round(flops / found["ours"].median / 1e9, 1),
    }


def limit_of(limits: machine.Limits, found: dict[str, Summary]) -> Limit:
    """Compares the steps with the products' limit.

    Raises:
        ValueError: A program was faster than the limit.
    """
    flops = work.training_flops(LAYERS, HIDDEN, VOCABULARY, ROWS, LENGTH)
    return compare_with_limit([flops / rate for rate in limits.rates()], LIMIT_EVERY, found)


def main() -> None:
    """Runs the programs in turn and prints their figures."""
    if sys.argv[1:2] == ["--worker"]:
        return serve((PROGRAMS | MEDIUM)[sys.argv[2]])
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="steps of each")
    parser.add_argument("--threads", type=int, default=machine.usable_cores())
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--medium", action="store_true", help="add products of bfloat16")
    options = parser.parse_args()
    found = {"metric": "train_speed", **machine.this_machine(options.threads)}
    names = [name for name in PROGRAMS if not (options.no_compile and name in OPTIONAL)]
    names += MEDIUM if options.medium else []
    programs = start_all(__file__, names, OPTIONAL, options.threads)
    limits = machine.Limits(machine.PRODUCTS, options.threads, PRODUCTS)
    measure(programs, limits, options.rounds)
    limits.report()
    summaries = {program.name: program.summary() for program in programs}
    try:
        limit = limit_of(limits, {name: each for name, each in summaries.items() if name not in MEDIUM})
    except ValueError as error:
        raise SystemExit(f"train_speed: {error}") from None
    report(summaries, limit)
    found |= figures(programs, summaries) | verdict(summaries, limit)
    found |= medium_figures(programs, summaries) if options.medium else {}
    best = round(max(limits.rates()) / 1e9, 1)
    print(json.dumps({**found, "best_gflops": best, "rounds": options.rounds}))


if __name__ == "__main__":
    main()
