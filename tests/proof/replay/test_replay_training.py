"""Whole runs on CPU processes: interrupted, gone on with, and broken on purpose."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.cli.plan import main, train_replay
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import ConfigError
from pangu_alpha.proof.replay.compare import Difference
from pangu_alpha.proof.replay.processes import ReplayError
from pangu_alpha.proof.replay.training.legs import Interruption, Trace
from pangu_alpha.proof.replay.training.replay import Faults, Leg, replay_training
from pangu_alpha.proof.replay.training.report import LegReport, TrainingBounds, TrainingReport
from pangu_alpha.proof.replay.training.small_run import small_run

HERE = Path(__file__).parents[1]
SHARDED = {"optimizer_parallel": "level1", "optimizer_threshold": 0}
PAIR = ParallelPlan(dp=2, micro_batches=2, **SHARDED)
TENSOR = ParallelPlan(tp=2, micro_batches=2)
STAGES = ParallelPlan(pp=2, micro_batches=2)
EIGHT = ParallelPlan(dp=2, tp=2, pp=2, micro_batches=2, recompute="full", sequence_parallel=True, **SHARDED)
WIDE = replace(EIGHT, tp=4, pp=1)
HALF = {"compute_dtype": "float16", "dropout": 0.1}
OVERFLOWS = (1, 2, 11)  # steps that overflow in float16 by small_run's loss scale


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


def least(report, *kinds):
    """The smallest ratio of difference to bound of some kinds."""
    return min(report.difference(kind).ratio for kind in kinds)


def everywhere(name, ranks=(0, 1)):
    return Faults(running=dict.fromkeys(ranks, f"training_controls:{name}"))


def test_a_killed_run_goes_on_and_computes_what_one_process_computes(tmp_path):
    legs = [Leg(STAGES, 2, 5, Interruption(1, signal.SIGKILL, 3)), Leg(STAGES, 2, 5)]
    report = replay_training(small_run(tmp_path, every=2, dropout=0.1), legs, tmp_path)
    assert report.passed, report.table()
    killed, resumed = report.legs
    assert (killed.first, killed.last, resumed.first, resumed.last) == (1, 3, 3, 5)
    assert killed.codes[1] == -signal.SIGKILL and killed.codes[0] != 0 and resumed.codes == (0, 0)
    assert killed.losses[2] == resumed.losses[0]  # the step that was lost is done again, bit for bit
    assert report.difference("loss").bound == 1e-5 and report.first == ""
    states = [Trace.read(tmp_path / f"leg_{leg}" / "rank_00001").state(3) for leg in (1, 2)]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0]) and len(states[0]) > 40


@pytest.mark.long
def test_eight_ranks_killed_go_on_under_another_plan(tmp_path):
    legs = [Leg(EIGHT, 2, 20, Interruption(3, signal.SIGKILL, 12)), Leg(WIDE, 2, 20)]
    report = replay_training(small_run(tmp_path, num_layers=4, dropout=0.1), legs, tmp_path)
    assert report.passed, report.table()
    assert [(leg.first, leg.last) for leg in report.legs] == [(1, 12), (11, 20)]
    assert report.legs[0].codes[3] == -signal.SIGKILL and report.legs[1].codes == (0,) * 8


@pytest.mark.long
@pytest.mark.parametrize("chip", ["910B", "910A"])
def test_an_overflow_in_float16_skips_on_all_ranks_and_a_stopped_run_keeps_the_scale(tmp_path, chip):
    legs = [Leg(TENSOR, 2, 12, Interruption(1, signal.SIGTERM, 6)), Leg(TENSOR, 2, 12)]
    report = replay_training(small_run(tmp_path, chip=chip, **HALF), legs, tmp_path)
    assert report.passed, report.table()
    stopped, resumed = report.legs
    assert stopped.codes == (128 + signal.SIGTERM,) * 2 and resumed.codes == (0, 0)
    assert (stopped.last, resumed.first) == (6, 7)
    assert (*stopped.skipped, *resumed.skipped) == OVERFLOWS
    scales = [*stopped.scales, *resumed.scales]
    assert scales == [2.0**32, 2.0**24, *[2.0**16] * 8, 2.0**24, 2.0**16]


@pytest.mark.long
def test_saturated_overflows_that_nobody_reads_do_not_pass(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    faults = Faults(compiling="training_controls:overflow_not_read")
    report = replay_training(
        small_run(tmp_path, chip="910A", **HALF), [Leg(TENSOR, 2, 3)], tmp_path, None, faults
    )
    assert report.difference("skip").value == 1.0 and report.first.startswith("step 1, "), report.table()


@pytest.mark.long
@pytest.mark.parametrize(
    ("faults", "kinds", "step"),
    [
        (everywhere("rows_of_another_rank_later", (1,)), ("loss", "norm", "weight"), 2),
        (everywhere("learning_rate_of_another_step"), ("loss", "norm", "weight"), 2),
        (Faults(compiling="training_controls:tokens_not_summed"), ("norm", "gradient", "moment"), 1),
        (everywhere("values_of_another_seed", (1,)), ("loss", "norm", "gradient"), 1),
    ],
    ids=["rows", "recipe", "tokens", "values"],
)
def test_a_fault_does_not_pass(broken, faults, kinds, step):
    report = broken(faults)
    assert not report.passed and report.first.startswith(f"step {step}, "), report.table()
    assert least(report, *kinds) > 10, report.table()


@pytest.mark.long
def test_rows_of_another_rank_are_found_before_the_first_step(broken):
    with pytest.raises(ReplayError, match="rank 1"):
        broken(everywhere("rows_of_another_rank", (1,)))


@pytest.mark.long
def test_without_a_fault_the_same_run_passes(broken):
    report = broken(None)
    assert report.passed, report.table()
    assert json.loads(json.dumps(report.to_json()))["passed"] is True


@pytest.mark.parametrize(
    ("legs", "said"),
    [
        ([Leg(ParallelPlan(), 2, 4)], "a plan of one device"),
        ([Leg(PAIR, 2, 2), Leg(STAGES, 2, 4)], "4 rows a step, 8 under the first plan"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(tmp_path, legs, said):
    with pytest.raises(ConfigError, match=said):
        replay_training(small_run(tmp_path), legs, tmp_path)


def test_a_type_that_cpu_does_not_compute_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'bfloat16' cannot be replayed"):
        replay_training(small_run(tmp_path, compute_dtype="bfloat16"), [Leg(PAIR, 2, 4)], tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dp", "2", "--kill-rank", "2"], "ranks are 0 to 1"),
        (["--dp", "2", "--steps", "2", "--stop-rank", "0"], "too few to be interrupted"),
        (["--dp", "2", "--then", "dp=3"], "4 rows of a step cannot be dealt out to dp 3"),
        (["--dp", "2", "vocab_size=70"], "vocab_size: not a field"),
        (["--dp", "2", "--then", "size=3"], "size"),
    ],
)
def test_wrong_options_are_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        main(["train-replay", *words])


def test_a_gradient_after_a_resume_is_held_to_the_bound_of_gradients():
    for dtype, bound in (("float32", 1e-5), ("float16", 1e-2)):
        bounds = TrainingBounds.of(dtype)
        assert bounds.later_gradient == bounds.gradient == bound and bounds.scale == 0.0


def test_a_last_line_that_a_kill_has_cut_does_not_count(tmp_path):
    (tmp_path / "steps.jsonl").write_text('{"step": 4, "norm": NaN}\n{"step": 5, "lo')
    trace = Trace.read(tmp_path)
    assert [line["step"] for line in trace.steps] == [4] and trace.first == 4


@pytest.mark.parametrize("as_json", [False, True])
def test_a_difference_above_its_bound_gives_exit_code_1_and_is_named(tmp_path, monkeypatch, capsys, as_json):
    where = "step 3, rank 1"
    found = Difference("loss", 0.5, 1e-5, where)
    leg = LegReport("tp 2", 1, 3, (0, None), (4.0, 3.9, 3.8), (2,), (1.0, 1.0, 1.0), 9.0)
    asked = []

    def replayed(config, legs, folder):
        asked.append((config, legs))
        return TrainingReport((leg,), (found,), f"{where} (loss: 0.5, bound 1e-05)", {"ranks": 9.0})

    monkeypatch.setattr(train_replay, "replay_training", replayed)
    words = [
        "--tp",
        "2",
        "--steps",
        "7",
        "--kill-rank",
        "1",
        "--then",
        "dp=2",
        "--then",
        "tp=1",
        "dropout=0.1",
    ]
    words += ["--chip", "910A", "--batch-size", "4", "--output", str(tmp_path / "out")] + ["--json"] * as_json
    assert main(["train-replay", *words]) == 1
    said = capsys.readouterr()
    assert f"first difference: {where}" in (said.err if as_json else said.out)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["first"].startswith(where)
    ((config, (killed, resumed)),) = asked
    assert (config.run.chip, config.model.dropout, config.run.checkpoint.every) == ("910A", 0.1, 3)
    assert killed == Leg(ParallelPlan(tp=2), 4, 7, Interruption(1, signal.SIGKILL, 4))
    assert resumed == Leg(ParallelPlan(dp=2), 2, 7)
    if not as_json:
        assert "steps 1 to 3 on tp 2: exit codes 0 ended, loss 4.000000 to 3.800000" in said.out
        assert "skipped 2" in said.out and "above its bound" in said.out
