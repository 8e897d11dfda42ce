"""Short training runs whose steps are timed, each under another plan: the cases that checks share."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.training_run import loaded, prepare
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.config.zoo import load_model_config
from pangu_alpha.files.reading import read_json_lines
from pangu_alpha.files.writing import write_text
from pangu_alpha.files.yaml_text import yaml_text
from pangu_alpha.parallel.world import World
from pangu_alpha.training.loop import train

STEPS = 9
MOST = 5  # cases of a set-up
_MOST_TENSOR = 8  # degree of tensor parallelism; no family has fewer devices in a server


@dataclass(frozen=True)
class Case:
    """What a timed run computes.

    Args:
        name: What is special about it, in words.
        rows: Sequences of a micro-batch on a data parallel rank.
        plan: Fields of ParallelPlan that are not the default.
    """

    name: str
    rows: int
    length: int
    plan: Mapping[str, Any] = field(default_factory=dict)


def cases(device: str, ranks: int) -> tuple[Case, ...]:
    """The cases of a set-up; on Ascend all do the same work of four sequences a rank.

    MindSpore 2.9 partitions no graph on CPU, and recompute and sharding have no effect there. So only the
    data parallel plan is left there, with other micro-batches, and with other work.
    """
    if device == "CPU":
        dp = {"dp": ranks}
        return (
            Case("8 sequences", 8, 64, dp),
            Case("8 micro-batches of one sequence", 1, 64, dp | {"micro_batches": 8}),
            Case("8 sequences of four times the length", 8, 256, dp),
            Case("2 sequences", 2, 64, dp),
            Case("4 micro-batches of 8 sequences", 8, 64, dp | {"micro_batches": 4}),
        )
    length, tp = load_model_config(_MODEL).seq_length, math.gcd(ranks, _MOST_TENSOR)
    dp = {"dp": ranks}
    found = [
        Case("data parallel", 4, length, dp),
        Case("four micro-batches", 1, length, dp | {"micro_batches": 4}),
        Case("full recompute", 4, length, dp | {"recompute": "full"}),
    ]
    if tp > 1:
        found.append(Case("tensor parallel", 4 * tp, length, {"dp": ranks // tp, "tp": tp}))
    if ranks % 2 == 0:
        stages = {"dp": ranks // 2, "pp": 2, "micro_batches": 4}
        found.append(Case("two stages", 2, length, stages))
    return tuple(found)


_MODEL = "350m"  # on Ascend
_SMALL = {"vocab_size": 1000, "hidden_size": 256, "num_layers": 4, "num_heads": 4, "dropout": 0.1,
          "compute_dtype": "float32"}  # fmt: skip


def config_file(case: Case, place: Place, output: Path, data: Path) -> Path:
    """Writes the configuration of a run beside its output, and returns its path."""
    model = _SMALL if place.device == "CPU" else to_mapping(load_model_config(_MODEL))
    settings: dict[str, Any] = {
        "model": {**model, "seq_length": case.length},
        "data": {"train": {"text": {"records": str(data / "records")}},
                 "vocabulary": str(data / "vocab.model")},
        "optim": {"learning_rate": 1e-4, "end_learning_rate": 1e-4, "warmup_steps": 1, "decay_steps": STEPS},
        "run": {"output": str(output), "steps": STEPS, "batch_size": case.rows, "device": place.device,
                "log_every": STEPS, "tensorboard": False, "peak_tflops": 1.0, "check_replicas_every": 0,
                "checkpoint": {"every": STEPS, "keep_last": 1}},
        "parallel": dict(case.plan),
    }  # fmt: skip
    path = output.with_suffix(".yaml")
    write_text(path, yaml_text(settings))
    return path


def run_case(case: Case, place: Place) -> Path:
    """Trains a case on the ranks of a measurement; returns the folder of the run, without its checkpoint.

    Raises:
        ValueError: The training ended early.
    """
    data, output = place.folder.parent / f"data_{case.length}", place.folder / "run"
    world = place.world
    first = world is None or world.rank == 0
    if first:
        prepare(data, case.length)
        config_file(case, place, output, data)
    _meet(world)
    assert world is None or isinstance(world, World)
    code = train(loaded(output.with_suffix(".yaml")), place.device, world)
    if code:
        raise ValueError(f"the training ended with exit code {code}; its messages stand above")
    _meet(world)
    if first:  # it has the size of the network, and nobody reads it
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
    return output


def _meet(world: Any) -> None:
    if world is not None:
        world.gather(np.zeros(1, np.float32))


def logged_seconds(output: Path) -> list[float]:
    """Seconds of each step of a run, in order, from its metrics.jsonl."""
    rows = [row for _, row in read_json_lines(output / "metrics.jsonl", numbers_only=False) if "loss" in row]
    config = loaded(output / "config.yaml")
    tokens = config.samples_per_step * config.model.seq_length
    return [tokens / row["tokens_per_s"] for row in rows]
