"""Steps in which the gradients of one rank overflow: who skips them, and the course of the loss scale."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from pangu_alpha.cluster_check.cases.overflow import STEPS, job_of, overflowing_rank
from pangu_alpha.cluster_check.measure.runs.partitioned import chip_of, config_of, micro_batches
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.config.run import GuardConfig
from pangu_alpha.data.batches import Batch
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.world import World
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.replay.rows import HEAVY
from pangu_alpha.training.engine import Engine
from pangu_alpha.training.guard import make_guard
from pangu_alpha.training.partitioned.engine import PartitionedEngine


def measure(place: Place) -> dict[str, Any]:
    """Returns, for each step, its loss scale, whether it was applied, and whether any value changed."""
    job = job_of(place.measurement, place.setup.size, chip_of(place))
    world = place.world or World()
    assert isinstance(world, World)
    config = config_of(job, place.device)
    split = place.device == "Ascend" and job.plan.devices > 1
    engine = (PartitionedEngine if split else Engine)(config, world)
    engine.compile()
    engine.initialize()
    steps = _steps(engine, job, Mesh.of(job.plan).coordinates(world.rank).data)
    return {"steps": steps, "digest": _digest(engine), "copies": job.plan.tp == 1}


def _steps(engine: Engine, job: Job, rank: int) -> list[dict[str, Any]]:
    guard = make_guard(GuardConfig(), job.optim.loss_scale, job.model.compute_dtype)
    found, before = [], _digest(engine)
    for step in range(STEPS):
        rows = micro_batches(job, step, rank)
        if overflowing_rank(step, job.plan.dp) == rank:
            _weigh(rows[-1])
        scale = guard.scale.value
        result = engine.step(step, rows, guard)
        guard.observe(result.norm, result.applied)
        after = _digest(engine)
        found.append(
            {
                "scale": scale,
                "applied": result.applied,
                "finite": math.isfinite(result.norm),
                "changed": after != before,
            }
        )
        before = after
    return found


def _weigh(batch: Batch) -> None:
    """Gives a token a weight that makes gradients too large for float16, and their squares for float32."""
    batch["loss_mask"][-1, -1] = HEAVY
    batch.weights[-1] = batch["loss_mask"][-1].sum()


def _digest(engine: Engine) -> str:
    """Of all parameters and moments that this rank trains."""
    held, digest = engine.optimizer, hashlib.sha256()
    for each in (*held.parameters, *held.moments1, *held.moments2):
        digest.update(each.asnumpy().tobytes())
    return digest.hexdigest()
