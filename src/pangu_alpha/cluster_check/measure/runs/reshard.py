"""A run that is saved on all ranks, resharded, and goes on under another plan and on one device."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.moving.reshard import reshard
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.tensors import Source, whole
from pangu_alpha.cluster_check.cases.reshard import (
    EPSILON,
    GRAPHS,
    OTHER,
    SAVED,
    SAVED_AFTER,
    STEPS,
    WHOLE,
    other_plan,
)
from pangu_alpha.cluster_check.measure.operators import types_of
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.training_run import config_of, curve, loaded, per_rank, prepare
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.model.initialization import initial_values
from pangu_alpha.network.parameters import parameter_table
from pangu_alpha.parallel.world import World
from pangu_alpha.proof.replay.compare import is_key_bias
from pangu_alpha.proof.replay.training.engine import ReplayedEngine
from pangu_alpha.proof.replay.training.replay import prepare as prepare_graphs
from pangu_alpha.training.loop import train

_PLAN = ("dp", "tp", "optimizer_parallel", "optimizer_threshold")  # fields that the plans here set


def measure(place: Place) -> dict[str, Any]:
    """Returns the losses of the run's steps; of one that went on also how far its last weights are away."""
    run, folder = Run(place), place.folder.parent
    before, other = ParallelPlan(dp=place.setup.size), other_plan(place.setup.size)
    if place.measurement == GRAPHS:
        prepare_graphs(run.config(other, STEPS), place.folder)
        return {}
    if place.measurement == WHOLE:
        return run.trained(before, STEPS)
    if place.measurement == SAVED:
        return run.trained(before, SAVED_AFTER)
    target, plan = place.folder / "resharded", other if place.measurement == OTHER else None
    if place.rank == 0:
        saved = open_source(folder / SAVED / "run")
        reshard(saved, target, plan, limits=Limits(progress=False))
    run.wait()
    found = run.trained(plan or ParallelPlan(), STEPS, target)
    if place.rank:
        return found
    source, reference = (open_source(each / "run") for each in (place.folder, folder / WHOLE))
    return {**found, **_moved_apart(source, reference, run.config(before, STEPS))}


class Run:
    """The small training run of a measurement, on one rank or on all."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.world = place.world or World()
        self.data, self.output = place.folder.parent / "data", place.folder / "run"
        device = place.device or place.setup.device
        self.dtype = "float32" if "float32" in types_of(device) else "float16"
        if place.rank == 0:
            prepare(self.data)
            config_of(self.data, self.output, device, self.dtype)
        self.wait()

    def wait(self) -> None:
        """Waits until all ranks are here."""
        self.world.gather(np.zeros(1, np.float32))

    def config(self, plan: ParallelPlan, steps: int, resume: Path | None = None) -> TrainConfig:
        """The run under a plan, with the same rows in every step."""
        rows = per_rank(self.place.setup.size) * self.place.setup.size
        changes = {f"parallel.{name}": getattr(plan, name) for name in _PLAN}
        changes |= {"run.batch_size": rows // plan.dp, "run.steps": steps, "optim.epsilon": EPSILON}
        words = [f"{key}={value}" for key, value in changes.items()]
        if resume is not None:
            words.append(f"run.resume={resume}")
        return loaded(self.output.with_suffix(".yaml"), *words)

    def trained(self, plan: ParallelPlan, steps: int, resume: Path | None = None) -> dict[str, Any]:
        """Trains, and returns the losses of its steps on the first rank."""
        assert isinstance(self.world, World)
        config, device = self.config(plan, steps, resume), self.place.device
        engine = None
        if device == "CPU" and (plan.tp > 1 or plan.optimizer_parallel != "none"):
            (graphs,) = (self.place.folder.parent / GRAPHS).glob("graphs_*")
            # "Ascend" makes the trainer behave as on the devices that the graphs were compiled for.
            device, engine = "Ascend", partial(ReplayedEngine, graphs=graphs)
        if code := train(config, device, self.world, engine=engine):
            raise ValueError(f"the training ended with exit code {code}; its messages stand above")
        return {"dtype": self.dtype, **(curve(self.output) if self.place.rank == 0 else {})}


def _moved_apart(found: Source, expected: Source, config: TrainConfig) -> dict[str, Any]:
    """The worst tensor's difference over its movement since the initial values, both as root mean squares."""
    table, worst, name = parameter_table(config.model), 0.0, ""
    for each, spec in table.items():
        start = initial_values(spec, config.run.seed)
        one, other = (_values(source.tensors["model"], each) for source in (found, expected))
        ratio = float(np.linalg.norm(one - other) / np.linalg.norm(other - start))
        if not is_key_bias(each) and not ratio <= worst:  # softmax ignores keys' biases, which only round
            worst, name = ratio, each
    return {"weights": worst, "tensor": name}


def _values(tensors: Mapping[str, Any], name: str) -> np.ndarray:
    stored = tensors[name]
    return read_box(stored, whole(stored.shape), name=name).astype(np.float64)
