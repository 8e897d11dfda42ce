"""Learning rate, bias correction and dropout keys are functions of the step."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.training.schedule import (
    dropout_rows,
    learning_rate,
    row_numbers,
    schedule_note,
    update_scalars,
)


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


def test_dropout_keys_differ_and_repeat():
    keys = np.stack([dropout_rows(seed, step, range(4), 64) for seed in (1, 2) for step in range(50)])
    assert keys.dtype == np.int32 and keys.shape == (100, 4, 64) and (keys % 2 == 1).all()
    assert (
        len(np.unique(keys)) >= keys.size - 2
    )  # of 25,600 odd 32-bit numbers 0.15 pairs are equal by chance
    assert np.array_equal(keys[7], dropout_rows(1, 7, range(4), 64))


def test_a_row_s_keys_do_not_depend_on_who_reads_it_in_how_many_micro_batches():
    whole = dropout_rows(3, 5, range(12), 16)
    for micro_batches, ranks, batch_size in ((1, 1, 12), (3, 2, 2), (2, 3, 2), (6, 1, 2), (1, 4, 3)):
        read = [row_numbers(micro_batches, rank, ranks, batch_size) for rank in range(ranks)]
        order = np.stack(read, 1).ravel()  # micro-batch by micro-batch, all ranks: as samples are dealt out
        assert order.tolist() == list(range(12))
        for rows in read:
            assert np.array_equal(dropout_rows(3, 5, rows.ravel(), 16), whole[rows.ravel()])
    assert np.array_equal(dropout_rows(3, 5, range(12), 9), whole[:, :9])


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
