"""Numbers that look random and depend on their place alone."""

from __future__ import annotations

import numpy as np

from pangu_alpha.data.hashing import cell_number, column_numbers, device_seeds, head_numbers, mix64


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


def test_seeds_are_of_stream_and_cell():
    streams = [(seed, data, tensor) for seed in (1, 2) for data in range(8) for tensor in range(8)]
    seeds = {device_seeds(stream, salt) for stream in streams for salt in range(50)}
    assert len(seeds) == len(streams) * 50
    assert all(0 < word < 2**31 for pair in seeds for word in pair)
    assert device_seeds((1, 2, 3), 4) == device_seeds([1, 2, 3], 4)
