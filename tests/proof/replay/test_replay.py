"""Replays of small plans, and of plans that were broken on purpose; the full suite is `suite()`."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.proof.graph.rewrite import RewriteOptions
from pangu_alpha.proof.replay.replay import ReplayError, Setting, compile_ranks, misplaced, replay
from pangu_alpha.proof.replay.rows import Overflow, micro_batches, rows_of_step
from pangu_alpha.proof.replay.rows import controls as controls_of
from pangu_alpha.proof.replay.suite import SCALED, by_type_and_operators, job, quick, suite
from pangu_alpha.proof.replay.worker import STATES

HERE = Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location("controls", HERE / "controls.py")
controls = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(controls)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Gives (job, folder, reports) of a plan of the quick suite, compiled once."""
    done = {}

    def get(name):
        if name not in done:
            folder = tmp_path_factory.mktemp("replay")
            done[name] = (quick()[name], folder, compile_ranks(quick()[name], folder))
        return done[name]

    return get


@pytest.fixture
def run(compiled):
    """Replays a plan of the quick suite; gives the report and the folder."""

    def call(name, **setting):
        job_, folder, reports = compiled(name)
        return replay(name, job_, folder, Setting(**setting), compiled=reports), folder

    return call


@pytest.fixture
def patched(monkeypatch, tmp_path):
    """Replays a job whose compilation is patched by a function of controls.py."""

    def call(job_, control):
        monkeypatch.setenv("PYTHONPATH", str(HERE))
        return replay(control, replace(job_, patch=controls.patch(control)), tmp_path)

    return call


def states(folder, rank):
    return np.load(folder / f"rank_{rank:05d}" / STATES)


def ratio(report, *kinds):
    return max(report.difference(kind).ratio for kind in kinds)


def test_every_device_counts_another_number_of_tokens():
    odd = job(ParallelPlan(dp=2, micro_batches=2))
    rows = rows_of_step(odd, 0)
    counts = rows[2].reshape(2, 2, -1).sum(-1)  # [data-parallel rank, micro-batch]
    assert counts.sum(0)[0] != counts.sum(0)[1] and counts.sum(1)[0] != counts.sum(1)[1]
    assert rows[2][0, 0].sum() == 0
    assert sum(batch[2].sum() for batch in micro_batches(odd, rows)) == rows[2].sum()
    assert (rows[3] == 0).sum() > rows[3].size / rows[3].shape[-1]  # documents begin within rows, too


@pytest.mark.parametrize("name", quick())
def test_a_plan_computes_what_one_device_computes(run, name):
    report, _ = run(name)
    assert report.passed, report.table()
    assert min(report.losses) > 1.0 and report.collectives > 0
    assert f"{name}: pass. " in report.table()


@pytest.mark.long  # shorter than that, a step that overflows is skipped by all stages below
def test_an_overflow_of_one_data_parallel_rank_is_known_to_the_other(run):
    report, folder = run("dp2", overflow=1)
    assert report.passed, report.table()
    assert [bool(states(folder, rank)["1/applied"]) for rank in range(2)] == [False, False]


def test_swapped_slices_do_not_pass(run):
    report, _ = run("tp2, odd vocabulary", edit_inputs=controls.swap_slices)
    assert not report.passed
    assert ratio(report, "loss") > 10 and ratio(report, "gradient") > 10
    assert report.first.startswith("step 1, rank 0")


def test_an_all_reduce_left_out_does_not_pass(run):
    report, _ = run("tp2, odd vocabulary", edit_graphs=controls.leave_out_all_reduce)
    assert not report.passed
    assert ratio(report, "loss") > 10 and ratio(report, "gradient") > 10


def test_an_all_reduce_left_out_on_one_rank_is_seen_before_anything_runs(run):
    with pytest.raises(ReplayError, match="rank 1, collective .* waits for rank 0"):
        run("tp2, odd vocabulary", edit_graphs=controls.leave_out_on_rank_0)


def test_a_tied_gradient_that_is_not_summed_does_not_pass(run):
    report, _ = run("pp2, 2 micro-batches", edit_graphs=controls.forget_tied_gradient)
    assert not report.passed
    assert ratio(report, "gradient") > 10
    assert ratio(report, "norm") > 10


# Behind the others of its plan: one device is trained anew where the setting changes.
def test_an_overflow_on_one_rank_skips_the_step_on_all_and_changes_nothing(run):
    report, folder = run("pp2, 2 micro-batches", overflow=1)
    assert report.passed, report.table()
    for rank in range(2):
        held = states(folder, rank)
        assert [bool(held[f"{step}/applied"]) for step in range(3)] == [True, False, True]
        assert not np.isfinite(held["1/norm"])
        trained = [key for key in held if key.startswith("1/state/") and "word_embedding" not in key]
        same = [np.array_equal(held[key], held["0" + key[1:]]) for key in trained if "controls" not in key]
        assert all(same) and len(same) > 40


@pytest.mark.long  # shorter than that, the next one is of a job that is broken before it is compiled
def test_a_mean_of_means_does_not_pass(patched):
    report = patched(job(ParallelPlan(dp=2, micro_batches=2), layers=1), "mean_of_means")
    assert not report.passed
    assert ratio(report, "gradient") > 10 and ratio(report, "loss") > 10


def test_a_norm_that_counts_a_tensor_twice_does_not_pass(patched):
    report = patched(job(ParallelPlan(tp=2), layers=1), "norm_counts_twice")
    assert not report.passed
    assert ratio(report, "norm") > 10
    assert report.first.startswith("step 1, rank 0 (norm: ")


@pytest.mark.long  # shorter than that, test_a_wrong_table... compares placements with the table
def test_a_strategy_against_the_table_does_not_pass(patched):
    report = patched(job(ParallelPlan(tp=2), layers=1), "wrong_strategy")
    assert not report.passed
    assert any(
        "feed_forward.up.weight is [128, 32], by the table [64, 32]" in line for line in report.placement
    )
    assert ratio(report, "norm") > 10  # it counts by the table how many devices hold a tensor


def test_a_wrong_table_changes_no_number_but_what_a_device_holds(monkeypatch, tmp_path):
    # MindSpore keeps a network's meaning whatever its strategies are, and the norm is counted by the table
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    wrong = replace(job(ParallelPlan(tp=2), layers=1), patch=controls.patch("wrong_table"))
    reports = compile_ranks(wrong, tmp_path)
    found = list(misplaced(reports, wrong))
    assert len(found) == 2 * 8  # ranks, weights and biases of query, key, value and up
    assert "rank 1: query_layer.feed_forward.up.bias is [128], by the table [64]" in found


@pytest.mark.parametrize("changed", [{"seed": None}, {"model": {"compute_dtype": "bfloat16"}}])
def test_jobs_that_cpu_cannot_run_are_refused(tmp_path, changed):
    asked = job(ParallelPlan(dp=2), **changed.pop("model", {}))
    with pytest.raises(ValueError, match="compute_dtype .* CPU can run a network in float32 and float16"):
        replay("x", replace(asked, **changed), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_loss_scale_is_that_of_the_job_unless_the_step_is_to_overflow():
    scaled = job(ParallelPlan(dp=2), recipe=SCALED)
    mask = np.ones((4, 8), np.float32)
    assert controls_of(scaled, 0, mask)[1] == 2.0**16 / 32
    assert controls_of(job(ParallelPlan(dp=2)), 0, mask)[1] == 1 / 32
    fault = Overflow(1, 2.0**24)
    assert [fault.loss_scale(step) for step in range(3)] == [None, 2.0**24, None]
    assert controls_of(scaled, 0, mask, loss_scale=2.0**24)[1] == 2.0**24 / 32
    assert [fault.by_weight(step) for step in range(3)] == [False] * 3
    assert [Overflow(1).by_weight(step) for step in range(3)] == [False, True, False]
    assert Overflow(1).loss_scale(1) is None


@pytest.mark.long
@pytest.mark.parametrize("name", by_type_and_operators())
def test_float16_and_ascend_s_operators_compute_what_one_device_computes(tmp_path, name):
    report = replay(name, by_type_and_operators()[name], tmp_path)
    assert report.passed, report.table()


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Gives (job, folder, reports) of dp 2 in float16 on a 910A, compiled once."""
    asked = replace(job(ParallelPlan(dp=2), 1, SCALED, compute_dtype="float16"), chip="910A")
    folder = tmp_path_factory.mktemp("half")
    return asked, folder, compile_ranks(asked, folder)


def overflowing(half, **setting):
    """Replays a second step that float16 cannot hold; gives the report and, by rank, which were applied."""
    asked, folder, reports = half
    setting = Setting(overflow=1, overflow_scale=2.0**24, **setting)
    report = replay("overflow", asked, folder, setting, compiled=reports)
    return report, [[bool(states(folder, rank)[f"{step}/applied"]) for step in range(3)] for rank in range(2)]


@pytest.mark.long
def test_an_overflow_that_arises_in_float16_skips_the_step_on_all_ranks(half):
    report, applied = overflowing(half, options=RewriteOptions(saturates=False))
    assert report.passed, report.table()
    assert applied == [[True, False, True]] * 2
    for rank in range(2):
        held = states(half[1], rank)
        trained = [key for key in held if key.startswith("1/state/") and "controls" not in key]
        assert all(np.array_equal(held[key], held["0" + key[1:]]) for key in trained) and len(trained) > 40


@pytest.mark.long
def test_an_overflow_that_saturates_skips_the_step_on_all_ranks(half):
    report, applied = overflowing(half)  # as a 910A does
    assert report.passed, report.table()
    assert applied == [[True, False, True]] * 2


@pytest.mark.long
def test_a_saturated_overflow_without_the_check_does_not_pass(half):
    report, applied = overflowing(half, edit_graphs=controls.forget_status)
    assert applied == [[True, True, True]] * 2
    assert not report.passed and ratio(report, "skip") > 10 and ratio(report, "weight") > 10
    assert report.first.startswith("step 2, rank 0 (skip: ")


def test_the_suite_holds_every_way_of_splitting():
    plans = [each.plan for each in suite().values()]
    assert {(plan.dp, plan.tp, plan.pp) for plan in plans} >= {
        (4, 1, 1),
        (1, 4, 1),
        (2, 2, 1),
        (2, 2, 2),
        (1, 1, 4),
    }
    assert any(
        plan.optimizer_parallel != "none"
        and plan.recompute == "full"
        and plan.sequence_parallel
        and plan.pp > 1
        for plan in plans
    )
    assert {plan.optimizer_parallel for plan in plans if plan.pp > 1} == {"none", "level1", "level2"}
    assert {plan.optimizer_parallel for plan in plans if plan.gradient_fusion} == {"none", "level1", "level2"}
    scales = [each.optim.loss_scale.initial for each in suite().values() if each.optim.clip_norm > 100]
    assert 2.0**16 in scales
