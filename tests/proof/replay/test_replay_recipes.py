"""Faults of the recipe, which a replay sees since its reference has an optimizer of its own.

One recipe has it all: a first update of 0, a warm-up, bias correction, and clipping that never acts.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.proof.replay.replay import Setting, compile_ranks, replay
from pangu_alpha.proof.replay.suite import UNCLIPPED, WARM_UP, job, suite
from pangu_alpha.training import schedule

_SPEC = importlib.util.spec_from_file_location("controls", Path(__file__).parents[1] / "controls.py")
controls = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(controls)

JOB = job(ParallelPlan(dp=2), layers=1, recipe=replace(UNCLIPPED, warmup_steps=4, bias_correction=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Replays JOB, compiled once."""
    folder = tmp_path_factory.mktemp("recipes")
    compiled = compile_ranks(JOB, folder)
    return lambda **setting: replay("recipes", JOB, folder, Setting(**setting), compiled=compiled)


def ratios(report):
    return {each.kind: each.ratio for each in report.differences}


@pytest.mark.long
def test_warm_up_bias_correction_and_inactive_clipping_agree_with_numpy(run):
    report = run()
    assert report.passed, report.table()
    assert report.recipe.rates == (0.0, 2.5e-3, 5e-3)


@pytest.mark.long
def test_an_overflow_is_counted_by_the_bias_correction_of_both_sides(run):
    report = run(overflow=1)
    assert report.passed, report.table()


@pytest.mark.long
def test_a_learning_rate_of_another_step_does_not_pass(run, monkeypatch):
    right = schedule.learning_rate
    monkeypatch.setattr(schedule, "learning_rate", lambda step, optim: right(step + 1, optim))
    found = ratios(run())
    assert found["weight"] > 10 and found["gradient"] <= 1  # the first gradient is that of the same weights


@pytest.mark.long
def test_a_bias_correction_that_is_left_out_does_not_pass(run, monkeypatch):
    right = schedule.update_scalars
    monkeypatch.setattr(
        schedule,
        "update_scalars",
        lambda step, optim, skipped=0: right(step, replace(optim, bias_correction=False), skipped),
    )
    found = ratios(run())
    assert found["weight"] > 10 and found["gradient"] <= 1  # the first gradient is that of the same weights


@pytest.mark.long
def test_tokens_that_are_not_summed_do_not_pass_where_clipping_is_inactive(run):
    found = ratios(run(edit_graphs=controls.leave_out_token_sum))
    assert found["gradient"] > 10 and found["weight"] > 10 and found["norm"] > 10


def test_the_suite_has_recipes_with_every_part():
    recipes = {each.optim for each in suite().values()}
    assert {WARM_UP, UNCLIPPED} <= recipes
    assert WARM_UP.warmup_steps > 0 and WARM_UP.bias_correction and UNCLIPPED.clip_norm > 100
