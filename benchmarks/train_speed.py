"""Training tokens per second against the same network in PyTorch eager, on the same threads.

6 layers of which the last is the query layer, H 512, 8 heads, V 8000, B 4, S 256, float32, one document a
row, dropout off, AdamW with decay groups and a global-norm clip in both. PyTorch uses its fused causal
attention and fused AdamW; ours is the step of train.py, with the document mask it always has. Rounds of
one step alternate between two processes; medians are compared.

Needs torch. The last line is JSON: tokens/s of both, their ratio, and the ratio of peak memories.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from typing import Any

import numpy as np
from programs import Program, Round, peak_memory, serve

LAYERS, HIDDEN, HEADS, VOCABULARY, ROWS, LENGTH = 6, 512, 8, 8000, 4, 256
PROGRAMS = ("ours", "torch")


def windows(step: int) -> np.ndarray:
    """Random ids, int32 [ROWS, LENGTH + 1], none of which ends a document."""
    return np.random.default_rng(step).integers(10, VOCABULARY, (ROWS, LENGTH + 1)).astype(np.int32)


def make_ours() -> Round:
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
            "run": {"output": "none", "steps": 1000, "batch_size": ROWS},
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


def make_torch() -> Round:
    """A step of the same network in PyTorch."""
    import torch
    from torch import nn

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    network = torch_network()
    for parameter in network.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.02)
    matrices = [p for p in network.parameters() if p.dim() == 2]
    vectors = [p for p in network.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    places = torch.arange(LENGTH).repeat(ROWS, 1)
    steps = iter(range(1, 10**6))

    def run() -> dict[str, float]:
        ids = torch.from_numpy(windows(next(steps)).astype(np.int64))
        began = time.perf_counter()
        loss = network(ids[:, :-1], places, ids[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        return {"seconds": time.perf_counter() - began, "loss": value, "memory": peak_memory()}

    return run


def main() -> None:
    """Runs both programs in turn and prints their figures."""
    if sys.argv[1:2] == ["--worker"]:
        return serve({"ours": make_ours, "torch": make_torch}[sys.argv[2]])
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="steps of each")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    programs = [Program(__file__, name, options.threads) for name in PROGRAMS]
    for number in range(options.rounds):
        words = [f"{program.name} {program.round()['seconds'] * 1e3:.0f}" for program in programs]
        print(f"round {number + 1}: ms a step: {', '.join(words)}", flush=True)
    for program in programs:
        program.close()
    seconds = [statistics.median(r["seconds"] for r in program.rounds) for program in programs]
    memory = [program.rounds[-1]["memory"] for program in programs]
    tokens = ROWS * LENGTH
    print(
        json.dumps(
            {
                "metric": "train_speed",
                "ratio": round(seconds[1] / seconds[0], 3),
                "tokens_per_second": round(tokens / seconds[0], 1),
                "torch_tokens_per_second": round(tokens / seconds[1], 1),
                "memory_ratio": round(memory[0] / memory[1], 3),
                "memory_mb": round(memory[0]),
                "torch_memory_mb": round(memory[1]),
                "rounds": options.rounds,
            }
        )
    )


if __name__ == "__main__":
    main()
