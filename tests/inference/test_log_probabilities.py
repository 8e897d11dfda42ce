"""Log-probabilities against numpy's longest floats, where probabilities are tiny, equal or overflow."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.inference.log_probabilities import log_normalizer, nats, top

LOGITS = (np.random.default_rng(0).standard_normal((5, 1000)) * 4).astype(np.float32)


def exact(logits):
    wide = logits.astype(np.longdouble)
    wide -= wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("shift", [0.0, 300.0, -3000.0])
def test_nats_are_those_of_the_softmax(shift):
    logits = LOGITS + np.float32(shift)  # beyond the range of exp in float32
    labels = np.array([0, 7, 999, 500, 3])
    expected = -exact(logits)[np.arange(5), labels].astype(np.float64)
    np.testing.assert_allclose(nats(logits, labels), expected, rtol=1e-6, atol=1e-6)
    assert nats(logits, labels).dtype == np.float64
    np.testing.assert_allclose(
        log_normalizer(logits) - logits[:, 4], -exact(logits)[:, 4].astype(float), atol=1e-5
    )


def test_unlikely_ids_are_told_apart():
    """At e^-60 and e^-200 the training loss would give the same."""
    logits = np.full((1, 50), -60, np.float32)
    logits[0, 0], logits[0, 1] = 0, -200
    assert nats(logits, np.array([1])) - nats(logits, np.array([2])) == pytest.approx(140)
    assert nats(logits, np.array([0])) == pytest.approx(0, abs=1e-12)


def test_top_is_a_stable_sort():
    logits = np.round(LOGITS)  # many are equal, also the last one chosen
    ids, found = top(logits, 20)
    for line in range(5):
        order = np.argsort(-logits[line], kind="stable")[:20]
        assert np.array_equal(ids[line], order)
        np.testing.assert_allclose(found[line], exact(logits)[line, order].astype(float), atol=1e-6)
    assert ids.dtype == np.int32 and found.dtype == np.float32


def test_top_of_a_small_vocabulary_and_of_banned_ids():
    ids, found = top(np.array([[1.0, -np.inf, 3.0]], np.float32))
    assert ids.tolist() == [[2, 0, 1]]
    np.testing.assert_allclose(found[0, :2], [-0.126928, -2.126928], atol=1e-6)
    assert found[0, 2] == -np.inf
    assert top(LOGITS, 0)[0].shape == (5, 0)


def test_logits_that_are_not_finite_stay_so():
    logits = LOGITS.copy()
    logits[1, 3] = np.nan
    ids, found = top(logits, 4)
    assert np.isnan(found[1]).all() and ids.shape == (5, 4)
    assert np.isfinite(found[[0, 2, 3, 4]]).all() and np.isnan(nats(logits, np.zeros(5, int))[1])
