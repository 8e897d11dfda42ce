"""The run in which single ranks overflow, as data: its recipe, and when which rank's gradients overflow."""

from __future__ import annotations

from dataclasses import replace

from pangu_alpha.cluster_check.check import Measurement
from pangu_alpha.config.families import Chip
from pangu_alpha.config.optim import LossScaleConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.replay.suite import SCALED, job

STEPS = 12
# Two in a row, and one straight after the scale has grown; of the last rank that reads rows, or of the first.
OVERFLOWS = {1: -1, 2: 0, 6: -1}  # step, from 0: rank
SCALE = LossScaleConfig(mode="dynamic", initial=2.0**10, factor=4.0, window=3)
TOGETHER, TENSOR = "together", "tensor"


def measurements() -> tuple[Measurement, ...]:
    """All ranks data parallel; and with tensor parallelism, where the devices can split graphs."""
    return (Measurement(TOGETHER, "all"), Measurement(TENSOR, "all", multiple=2, kinds=("Ascend",)))


def job_of(name: str, ranks: int, chip: Chip | None = None) -> Job:
    """The job of a measurement: a small network in float16 with a dynamic loss scale."""
    plan = ParallelPlan(dp=ranks) if name == TOGETHER else ParallelPlan(dp=ranks // 2, tp=2)
    found = job(plan, recipe=replace(SCALED, loss_scale=SCALE), compute_dtype="float16")
    return replace(found, operators="Ascend", chip=chip or found.chip)


def overflowing_rank(step: int, ranks: int) -> int | None:
    """The rank, among those that read different rows, whose gradients overflow in a step."""
    return OVERFLOWS[step] % ranks if step in OVERFLOWS else None
