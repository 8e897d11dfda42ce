"""The host's peak of large plans, initial values made: no rank makes all of the model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.zoo import load_network
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.dry_run.report import held_bytes
from pangu_alpha.proof.graph import mindir

GRID = {"dp": 16, "tp": 8, "optimizer_parallel": "level1"}
STAGES = GRID | {"pp": 16, "micro_batches": 32, "recompute": "full"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "plan", "rank"),  # the first rank of a stage has the fewest numbers to draw
    [("13b", GRID, 0), ("200b", STAGES, 0), ("200b", STAGES, 1920)],
    ids=["13b", "200b first stage", "200b last stage"],
)
def test_a_large_plan_takes_half_more_than_its_slices_of_the_host(model, plan, rank, tmp_path):
    network = load_network(model)
    job = Job(network.model, ParallelPlan(**plan), network.optim, initialize=True)
    found = compile_rank(job, rank, tmp_path)
    held = sum(held_bytes(mindir.summary(mindir.read(found.graph)).parameters).values())
    assert found.initialize_seconds is not None
    assert found.peak_mb * 2**20 < 1.5 * held + 1.5e9


@pytest.mark.long
@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_masks_that_are_made_again_take_nothing_of_the_host(recompute, tmp_path):
    """A layer's masks have 2^27 elements: 512 MB of int32."""
    network = load_network("350m")
    plan = ParallelPlan(dp=8, optimizer_parallel="level1", recompute=recompute)
    job = Job(replace(network.model, num_layers=4), plan, network.optim, batch_size=8)
    assert compile_rank(job, 0, tmp_path).peak_mb < 1500
