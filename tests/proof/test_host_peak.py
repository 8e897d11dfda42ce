"""The host's peak of large plans, initial values made: no rank makes all of the model."""

from __future__ import annotations

import pytest

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.zoo import load_network
from pangu_alpha.proof import mindir
from pangu_alpha.proof.dry_run import Job, compile_rank
from pangu_alpha.proof.report import held_bytes

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
