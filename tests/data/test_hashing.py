"""Numbers that look random and depend on their place alone."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.data.hashing import cell_number, column_numbers, device_seeds, head_numbers, mix64, salted


def test_mix64_is_splitmix64():
    # the first outputs of the published generator from seed 1234567, whose state grows by the same constant
    state = np.uint64(1234567) + np.uint64(0x9E3779B97F4A7C15) * np.arange(3, dtype=np.uint64)
    assert mix64(state).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_number_depends_on_its_place_and_not_on_the_count():
    assert np.array_equal(column_numbers(100)[:7], column_numbers(7))
    assert np.array_equal(head_numbers(16)[4:8], head_numbers(4, 4))


def test_numbers_are_odd_and_all_of_a_network_s_differ():
    columns, heads = column_numbers(16384), head_numbers(128)
    cells = np.array([cell_number(salt) for salt in range(200)], np.int32)
    numbers = np.concatenate([columns, heads, cells])
    assert numbers.dtype == np.int32 and (numbers % 2 == 1).all()
    assert len(set(numbers.tolist())) == len(numbers)
    bits = np.unpackbits(columns.view(np.uint8).reshape(-1, 4), axis=1).mean(0)
    assert np.abs(np.delete(bits, 7) - 0.5).max() < 0.02  # 7 is the lowest bit, which is always set


def related(numbers, largest):
    """Products a * b of factors up to `largest` with a * x = b * y modulo 2^32 for two of the numbers."""
    numbers = np.asarray(numbers, np.int32)
    signed = [factor for size in range(1, largest + 1) for factor in (size, -size)]
    with np.errstate(over="ignore"):
        multiples = np.concatenate([numbers * np.int32(factor) for factor in signed])
    factors, places = np.repeat(signed, len(numbers)), np.tile(np.arange(len(numbers)), len(signed))
    order = np.argsort(multiples, kind="stable")
    multiples, factors, places = multiples[order], factors[order], places[order]
    meet = np.flatnonzero((multiples[1:] == multiples[:-1]) & (places[1:] != places[:-1]))
    return set(np.abs(factors[meet] * factors[meet + 1]).tolist())


def layers(heads):
    """Factors of all masks of 64 layers: residual stream, then attention."""
    attention = [salted(head_numbers(heads), 3 * layer + 1) for layer in range(64)]
    return np.concatenate([[cell_number(salt) for salt in range(193)], *attention])


@pytest.mark.parametrize(("numbers", "smallest"), [(column_numbers(16384), 5), (layers(128), 21)])
def test_no_two_numbers_stand_in_a_small_ratio(numbers, smallest):
    """Such masks would be correlated in every step: x and y with a x = b y by less than 1 / (a b rate)."""
    assert min(related(numbers, 8)) == smallest
    assert 15 in related([3, 5, 7 * 2**20 + 1], 6)


def test_seeds_are_of_stream_and_cell():
    streams = [(seed, data, tensor) for seed in (1, 2) for data in range(8) for tensor in range(8)]
    seeds = {device_seeds(stream, salt) for stream in streams for salt in range(50)}
    assert len(seeds) == len(streams) * 50
    assert all(0 < word < 2**31 for pair in seeds for word in pair)
    assert device_seeds((1, 2, 3), 4) == device_seeds([1, 2, 3], 4)
