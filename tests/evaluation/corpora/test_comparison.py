"""The figures of a comparison of corpora, by hand."""

import math

import pytest

from pangu_alpha.evaluation.corpora.comparison import (
    CorporaComparison,
    Development,
    Variant,
    comparison_text,
)


def compared(first, second):
    """A comparison with these bits a character, by seed."""
    variants = (Variant(name, 10, 1000, 1.5, tuple(bits)) for name, bits in (("A", first), ("B", second)))
    return CorporaComparison(*variants, Development(12, 3, 1), 400, 600)


def test_a_corpus_is_better_if_it_is_with_every_seed():
    found = compared([8.0, 8.2, 8.1], [7.5, 7.8, 7.5])
    assert found.gap == pytest.approx(0.5)
    # sample variances 0.01 and 0.03
    assert found.sigmas == pytest.approx(0.5 / math.sqrt(0.02))
    assert found.better == "B"
    text = comparison_text(found)
    assert (
        "B is better with 3 of 3 seeds, by 0.5000 bits a character in the mean, 3.5 standard deviations"
        in text
    )
    assert "| B | 10 | 1,000 | 1.50 | 7.5000 | 7.8000 | 7.5000 | 7.6000 | 0.1732 |" in text
    assert "12 lines, 3 of them removed" in text


def test_the_first_corpus_can_win():
    found = compared([7.0, 7.1], [7.2, 7.2])
    assert found.better == "A"
    assert "A is better with 2 of 2 seeds, by 0.1500 bits" in comparison_text(found)


def test_one_seed_that_says_otherwise_leaves_it_open():
    found = compared([8.0, 8.0, 8.0], [7.5, 8.1, 7.0])
    assert found.better is None
    assert "no corpus is better with every seed: B is with 2 of 3" in comparison_text(found)


def test_equal_seeds_have_no_deviation():
    assert compared([8.0, 8.0], [7.0, 7.0]).sigmas == math.inf
