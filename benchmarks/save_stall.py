"""How long saving holds up the training: in the background, and as a whole.

The saver that train.py uses, on float32 weights and both moments, written through to the disk (fsync), beside
three kinds of steps; in all of them the copy runs beside the gradients and ends before the update:

- elsewhere: a step that waits for STEP seconds, as for an accelerator that leaves the host's cores alone;
  tensors of the 350M model, as many layers as --layers says.
- 1 and 4 micro-batches: steps of a real network on this machine's CPU, dropout off.

Of each, medians over the rounds; a first round, in which memory is reserved as in a run's first steps, does
not count: a synchronous save; the hold, which is the time that a step stands still for a save; the copy
with nothing beside it, which would be the hold of a step whose gradients took no time; and what the steps
lost in all until the last byte was written. On a CPU that is more than the hold, since the cores that train
also copy, hash and write. Steps and synchronous saves that other work disturbed are left out (rounds.py);
holds are not, because a long hold may be of the saver's own making.

The last line is JSON, times in seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import machine
import numpy as np
from rounds import report, summarize, verdict

from pangu_alpha.checkpoint.native.background import BackgroundSaver, Entry
from pangu_alpha.checkpoint.native.format import Manifest
from pangu_alpha.checkpoint.native.store import CheckpointStore
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.network.parameters import parameter_shapes

STEP = 0.3  # seconds of a step elsewhere
ROWS, LENGTH, VOCABULARY, HIDDEN, LAYERS, HEADS = 1, 64, 8000, 768, 6, 12


def manifest(step: int) -> Manifest:
    """Of a checkpoint that says nothing more."""
    return Manifest(step, samples=step, config={})


def state_of_350m(layers: int) -> list[Entry]:
    """Weights and moments of a 350M model of so many layers, every page of them written."""
    shapes = parameter_shapes(dataclasses.replace(load_model_config("350m"), num_layers=layers))
    random = np.random.default_rng(0)
    stems = {"": "model", "adam_m.": "optimizer", "adam_v.": "optimizer"}
    return [
        (stem, prefix + name, random.standard_normal(shape, np.float32))
        for prefix, stem in stems.items()
        for name, shape in shapes.items()
    ]


def seconds_of(work: Callable[[], Any]) -> float:
    """Time of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def step_elsewhere(before_update: Callable[[], None] = lambda: None) -> None:
    """A step that leaves this machine's cores alone."""
    time.sleep(STEP)
    before_update()


def training_engine(micro_batches: int) -> tuple[Callable[..., None], Any]:
    """A step of the project's engine, which takes what to call before the update; and the engine."""
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
            "parallel": {"micro_batches": micro_batches},
        }
    )
    engine = Engine(config)
    engine.initialize()
    guard = make_guard(config.run.guard, config.optim.loss_scale, "float32")
    ids = np.random.default_rng(0).integers(10, VOCABULARY, (ROWS, LENGTH + 1)).astype(np.int32)
    batch = make_batch(ids, np.zeros(ROWS), Vocabulary("", VOCABULARY, "<eod>", 8, 6))
    return lambda *before: engine.step(1, [batch] * micro_batches, guard, *before), engine


def hold(
    step: Callable[..., None], tensors: Callable[[], Iterable[Entry]], folder: Path, rounds: int
) -> dict[str, Any]:
    """Rounds of: undisturbed steps, a synchronous save, a copy alone, a save and steps until it has ended.

    Args:
        step: Takes what to call before its update.
        tensors: What to save.
        folder: Where.
        rounds: That count.
    """
    store = CheckpointStore(folder, keep_last=1)
    times: dict[str, list[float]] = {}
    quiet: list[float] = []
    with BackgroundSaver(store.save, background=False) as plain, BackgroundSaver(store.save) as saver:
        saver.reserve((stem, name, array.shape, array.dtype) for stem, name, array in tensors())
        for _ in range(3):  # compiles; the pages are reserved meanwhile
            step()
        for number in range(1, 3 * rounds + 4, 3):
            quiet += [seconds_of(step) for _ in range(5)]
            plain.save(tensors(), manifest(number))
            times.setdefault("synchronous_s", []).append(plain.wait().took)
            saver.save(tensors(), manifest(number + 1))
            saver.copied()
            times.setdefault("copy_alone_s", []).append(saver.wait().held)
            began, steps, saved = time.perf_counter(), 0, None
            saver.save(tensors(), manifest(number + 2))
            while saved is None:
                step(saver.copied)
                steps, saved = steps + 1, saver.finished()
            lost = time.perf_counter() - began - steps * statistics.median(quiet)
            times.setdefault("held_s", []).append(saved.held)
            times.setdefault("lost_in_all_s", []).append(lost)
    counted = {name: values[1:] for name, values in times.items()}
    summaries = {"step": summarize(quiet), "synchronous save": summarize(counted["synchronous_s"])}
    report(summaries)
    found = {name: round(statistics.median(values), 4) for name, values in counted.items()}
    found["synchronous_s"] = round(summaries["synchronous save"].median, 4)
    longest = max(counted["held_s"])
    return {
        "gigabytes": round(sum(array.nbytes for _, _, array in tensors()) / 1e9, 2),
        "step_s": round(summaries["step"].median, 3),
        **found,
        "ratio": round(found["held_s"] / found["synchronous_s"], 4),
        "longest_held_s": round(longest, 4),
        "longest_ratio": round(longest / found["synchronous_s"], 4),
        **verdict(summaries),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", help="on the disk to measure; the system's temporary one by default")
    parser.add_argument("--layers", type=int, default=8, help="of the 350M model's 24 (default: 8, 1.7 GB)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found: dict[str, Any] = machine.this_machine(machine.usable_cores())

    def measure(name: str, step: Callable[..., None], tensors: Callable[[], Iterable[Entry]]) -> None:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            found[name] = hold(step, tensors, Path(folder), options.rounds)
        print(json.dumps({name: found[name]}), flush=True)

    measure("elsewhere", step_elsewhere, state_of_350m(options.layers).copy)
    for count in (1, 4):
        step, engine = training_engine(count)
        measure(f"{count} micro-batches", step, engine.tensors)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
