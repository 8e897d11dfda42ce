"""The functions agree with the C library to a few units in the last place."""

from __future__ import annotations

import math

import numpy as np

from pangu_alpha.corpus.quality.exact_math import exp, log, sigmoid


def test_exp_log_and_sigmoid():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-700, 700, 20000), rng.uniform(-1, 1, 20000), [0, 1, -1, 700, -700]])
    expected = np.array([math.exp(each) for each in x])
    assert (np.abs(exp(x) / expected - 1) < 5e-15).all()
    assert exp(np.array([0.0])) == 1 and exp(np.array([1e9])) == exp(np.array([700.0]))
    positive = np.concatenate(
        [np.exp(rng.uniform(-600, 600, 20000)), rng.uniform(0.5, 2, 20000), [1, 0.5, 2]]
    )
    expected = np.array([math.log(each) for each in positive])
    assert (np.abs(log(positive) - expected) <= 4e-16 * np.abs(expected) + 4e-16).all()
    assert log(np.array([1.0])) == 0
    assert sigmoid(np.array([0.0])) == 0.5
    assert abs(sigmoid(np.array([-2.0]))[0] - 1 / (1 + math.exp(2))) < 1e-15
