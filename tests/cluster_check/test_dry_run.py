"""What checks run on NPUs compiles for every family of chips, by dry run: operators, and ranks that train."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from pangu_alpha.cluster_check.cases.operators import CASES
from pangu_alpha.cluster_check.training_run import config_of, loaded
from pangu_alpha.config.families import FAMILIES
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.proof.dry_run.cann import dry_run_environment
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.graph import mindir

RANKS = 2


@pytest.mark.long
@pytest.mark.parametrize("chip", FAMILIES)
def test_ranks_that_train_together_compile(chip, tmp_path):
    dtype = "float32" if "float32" in FAMILIES[chip].compute_types else "float16"
    config = loaded(config_of(tmp_path / "data", tmp_path / "run", "Ascend", dtype, RANKS))
    job = Job(config.model, config.parallel, config.optim, config.run.batch_size, chip=chip)
    report = compile_rank(job, 1, tmp_path)
    sums = [each for each in mindir.collectives(mindir.read(report.graph)) if each.bytes > 4]
    assert {(each.operation, each.reduction, each.ranks) for each in sums} == {("AllReduce", "sum", (0, 1))}
    numbers = {name: math.prod(shape) for name, shape in parameter_shapes(config.model).items()}
    table = config.model.vocab_size * config.model.hidden_size  # its gradients by input and by logits apart
    assert sum(each.bytes for each in sums) == 4 * (sum(numbers.values()) + table)


@pytest.mark.long
def test_operators_compile():
    program = Path(__file__).with_name("compiled_operators.py")
    done = subprocess.run([sys.executable, str(program)], env=dry_run_environment(0, 1), capture_output=True,
                          text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = [line for line in done.stdout.splitlines() if line.startswith("compiled ")]
    types = [(chip, dtype) for chip, family in FAMILIES.items() for dtype in family.compute_types]
    assert found == [f"compiled {name}, {chip}, {dtype}" for chip, dtype in types for name in CASES]
