"""The bigram is a distribution, and the one of the formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pangu_alpha.data.manifest import Vocabulary
from pangu_alpha.data.windows import make_batch
from pangu_alpha.evaluation.kneser_ney import KneserNeyBigram
from pangu_alpha.evaluation.perplexity import Score, score_bigram, token_pairs


def test_probabilities_sum_to_one():
    rng = np.random.default_rng(0)
    tokens = rng.zipf(1.5, 3000) % 40
    bigram = KneserNeyBigram(50, [(tokens[:-1], tokens[1:])])
    everything = np.arange(50)
    for previous in (0, 1, 7, 39, 49):  # 49 never occurred
        total = np.exp(bigram.log_probability(np.full(50, previous), everything)).sum()
        assert total == pytest.approx(1.0, abs=1e-12)


def test_a_case_by_hand():
    # pairs: 0 1, 0 1, 0 2, 1 0; ids 0..3, discount 0.75
    bigram = KneserNeyBigram(4, [(np.array([0, 0, 0, 1]), np.array([1, 1, 2, 0]))])
    lower = (1 - 0.75) / 3 + 0.75 * 3 / 3 / 4  # each of 1, 2, 0 has one predecessor; 3 kinds seen
    unseen = 0.75 * 3 / 3 / 4
    expected = [
        (2 - 0.75) / 3 + 0.75 * 2 / 3 * lower,  # P(1 | 0)
        0.75 * 2 / 3 * unseen,  # P(3 | 0)
        unseen,  # P(3 | 3), a context never seen
    ]
    found = np.exp(bigram.log_probability(np.array([0, 0, 3]), np.array([1, 3, 3])))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_padding_is_not_scored():
    windows = np.array([[10, 11, 12, 6, 6]], np.int32)
    batch = make_batch(windows, np.zeros(1), Vocabulary("", 20, "<eod>", 8, 6))
    pairs = token_pairs([batch])
    assert [list(map(list, pair)) for pair in pairs] == [[[10, 11, 12], [11, 12, 6]]]
    bigram = KneserNeyBigram(20, pairs)
    assert score_bigram(bigram, [batch]) == pytest.approx(-bigram.log_probability(*pairs[0]).mean())


def test_units():
    score = Score("x", math.log(8.0), tokens=100, characters=150)
    assert score.perplexity == pytest.approx(8.0)
    assert score.bits_per_character == pytest.approx(2.0)
