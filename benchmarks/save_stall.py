"""How long saving holds up the training: in the background, and as a whole.

Two measurements of the saver that train.py uses, on float32 weights and both moments, written through to
the disk (fsync), medians over the rounds; a first round, in which memory is reserved as in a run's first
steps, does not count:

- arrays: tensors of the 350M model, as many layers as --layers says, and no training: the time that `save`
  takes away from the caller.
- training: steps of a real network on this machine's CPU, dropout off, of one micro-batch (the copy ends
  before the step's only graph begins) and of four (it ends before the update); the hold, and what the steps
  beside the writing lost in all, since a CPU that trains also hashes and writes here. An accelerator's step
  does not share its host's cores.

The last line is JSON: seconds of a synchronous save, of the hold, and their ratio, for both.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.background import BackgroundSaver, Entry
from pangu_alpha.checkpoint.format import Manifest
from pangu_alpha.checkpoint.store import CheckpointStore
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.parallel.layout import parameter_shapes

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


def hold_of_arrays(folder: Path, layers: int, rounds: int) -> dict[str, float]:
    """Synchronous and background saves in turns, nothing else going on."""
    entries, store = state_of_350m(layers), CheckpointStore(folder, keep_last=1)
    synchronous, held, background = [], [], []
    with BackgroundSaver(store.save, background=False) as plain, BackgroundSaver(store.save) as saver:
        saver.reserve((stem, name, array.shape, array.dtype) for stem, name, array in entries)
        for step in range(1, 2 * rounds + 3, 2):
            plain.save(entries, manifest(step))
            synchronous.append(plain.wait().took)
            saver.save(entries, manifest(step + 1))
            saver.copied()
            saved = saver.wait()
            held.append(saved.held)
            background.append(saved.took)
    size = sum(array.nbytes for _, _, array in entries)
    middle = round(statistics.median(background[1:]), 3)
    return summary(size, synchronous[1:], held[1:]) | {"background_s": middle}


def training_engine(micro_batches: int) -> tuple[Callable[..., None], Any]:
    """A step of the project's engine, which takes what to call before the update; and the engine."""
    from pangu_alpha.parallel.context import use_device

    use_device("CPU")
    from pangu_alpha.config.run import build_train_config
    from pangu_alpha.data.batches import make_batch
    from pangu_alpha.data.manifest import Vocabulary
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
    guard = make_guard(config.run.guard, config.optim.loss_scale, "float32")
    ids = np.random.default_rng(0).integers(10, VOCABULARY, (ROWS, LENGTH + 1)).astype(np.int32)
    batch = make_batch(ids, np.zeros(ROWS), Vocabulary("", VOCABULARY, "<eod>", 8, 6))
    return lambda *before: engine.step(1, [batch] * micro_batches, guard, *before), engine


def hold_of_training(folder: Path, rounds: int, micro_batches: int) -> dict[str, float]:
    """Rounds of: undisturbed steps, a synchronous save, a background save and steps until it has ended."""
    step, engine = training_engine(micro_batches)
    store = CheckpointStore(folder, keep_last=1)
    quiet, synchronous, held, lost = [], [], [], []
    with BackgroundSaver(store.save, background=False) as plain, BackgroundSaver(store.save) as saver:
        saver.reserve(engine.specs())
        for _ in range(3):  # compiles; the pages are reserved meanwhile
            step()
        for number in range(1, 2 * rounds + 3, 2):
            quiet += [seconds_of(step) for _ in range(5)]
            plain.save(engine.tensors(), manifest(number))
            synchronous.append(plain.wait().took)
            began, steps, saved = time.perf_counter(), 0, None
            saver.save(engine.tensors(), manifest(number + 1))
            while saved is None:
                step(saver.copied)
                steps, saved = steps + 1, saver.finished()
            held.append(saved.held)
            lost.append(time.perf_counter() - began - steps * statistics.median(quiet))
    size = sum(array.nbytes for _, _, array in engine.tensors())
    more = {"step_s": statistics.median(quiet), "lost_in_all_s": statistics.median(lost[1:])}
    return summary(size, synchronous[1:], held[1:]) | {name: round(value, 3) for name, value in more.items()}


def summary(size: int, synchronous: list[float], held: list[float]) -> dict[str, float]:
    """Medians, and their ratio; the longest hold, and its ratio."""
    middle = statistics.median(synchronous)
    return {
        "gigabytes": round(size / 1e9, 2),
        "synchronous_s": round(middle, 3),
        "held_s": round(statistics.median(held), 4),
        "ratio": round(statistics.median(held) / middle, 4),
        "longest_held_s": round(max(held), 4),
        "longest_ratio": round(max(held) / middle, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", help="on the disk to measure; the system's temporary one by default")
    parser.add_argument("--layers", type=int, default=8, help="of the 350M model's 24 (default: 8, 1.8 GB)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        arrays = hold_of_arrays(Path(folder) / "arrays", options.layers, options.rounds)
        print(json.dumps({"arrays": arrays}), flush=True)
        found = {"arrays": arrays}
        for micro_batches in (1, 4):
            place = Path(folder) / f"training_{micro_batches}"
            found[f"training, {micro_batches} micro-batches"] = hold_of_training(
                place, options.rounds, micro_batches
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
