"""Skipped updates are counted, the loss scale follows overflows, and the state comes back bit for bit."""

from __future__ import annotations

import json
import math

import pytest

from pangu_alpha.config.optim import LossScaleConfig
from pangu_alpha.config.run import GuardConfig
from pangu_alpha.training.guard import TrainingHaltedError, make_guard


def test_loss_scale_halves_on_overflow_and_doubles_after_a_clean_window():
    guard = make_guard(GuardConfig(), LossScaleConfig(initial=2.0**10, window=3), "float16")
    guard.observe(math.inf, False)
    assert guard.scale.value == 2.0**9 and guard.skipped == 1 and guard.skipped_in_row == 0
    for _ in range(3):
        guard.observe(1.0, True)
    assert guard.scale.value == 2.0**10


def test_the_loss_scale_never_becomes_infinite():
    """It would stay so: every later step overflows, and half of infinity is infinity."""
    guard = make_guard(GuardConfig(), LossScaleConfig(factor=1e300, window=1), "float16")
    guard.observe(1.0, True)
    assert guard.scale.value == 3.0e38
    guard.observe(math.inf, False)
    assert guard.scale.value == 1.0


def test_no_scaling_outside_float16_unless_asked_for():
    assert make_guard(GuardConfig(), LossScaleConfig(), "float32").scale.value == 1.0
    assert make_guard(GuardConfig(), LossScaleConfig(), "bfloat16").scale.value == 1.0
    assert make_guard(GuardConfig(), LossScaleConfig(mode="dynamic"), "float32").scale.value == 2.0**32
    assert make_guard(GuardConfig(), LossScaleConfig(mode="off"), "float16").scale.value == 1.0


def test_nan_stops_the_run_after_the_stated_number():
    guard = make_guard(GuardConfig(max_skipped=3), LossScaleConfig(), "float32")
    guard.observe(math.nan, False)
    guard.observe(math.nan, False)
    with pytest.raises(TrainingHaltedError, match="3 updates in a row"):
        guard.observe(math.nan, False)


def test_the_key_that_skipped_is_named():
    guard = make_guard(GuardConfig(spike_factor=2.0, max_skipped=1), LossScaleConfig(), "float32")
    with pytest.raises(TrainingHaltedError, match=r"norm 1.23457, .* or raise run.guard.spike_factor, and"):
        guard.observe(1.2345678901, False)
    guard = make_guard(GuardConfig(max_skipped=1), LossScaleConfig(), "float32")
    with pytest.raises(TrainingHaltedError, match="or raise run.guard.max_skipped, and"):
        guard.observe(math.nan, False)


def test_overflow_at_scale_one_counts():
    guard = make_guard(GuardConfig(max_skipped=2), LossScaleConfig(initial=2.0), "float16")
    guard.observe(math.inf, False)  # lowers the scale to 1
    guard.observe(math.inf, False)
    with pytest.raises(TrainingHaltedError):
        guard.observe(math.inf, False)


def test_the_first_steps_of_a_run_that_lower_the_scale_do_not_use_up_the_limit():
    """From 2^32 to a scale of 2^13, say, that fits: 19 skipped steps, and 3 are allowed."""
    guard = make_guard(GuardConfig(max_skipped=3), LossScaleConfig(), "float16")
    while guard.scale.value > 2.0**13:
        guard.observe(math.inf, False)
    assert (guard.skipped, guard.skipped_in_row) == (19, 0)
    guard.observe(1.0, True)
    assert guard.scale.value == 2.0**13


def test_a_spike_is_told_from_the_running_mean():
    guard = make_guard(GuardConfig(spike_factor=5.0), LossScaleConfig(), "float32")
    assert guard.largest_norm() > 1e38
    for _ in range(30):
        guard.observe(2.0, True)
    assert guard.largest_norm() == pytest.approx(10.0)
    guard.observe(50.0, False)
    assert guard.skipped == 1 and guard.mean_norm == pytest.approx(2.0)  # the spike is not in the mean


def test_state_survives_json_bit_for_bit():
    guard = make_guard(GuardConfig(spike_factor=5.0), LossScaleConfig(initial=2.0**20), "float16")
    for norm in (0.1, 0.7, 1.0 / 3.0):
        guard.observe(norm, True)
    other = make_guard(GuardConfig(spike_factor=5.0), LossScaleConfig(), "float16")
    assert isinstance(guard.state()["scale"]["value"], float)
    other.restore(json.loads(json.dumps(guard.state())))
    assert other.state() == guard.state() and other.largest_norm() == guard.largest_norm()


@pytest.mark.parametrize(
    "change",
    [
        {"steps": -1},
        {"steps": 1.5},
        {"mean_norm": math.inf},
        {"mean_norm": None},
        {"skipped": True},
        {"scale": {"value": "high", "clean_steps": 0}},
        {"scale": 1.0},
        {"config": {}},
    ],
)
def test_what_is_no_state_is_refused(change):
    guard = make_guard(GuardConfig(), LossScaleConfig(), "float16")
    with pytest.raises(ValueError, match="not the state of a guard"):
        guard.restore(guard.state() | change)
