"""Which tokens each rule counts, by the worked examples of its source."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import Reader

from pangu_alpha.evaluation.running.scoring_rules import scored_text

P, END, PAD = 3, Reader.end_of_document, 0


def score(rule, nats, context=12):
    """The score of three prefix ids and an id for each of `nats`; the end costs 0.5, padding 0.25."""
    whole = [10, 11, 12, *range(20, 20 + len(nats))]
    text = scored_text(rule, whole[:P], whole, Reader(context))
    cost = dict(zip(whole[P:], nats, strict=True)) | {END: 0.5, PAD: 0.25, 11: 1.0, 12: 1.0}
    assert text.pair == (text.ids[: text.first], text.ids)
    return sum(cost[each] for each in text.ids[text.first :]) / text.divisor


def test_exact_counts_all_after_the_prefix_and_released_does_not():
    right, wrong = [2.0, 1.0, 3.0], [1.0, 1.6, 3.2]
    assert score("exact", right) == pytest.approx(2.0)
    assert score("exact", wrong) == pytest.approx(1.9333, abs=1e-4)
    assert score("released", right) == pytest.approx(1.5)  # (1.0 + 3.0 + 0.5) / 3
    assert score("released", wrong) == pytest.approx(1.7667, abs=1e-4)


def test_sum_and_mean_choose_differently():
    assert score("sum", [2.0] * 3) < score("sum", [1.6] * 4)
    assert score("exact", [2.0] * 3) > score("exact", [1.6] * 4)


def test_opencompass_divides_by_one_too_many():
    # 4 and 2 predicted tokens, all of the same cost
    whole = scored_text("opencompass", [], [1, 2, 3, 4, 5], Reader())
    assert (whole.first, whole.divisor) == (1, 5)
    assert 2.5 * 4 / 5 > 2.8 * 2 / 3 and 2.5 < 2.8


def test_c3_and_csl_divide_by_the_context():
    assert score("released_c3", [2.0, 1.0, 3.0]) == pytest.approx((1.0 + 3.0 + 0.25) / 12)
    padding = 13 - 6  # the context, and one more to be predicted
    assert score("released_csl", [2.0, 1.0, 3.0]) == pytest.approx((2 + 6 + 0.25 * padding) / 12)


def test_a_border_that_moves_counts_from_the_common_beginning():
    text = scored_text("exact", [10, 11, 12], [10, 11, 30, 31], Reader())
    assert (text.first, text.divisor) == (2, 2)


def test_without_a_prefix_the_end_of_document_is_what_predicts():
    text = scored_text("exact", [], [20, 21], Reader())
    assert (text.ids, text.first, text.divisor) == ((END, 20, 21), 1, 2)


def test_something_is_always_left_to_score():
    text = scored_text("exact", [10, 11], [10, 11], Reader())
    assert (text.first, text.divisor) == (1, 1)
    released = scored_text("released", [10, 11, 12, 13], [10, 11], Reader())
    assert (released.ids[released.first :], released.divisor) == ((END,), 1)
    assert np.isfinite(score("released_csl", [1.0]))
