"""What checks run on NPUs compiles for every family of chips, by dry run of the checks' own code."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pangu_alpha.cluster_check.cases.operators import CASES, SHAPES
from pangu_alpha.cluster_check.cases.plans import ONE, jobs
from pangu_alpha.cluster_check.cases.reshard import other_plan
from pangu_alpha.cluster_check.training_run import config_of, loaded
from pangu_alpha.config.families import FAMILIES
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.proof.dry_run.cann import dry_run_environment
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.graph import mindir

RANKS = 2
PROGRAM = Path(__file__).with_name("simulated.py")
TYPES = {chip: len(family.compute_types) for chip, family in FAMILIES.items()}


def simulated(folder, chip, check, *measurements, rank=0, size=1, **environment):
    """Measures in a process that simulates a rank's NPU; returns its exit code, lines and errors."""
    words = [chip, str(rank), str(size), str(folder), check, *measurements]
    variables = {**dry_run_environment(rank, size), **environment}
    done = subprocess.run([sys.executable, str(PROGRAM), *words], env=variables, capture_output=True,
                          text=True, timeout=1500, cwd=folder)  # fmt: skip
    return done.returncode, done.stdout.splitlines(), done.stderr


def compiled(folder, chip, check, *measurements, **where):
    """The number of graphs of each cell that were compiled."""
    code, lines, errors = simulated(folder, chip, check, *measurements, **where)
    assert code == 0, errors[-3000:]
    assert [line for line in lines if line.startswith("measured")] == [
        f"measured {check}, {each}" for each in measurements
    ]
    return Counter(line.split()[1] for line in lines if line.startswith("compiled"))


@pytest.mark.long
@pytest.mark.parametrize("chip", FAMILIES)
def test_operators_compile_in_the_shapes_of_all_models(chip, tmp_path):
    found = compiled(tmp_path, chip, "operators", "device")
    each = len(SHAPES) * TYPES[chip]
    differentiated = sum(case.differentiated > 0 for case in CASES.values())
    assert found["_Gradients"] == each * differentiated
    status = ("Alone", "FloatStatus") if FAMILIES[chip].saturates else ()
    assert sum(found.values()) == each * (len(CASES) + differentiated) + sum(found[name] for name in status)
    assert all(found[name] for name in status)


@pytest.mark.long
@pytest.mark.parametrize("chip", FAMILIES)
def test_dropout_network_decoding_and_speed_compile(chip, tmp_path):
    types = TYPES[chip]
    found = compiled(tmp_path, chip, "dropout", "device", "stream")
    assert found == {"Dropout": 9, "_Weights": 4}
    found = compiled(tmp_path, chip, "network", "device")
    assert found == {"PanguAlpha": types, "TokenLoss": types, "Gradients": 2 * types, "Update": types}
    found = compiled(tmp_path, chip, "decoding", "device")
    assert found["PanguAlpha"] == found["Feed"] == found["Step"] == types, found
    assert compiled(tmp_path, chip, "speed", "device")["Alone"] > 2


@pytest.mark.long
@pytest.mark.parametrize("chip", FAMILIES)
def test_one_device_that_trains_compiles(chip, tmp_path):
    assert compiled(tmp_path, chip, "training", "device") == {"Gradients": 1, "Update": 1}
    assert compiled(tmp_path, chip, "overflow", "together") == {"Gradients": 1, "Update": 1}


@pytest.mark.long
@pytest.mark.parametrize("chip, size", [("910A", 2), ("910B", 8), ("910C", 2)])
def test_every_plan_compiles(chip, size, tmp_path):
    """One device's graphs of all plans, and the last rank's of each plan, which has the last stage."""
    plans = jobs(size, "Ascend", chip)
    assert len(plans) >= (8 if size == 2 else 28)
    assert compiled(tmp_path, chip, "partitioned", ONE, size=size)["Gradients"] == len(plans)
    for name in plans:
        found = compiled(tmp_path, chip, "partitioned", name, rank=size - 1, size=size)
        assert found == {"PartitionedStep": 1}, name
    for name in ("together", "tensor"):
        found = compiled(tmp_path, chip, "overflow", name, rank=size - 1, size=size)
        assert found == {"PartitionedStep": 1}


@pytest.mark.long
@pytest.mark.parametrize("chip", FAMILIES)
@pytest.mark.parametrize("resharded", [False, True])
def test_ranks_that_train_together_compile(chip, resharded, tmp_path):
    dtype = "float32" if "float32" in FAMILIES[chip].compute_types else "float16"
    path = config_of(tmp_path / "data", tmp_path / "run", "Ascend", dtype, RANKS)
    plan = other_plan(RANKS)
    words = [f"parallel.dp={plan.dp}", f"parallel.tp={plan.tp}", "run.batch_size=8"] if resharded else []
    config = loaded(path, *words)
    job = Job(config.model, config.parallel, config.optim, config.run.batch_size, chip=chip)
    report = compile_rank(job, 1, tmp_path)
    found = mindir.collectives(mindir.read(report.graph))
    if resharded:
        assert {each.ranks for each in found} == {(0, 1)}
        return
    sums = [each for each in found if each.bytes > 4]
    assert {(each.operation, each.reduction, each.ranks) for each in sums} == {("AllReduce", "sum", (0, 1))}
    numbers = {name: math.prod(shape) for name, shape in parameter_shapes(config.model).items()}
    table = config.model.vocab_size * config.model.hidden_size  # its gradients by input and by logits apart
    assert sum(each.bytes for each in sums) == 4 * (sum(numbers.values()) + table)


@pytest.mark.long
def test_an_operator_that_does_not_compile_is_reported(tmp_path):
    code, lines, errors = simulated(tmp_path, "910B", "network", "device", PLANTED="operator")
    assert code == 1 and not any(line.startswith("measured") for line in lines)
    assert "For 'MatMul'" in errors and "simulated.py" in errors  # which operator, and where it stands
