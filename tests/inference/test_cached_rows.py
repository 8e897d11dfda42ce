"""Lengths and documents of cached rows, against a list of ids for each row."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.inference.cached_rows import CachedRows

END, CONTEXT = 9, 12


def starts_of(ids):
    """First place of the document of each id, one by one."""
    start, found = 0, []
    for place, each in enumerate(ids):
        found.append(start)
        if each == END:
            start = place + 1
    return found


def test_any_order_of_calls_equals_lists():
    rows, random, held = CachedRows(3, CONTEXT, END), np.random.default_rng(0), [[], [], []]
    for _ in range(500):
        row, other = (int(each) for each in random.integers(3, size=2))
        draw = random.random()
        if draw < 0.3:
            start = int(random.integers(len(held[row]) + 1))
            new = random.choice([5, END], random.integers(0, CONTEXT - start + 1)).astype(np.int32)
            if len(new):
                held[row] = held[row][:start] + list(new)
                assert list(rows.write(row, new, start)) == starts_of(held[row])[start:]
        elif draw < 0.4:
            length = int(random.integers(len(held[row]) + 1))
            rows.copy(row, other, length)
            held[other] = held[row][:length]
        else:
            active = np.array([len(each) < CONTEXT and random.random() < 0.5 for each in held])
            tokens = random.choice([5, END], 3).astype(np.int32)
            slots, starts = rows.step(tokens, active)
            for n in range(3):
                place = (CONTEXT, CONTEXT)
                if active[n]:
                    held[n].append(tokens[n])
                    place = (len(held[n]) - 1, starts_of(held[n])[-1])
                assert (slots[n], starts[n]) == place
        assert list(rows.lengths) == list(map(len, held))


def test_a_row_that_is_full_takes_no_more():
    rows = CachedRows(1, 2, END)
    rows.write(0, np.array([1, 2], np.int32), 0)
    with pytest.raises(AssertionError, match="full"):
        rows.step(np.array([3], np.int32), np.array([True]))
