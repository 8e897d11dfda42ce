"""Each plan of the replay suite on all ranks, compared with one device: losses, norms, gradients, weights.

On NPUs the ranks run training's own engine. MindSpore 2.9 does not run a partitioned graph on CPU; there the
ranks run the graphs of a dry run, rewritten for CPU (proof.replay), and data parallel ones training's engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from mindspore import Tensor

from pangu_alpha.checkpoint.naming import MOMENTS
from pangu_alpha.cluster_check.cases.plans import (
    GRAPHS,
    ONE,
    STEPS,
    is_partitioned,
    job_of,
    jobs,
    on_one_device,
)
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.config.families import Chip
from pangu_alpha.config.run import GuardConfig, TrainConfig
from pangu_alpha.data.batches import Batch
from pangu_alpha.model.chip import find_chip
from pangu_alpha.parallel.layout import layouts
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.world import World
from pangu_alpha.proof.dry_run.engine import train_config
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.replay.compare import Bounds, Recipe, Run, compare, differences
from pangu_alpha.proof.replay.reference_optimizer import learning_rate
from pangu_alpha.proof.replay.rows import places, rows_of_step
from pangu_alpha.proof.replay.training.engine import ReferenceEngine, ReplayedEngine
from pangu_alpha.proof.replay.training.replay import prepare, regions, words_of
from pangu_alpha.proof.replay.worker import record, roughen
from pangu_alpha.training.engine import Engine
from pangu_alpha.training.guard import Guard, make_guard
from pangu_alpha.training.partitioned.engine import PartitionedEngine

States = Mapping[str, np.ndarray]
_FIELDS = ("input_ids", "labels", "loss_mask", "position_ids", "document_ids")


def measure(place: Place) -> dict[str, Any]:
    """Returns the largest difference of each kind and where it is; see proof.replay.compare."""
    size, device = place.setup.size, place.setup.device
    chip = chip_of(place)
    if place.measurement == GRAPHS:
        return {"graphs": _make_graphs(place, jobs(size, device))}
    if place.measurement == ONE:
        for name, job in jobs(size, device, chip).items():
            np.savez(place.folder / f"{name}.npz", **_states_of_one(job, place.device))
        return {}
    return _together(place, job_of(place.measurement, size, device, chip))


def chip_of(place: Place) -> Chip | None:
    """The chip that computes here; None on CPU, or if it is unknown."""
    return cast("Chip | None", find_chip()) if place.device == "Ascend" else None


def _make_graphs(place: Place, all_jobs: Mapping[str, Job]) -> list[str]:
    """Compiles and rewrites the graphs of all ranks; returns the names of their plans."""
    found = [name for name, job in all_jobs.items() if is_partitioned(job.plan)]
    for name in found:
        prepare(train_config(all_jobs[name]), place.folder / name)
    return found


def config_of(job: Job, device: str) -> TrainConfig:
    """The run of a job; on NPUs it takes the chip that is there."""
    config = train_config(job)
    return replace(config, run=replace(config.run, chip="auto")) if device == "Ascend" else config


def _states_of_one(job: Job, device: str) -> dict[str, np.ndarray]:
    """What one device that reads all rows computes; its update is NumPy's."""
    alone = on_one_device(job)
    engine = ReferenceEngine(config_of(alone, device), World())
    engine.compile()
    engine.initialize()
    assert job.seed is not None
    roughen(engine.optimizer.parameters, job.seed)
    return _trained(engine, job, None)


def _together(place: Place, job: Job) -> dict[str, Any]:
    world, folder = place.world, place.folder
    assert isinstance(world, World)
    engine = _engine(place, job, world)
    engine.compile()
    one = dict(np.load(folder.parent / ONE / f"{place.measurement}.npz"))
    _set_values(engine, job, world.rank, one)
    np.savez(
        _file(folder, world.rank), **_trained(engine, job, Mesh.of(job.plan).coordinates(world.rank).data)
    )
    world.barrier()  # all files are there
    found = _compared(job, folder, one) if world.rank == 0 else {}
    return {"dtype": job.model.compute_dtype, "by": type(engine).__name__, **found}


def _file(folder: Path, rank: int) -> Path:
    return folder / f"states_{rank:05d}.npz"


def _engine(place: Place, job: Job, world: World) -> Engine:
    config = config_of(job, place.device)
    if place.device == "Ascend":
        return PartitionedEngine(config, world)
    if not is_partitioned(job.plan):
        return Engine(config, world)
    (graphs,) = (place.folder.parent / GRAPHS / place.measurement).glob("graphs_*")
    return ReplayedEngine(config, world, graphs)


def _set_values(engine: Engine, job: Job, rank: int, one: States) -> None:
    """Gives a rank its slices of the values from which the one device began."""
    placed = layouts(job.model, job.plan)
    own = regions(placed, job.plan, rank)
    for parameter in engine.optimizer.parameters:
        values = one[f"-1/state/{parameter.name}"]
        whole = np.zeros(placed[parameter.name].shape, np.float32)  # with the rows that pad the vocabulary
        whole[: len(values)] = values
        parameter.set_data(Tensor(np.ascontiguousarray(whole[own[parameter.name]])))


def _trained(engine: Engine, job: Job, rank: int | None) -> dict[str, np.ndarray]:
    """Takes the steps, and returns their results in the form of proof.replay.worker.run_rank.

    Args:
        rank: The data-parallel rank whose rows are read; None reads those of all.
    """
    held = engine.optimizer
    tensors = [(each.name, each) for each in (*held.parameters, *held.moments1, *held.moments2)]
    states: dict[str, np.ndarray] = {}
    record(states, -1, (), tensors)
    guard = new_guard(job)
    for step in range(STEPS):
        result = engine.step(step, micro_batches(job, step, rank), guard)
        guard.observe(result.norm, result.applied)
        record(states, step, (result.loss, result.norm, result.applied), tensors)
    return states


def new_guard(job: Job) -> Guard:
    """The guard of a run; as in replays, the loss is scaled only if the recipe demands it."""
    return make_guard(GuardConfig(), job.optim.loss_scale, "float32")


def micro_batches(job: Job, step: int, rank: int | None) -> list[Batch]:
    """The micro-batches of a step as one data-parallel rank reads them, or one device that reads all rows.

    Every rank counts another number of tokens; see proof.replay.rows.
    """
    plan, size = job.plan, job.batch_size
    grids = rows_of_step(job, places(job, step)[-1].samples)  # [D, M * B, S] each
    ranks = slice(None) if rank is None else slice(rank, rank + 1)
    return [
        batch_of([grid[ranks, m * size : (m + 1) * size].reshape(-1, grid.shape[-1]) for grid in grids])
        for m in range(plan.micro_batches)
    ]


def batch_of(arrays: list[np.ndarray]) -> Batch:
    """A batch of input ids, labels, loss mask, positions and documents, [B, S] each."""
    arrays = [np.ascontiguousarray(each) for each in arrays]
    weights = arrays[2].sum(1)
    return Batch(dict(zip(_FIELDS, arrays, strict=True)), weights, np.zeros(len(weights), np.int32))


def _compared(job: Job, folder: Path, one: States) -> dict[str, Any]:
    """Compares what all ranks have written with one device."""
    plan, ranks = job.plan, tuple(range(job.plan.devices))
    placed = layouts(job.model, plan)
    run = Run(
        {rank: dict(np.load(_file(folder, rank))) for rank in ranks},
        {rank: regions(placed, plan, rank) for rank in ranks},
        {prefix + name: layout.shape for name, layout in placed.items() for prefix in ("", *MOMENTS)},
        ranks,
    )
    initial = {name: one[f"-1/state/{name}"] for name in placed}
    rates = tuple(learning_rate(step, job.optim) for step in range(STEPS))
    found = compare(
        run, one, initial, Recipe(STEPS, rates, job.optim.beta1), Bounds.of(job.model.compute_dtype)
    )
    return {
        "plan": words_of(plan),
        "losses": [float(one[f"{step}/loss"]) for step in range(STEPS)],
        "differences": {each.kind: asdict(each) for each in differences(found)},
    }
