"""The plans that all ranks train, as data: those of the replay suite, data parallel over all ranks."""

from __future__ import annotations

import re
from dataclasses import replace

from pangu_alpha.cluster_check.check import Measurement
from pangu_alpha.config.families import FAMILIES, Chip
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.replay.suite import quick, suite

STEPS = 3
GRAPHS, ONE = "graphs", "one"  # the measurements that the others need


def name_of(title: str) -> str:
    """A plan's name as that of a folder."""
    return re.sub("[^a-z0-9]+", "_", title.lower()).strip("_")


_SUITE = {name_of(title): (title, job) for title, job in {**quick(), **suite()}.items()}
_ON_CPU = {name_of(title) for title in quick()}  # compiling a rank's graph takes ten seconds there


def measurements() -> tuple[Measurement, ...]:
    """What is measured: the graphs where a CPU replays them, one device for all plans, and each plan.

    A plan has its own processes, as training has: MindSpore keeps parallel settings and groups until a
    process ends.
    """
    plans = (
        Measurement(
            name,
            "all",
            multiple=job.plan.devices,
            kinds=("CPU", "Ascend") if name in _ON_CPU else ("Ascend",),
            title=title,
            independent=True,
        )
        for name, (title, job) in _SUITE.items()
    )
    return (Measurement(GRAPHS, device="", kinds=("CPU",)), Measurement(ONE), *plans)


def job_of(name: str, ranks: int, device: str, chip: Chip | None = None) -> Job:
    """The job of a plan on all ranks.

    Args:
        name: Name of its measurement.
        ranks: Number of ranks, a multiple of the plan's devices; data parallelism makes up the rest.
        device: "CPU" or "Ascend". On CPU the graph has operators that it can replay.
        chip: Family of the devices, if it is known. What it does not multiply in float32 is float16.
    """
    _, job = _SUITE[name]
    plan = replace(job.plan, dp=job.plan.dp * (ranks // job.plan.devices))
    if device == "CPU":
        return replace(job, plan=plan, operators="plain")
    chip = chip or job.chip
    model = job.model
    if model.compute_dtype not in FAMILIES[chip].compute_types:
        model = replace(model, compute_dtype="float16")
    return replace(job, plan=plan, model=model, operators="Ascend", chip=chip)


def jobs(ranks: int, device: str, chip: Chip | None = None) -> dict[str, Job]:
    """The jobs that so many ranks can run, by the name of their measurement."""
    found = (each for each in measurements() if each.name not in (GRAPHS, ONE))
    return {
        each.name: job_of(each.name, ranks, device, chip)
        for each in found
        if each.skipped(ranks, device) is None
    }


def on_one_device(job: Job) -> Job:
    """The same rows, micro-batch by micro-batch, on one device."""
    plan = job.plan
    return replace(
        job, plan=ParallelPlan(micro_batches=plan.micro_batches), batch_size=job.batch_size * plan.dp
    )


def is_partitioned(plan: ParallelPlan) -> bool:
    """Whether a plan splits more than the rows, so that on CPU its graphs must be replayed."""
    return plan.tp > 1 or plan.pp > 1 or plan.optimizer_parallel != "none"
