"""The training engine of a job, so that a dry run compiles and measures exactly what training runs."""

from __future__ import annotations

from dataclasses import replace

from pangu_alpha.config.data import DataConfig, SourceConfig
from pangu_alpha.config.run import RunConfig, TrainConfig
from pangu_alpha.parallel.context import partition
from pangu_alpha.parallel.world import World
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.training.partitioned.engine import PartitionedEngine
from pangu_alpha.training.partitioned.step import PartitionedStep, partitioned_step

_NOWHERE = "none"  # stands for the folders of records and output, which an engine does not open


def train_config(job: Job) -> TrainConfig:
    """The run whose engine compiles a job; its data and output folders do not exist."""
    run = RunConfig(
        _NOWHERE,
        steps=1,
        batch_size=job.batch_size,
        chip=job.chip,
        attention_dropout=job.attention_dropout,
    )
    if job.seed is not None:
        run = replace(run, seed=job.seed)
    data = DataConfig({_NOWHERE: SourceConfig(_NOWHERE)})
    return TrainConfig(job.model, data, run, job.optim, job.plan)


class JobEngine(PartitionedEngine):
    """A rank's engine of a job, in a process that simulates Ascend.

    It builds a step of its own only for what training never does: plain operators, MindSpore's own strategy
    search.
    """

    def __init__(self, job: Job, rank: int) -> None:
        self.job = job
        self.device = job.operators
        super().__init__(train_config(job), World(rank, job.plan.devices))

    def _make_step(self) -> PartitionedStep:
        job, rank = self.job, self.world.rank
        if job.search is None:
            return super()._make_step()
        partition(job.plan, rank, self._cuts(), job.search)
        return partitioned_step(self.objective, job.optim, job.plan, rank, self._operators, by_table=False)
