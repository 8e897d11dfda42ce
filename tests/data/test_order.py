"""The order of samples: a true permutation, proportions kept at every prefix."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pangu_alpha.data.order import Mixture, Permutation, window_at

PINNED = [1, 7, 0, 2, 8, 4, 3, 5, 9, 6, 3, 4, 8, 5, 0, 6, 1, 9, 7, 2]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 16, 17, 97, 1000, 65536, 65537])
def test_every_epoch_is_a_permutation(size):
    order = Permutation(size, seed=3, name="news")
    for epoch in (0, 1, 9):
        windows = order(np.arange(epoch * size, (epoch + 1) * size))
        assert windows.dtype == np.int64
        assert np.array_equal(np.sort(windows), np.arange(size))


def test_epochs_seeds_and_sources_have_orders_of_their_own():
    def first_epoch(seed: int, name: str, epoch: int = 0) -> tuple[int, ...]:
        return tuple(Permutation(50, seed, name)(np.arange(epoch * 50, epoch * 50 + 50)))

    orders = {first_epoch(1, "a"), first_epoch(2, "a"), first_epoch(1, "b"), first_epoch(1, "a", epoch=1)}
    assert len(orders) == 4
    assert first_epoch(1, "a") == first_epoch(1, "a")


def test_the_order_is_pinned():
    # A changed order would silently change what a resumed run reads.
    assert Permutation(10, seed=1, name="novel")(np.arange(20)).tolist() == PINNED
    assert [window_at(n, 10, 1, "novel") for n in range(20)] == PINNED


@pytest.mark.parametrize(("size", "orders"), [(4, 24), (5, 120), (6, 720)])
def test_all_orders_are_equally_likely(size, orders):
    epochs = orders * 100
    drawn = Permutation(size, seed=1)(np.arange(epochs * size)).reshape(epochs, size)
    counts = Counter(map(tuple, drawn.tolist()))
    chi_square = sum((count - 100) ** 2 / 100 for count in counts.values()) + (orders - len(counts)) * 100
    assert chi_square < orders - 1 + 5 * np.sqrt(2 * (orders - 1))  # mean and five standard deviations


def test_neighbours_in_the_order_are_not_neighbours_in_the_corpus():
    windows = Permutation(100_000, seed=1)(np.arange(100_000))
    assert abs(np.corrcoef(windows[:-1], windows[1:])[0, 1]) < 0.02
    assert np.mean(windows[:1000] < 50_000) == pytest.approx(0.5, abs=0.06)


def test_a_huge_corpus_costs_nothing():
    size = 250_000_000_000
    windows = Permutation(size, seed=1)(np.arange(3 * size, 3 * size + 1000))
    assert len(set(windows.tolist())) == 1000 and windows.max() < size and windows.min() >= 0


def test_without_shuffle_the_written_order_repeats():
    assert Permutation(3, shuffle=False)(np.arange(7)).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_no_window_has_no_order():
    with pytest.raises(ValueError, match="at least 1"):
        Permutation(0)


WEIGHTS = [
    {"only": 0.3},
    {"a": 1, "b": 2, "c": 3},
    {"a": 0.27, "b": 0.1, "c": 0.18, "d": 0.01, "e": 0.44},
    {"a": 1.0, "b": 1e-9},
    {"a": 0.123456789, "b": 0.7, "c": 3.33333333, "d": 0.0217},
]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_prefix_keeps_the_proportions(weights):
    mixture = Mixture(weights)
    sources, draws = mixture(np.arange(150_000))
    shares = np.array(list(mixture.shares.values()))
    assert shares.sum() == pytest.approx(1)
    wanted = np.array(list(weights.values())) / sum(weights.values())
    assert np.abs(shares - wanted).max() <= 1 / 65536
    for source, share in enumerate(shares):
        mine = sources == source
        assert np.array_equal(draws[mine], np.arange(mine.sum()))
        deviation = np.abs(np.cumsum(mine) - share * np.arange(1, 150_001))
        assert deviation.max() <= 0.5 + share * len(weights) / 2 + 1e-9


@pytest.mark.parametrize("weights", WEIGHTS)
def test_counts_agree_with_the_samples(weights):
    mixture = Mixture(weights)
    for samples in (0, 1, 777, mixture.period, 2 * mixture.period + 5):
        sources, _ = mixture(np.arange(samples))
        assert mixture.counts(samples).tolist() == np.bincount(sources, minlength=len(weights)).tolist()


def test_decimal_weights_are_exact():
    mixture = Mixture({"a": 0.1, "b": 0.2, "c": 0.7})
    assert mixture.period == 10
    assert mixture.counts(1000).tolist() == [100, 200, 700]


def test_a_named_source_is_read_however_small_its_weight():
    assert Mixture({"big": 1.0, "small": 1e-12}).counts(65536).tolist() == [65535, 1]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_bad_weights_are_refused(weight):
    with pytest.raises(ValueError, match="'b'.*positive and finite"):
        Mixture({"a": 1.0, "b": weight})
