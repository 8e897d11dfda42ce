"""Learning rate, bias correction and dropout seeds are functions of the step."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.training.schedule import dropout_seed, learning_rate, schedule_note, update_scalars


def test_learning_rate_is_the_official_one(oracle_training):
    peak, end, warmup, decay = oracle_training["train/lr_schedule_args"]
    optim = OptimConfig(
        learning_rate=float(peak),
        end_learning_rate=float(end),
        warmup_steps=int(warmup),
        decay_steps=int(decay),
    )
    found = [learning_rate(step, optim) for step in range(14)]
    np.testing.assert_allclose(found, oracle_training["train/lr_by_step"], rtol=1e-6, atol=1e-12)


def test_first_update_has_learning_rate_zero_and_the_last_the_floor():
    optim = OptimConfig(learning_rate=1e-3, end_learning_rate=1e-5, warmup_steps=10, decay_steps=100)
    assert learning_rate(0, optim) == 0.0
    assert learning_rate(9, optim) < learning_rate(10, optim) < 1e-3  # the cosine has begun at step 0
    assert learning_rate(100, optim) == learning_rate(1000, optim) == pytest.approx(1e-5)


def test_without_bias_correction_the_recipe_is_passed_on():
    scalars = update_scalars(3000, OptimConfig())
    assert (scalars.epsilon, scalars.decay) == (1e-8, 0.1)
    assert scalars.learning_rate == learning_rate(3000, OptimConfig())


def test_dropout_seeds_differ_and_repeat():
    seeds = {dropout_seed(seed, step, micro) for seed in (1, 2) for step in range(50) for micro in range(4)}
    assert len(seeds) == 400 and all(-(2**31) <= seed < 2**31 for seed in seeds)
    assert dropout_seed(1, 2, 3) == dropout_seed(1, 2, 3)


def test_a_warm_up_beyond_the_cosine_is_said():
    assert schedule_note(OptimConfig()) is schedule_note(OptimConfig(warmup_steps=0, decay_steps=1)) is None
    optim = OptimConfig(learning_rate=1e-3, end_learning_rate=1e-5, warmup_steps=10, decay_steps=8)
    rates = [learning_rate(step, optim) for step in range(12)]
    assert rates[9] == pytest.approx(9e-4) and rates[10] == rates[11] == 1e-5
    assert schedule_note(optim).endswith("from the peak the learning rate falls to 1e-05 at once")


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999999])
@pytest.mark.parametrize("step, skipped", [(0, 0), (7, 7), (7, 0), (10**18, 5)])
def test_no_recipe_gives_numbers_that_are_not_finite(beta, step, skipped):
    extremes = ({}, {"epsilon": 1e-30}, {"learning_rate": 1e30}, {"decay_steps": 1, "warmup_steps": 0})
    for values in extremes:
        optim = OptimConfig(beta1=beta, beta2=beta, bias_correction=True, **values)
        scalars = np.float32([*vars(update_scalars(step, optim, skipped)).values()])
        assert np.isfinite(scalars).all() and scalars[1] > 0, (values, scalars)
