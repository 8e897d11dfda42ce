"""Whole runs on CPU processes: interrupted, gone on with, and broken on purpose."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.proof.replay_training import Faults, Leg, replay_training
from pangu_alpha.proof.small_run import small_run
from pangu_alpha.proof.training_legs import Interruption

HERE = Path(__file__).parent
SHARDED = {"optimizer_parallel": "level1", "optimizer_threshold": 0}
PAIR = ParallelPlan(dp=2, micro_batches=2, **SHARDED)
EIGHT = ParallelPlan(dp=2, tp=2, pp=2, micro_batches=2, recompute="full", sequence_parallel=True, **SHARDED)
WIDE = replace(EIGHT, tp=4, pp=1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A folder in which the graphs of PAIR, and the run of one process, are made once."""
    return tmp_path_factory.mktemp("pair")


@pytest.fixture
def broken(pair, monkeypatch):
    """Replays four steps of PAIR with a fault."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))

    def call(faults):
        return replay_training(small_run(pair, every=100), [Leg(PAIR, 2, 4)], pair, faults=faults)

    return call


def values(report, *kinds):
    return [report.difference(kind).ratio for kind in kinds]


def test_a_killed_run_goes_on_and_computes_what_one_process_computes(tmp_path):
    plan = ParallelPlan(pp=2, micro_batches=2)
    legs = [Leg(plan, 2, 5, Interruption(1, signal.SIGKILL, 3)), Leg(plan, 2, 5)]
    report = replay_training(small_run(tmp_path, every=2), legs, tmp_path)
    assert report.passed, report.table()
    killed, resumed = report.legs
    assert (killed.first, killed.last, resumed.first, resumed.last) == (1, 3, 3, 5)
    assert killed.codes[1] == -signal.SIGKILL and killed.codes[0] != 0 and resumed.codes == (0, 0)
    assert killed.losses[2] == resumed.losses[0]  # the step that was lost is done again, bit for bit
    assert report.table().startswith("training replayed: pass")


@pytest.mark.long
@pytest.mark.parametrize(
    ("faults", "kinds"),
    [
        (Faults(running={1: "training_controls:rows_of_another_rank"}), ("loss", "norm", "gradient")),
        (
            Faults(running=dict.fromkeys((0, 1), "training_controls:learning_rate_of_another_step")),
            ("weight",),
        ),
        (Faults(compiling="training_controls:tokens_not_summed"), ("norm", "gradient", "moment")),
        (Faults(running={1: "training_controls:values_of_another_seed"}), ("loss", "norm", "gradient")),
    ],
    ids=lambda value: value.compiling or value.running[1] if isinstance(value, Faults) else "",
)
def test_a_fault_does_not_pass(broken, faults, kinds):
    report = broken(faults)
    assert not report.passed and report.first.startswith("step 1, "), report.table()
    assert min(values(report, *kinds)) > 10, report.table()


@pytest.mark.long
def test_without_a_fault_the_same_run_passes(broken):
    report = broken(None)
    assert report.passed, report.table()
