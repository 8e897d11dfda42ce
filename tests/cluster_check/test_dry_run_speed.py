"""What the checks "links", "overlap", "startup" and "plans" run on NPUs compiles by dry run."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pangu_alpha.cluster_check.measure.links import ABSENT, NAMES
from pangu_alpha.cluster_check.measure.timed_run import cases, config_file
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.setup import Setup
from pangu_alpha.cluster_check.training_run import loaded
from pangu_alpha.proof.dry_run.cann import dry_run_environment
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.graph import mindir

RANKS = 8
SIZES = 2  # that simulated.py leaves of the check's


def simulated(folder, rank, ranks, chip, check):
    """The kinds of cells that a rank compiles, with their number."""
    program = Path(__file__).with_name("simulated.py")
    words = (chip, str(rank), str(ranks), str(folder), check, "joined")
    done = subprocess.run([sys.executable, str(program), *words], env=dry_run_environment(rank, ranks),
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines[-1] == f"measured {check}, joined"
    return Counter(line.removeprefix("compiled ") for line in lines[:-1])


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, RANKS - 1])
def test_all_collectives_compile(rank, tmp_path):
    assert not ABSENT["Ascend"]
    groups = 2  # pair and server
    found = simulated(tmp_path, rank, RANKS, "910B", "links")
    assert found == {"Collective": (len(NAMES) - 1) * groups * SIZES, "Exchange": groups * SIZES}


@pytest.mark.long
@pytest.mark.parametrize("chip", ["910A", "910B"])
def test_products_beside_an_all_reduce_compile(chip, tmp_path):
    assert simulated(tmp_path, 1, 2, chip, "overlap") == {"Work": 4}  # each alone, one product, and both


@pytest.mark.long
@pytest.mark.parametrize("case", cases("Ascend", RANKS), ids=lambda case: case.name.replace(" ", "_"))
def test_the_plans_whose_steps_are_timed_compile(case, tmp_path):
    """At full size: all 24 layers, a rank of 8."""
    setup = Setup("Ascend", (tuple(range(RANKS)),), (tuple(range(RANKS)),))
    place = Place("plan_1", "Ascend", 0, tmp_path, tmp_path, setup)
    config = loaded(config_file(case, place, tmp_path / "run", tmp_path / "data"))
    job = Job(config.model, config.parallel, config.optim, config.run.batch_size, chip="910B")
    calls = mindir.collectives(mindir.read(compile_rank(job, RANKS - 1, tmp_path).graph))
    kinds = {each.operation for each in calls}
    assert "AllReduce" in kinds and ("Receive" in kinds) == (config.parallel.pp > 1)
