"""Rounds of stars find the components of union-find and of scipy, however streams are cut into blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pangu_alpha.corpus.duplicates import (
    Checksum,
    connected,
    distinct,
    large_star,
    members,
    small_star,
    star_edges,
)


def union_find(u, v):
    """Least id of the component of each id that has a smaller one in it."""
    parent = {}

    def root(each):
        while parent.setdefault(each, each) != each:
            parent[each] = parent[parent[each]]
            each = parent[each]
        return each

    for a, b in zip(u.tolist(), v.tolist(), strict=True):
        a, b = root(a), root(b)
        parent[max(a, b)] = min(a, b)
    return {each: root(each) for each in parent if root(each) != each}


def blocks_of(columns, size):
    for start in range(0, len(columns[0]), size):
        yield tuple(each[start : start + size] for each in columns)


def joined(blocks, columns=2):
    found = list(blocks)
    if not found:
        return tuple(np.empty(0, np.int64) for _ in range(columns))
    return tuple(np.concatenate(each) for each in zip(*found, strict=True))


def in_order(*columns):
    order = np.lexsort(columns[::-1])
    return tuple(each[order] for each in columns)


def rounds(u, v, size):
    """What an engine does: exchange, large star, exchange, small star, until the checksum repeats."""
    count, before = 0, None
    while True:
        entering = Checksum()
        both = in_order(np.append(u, v), np.append(v, u))
        large = joined(large_star(blocks_of(both, size), entering))
        if entering == before:
            return *in_order(*joined(distinct(blocks_of(in_order(u, v), size)))), count
        u, v = joined(small_star(blocks_of(in_order(*large), size)))
        before, count = entering, count + 1


def graph(kind, seed=0):
    rng = np.random.default_rng(seed)
    if kind == "random":
        u, v = rng.integers(0, 600, (2, 500))
    elif kind == "sparse":
        u, v = rng.integers(0, 10**15, (2, 200))
    elif kind == "chain":
        names = rng.permutation(300)
        u, v = names[1:], names[:-1]
    elif kind == "chain in order":
        u, v = np.arange(1, 300), np.arange(299)
    elif kind == "star":
        u, v = np.arange(1, 400), np.full(399, 0)
    elif kind == "star of the largest":
        u, v = np.full(399, 999), np.arange(399)
    elif kind == "giant":
        u, v = rng.integers(0, 3000, (2, 9000))
    else:
        u, v = np.empty((2, 0), np.int64)
    u, v = np.maximum(u, v).astype(np.int64), np.minimum(u, v).astype(np.int64)
    return u[u != v], v[u != v]


KINDS = ("random", "sparse", "chain", "chain in order", "star", "star of the largest", "giant", "nothing")


@pytest.mark.parametrize("kind", KINDS)
def test_rounds_union_find_and_scipy_agree(kind):
    for seed in range(5 if kind in ("random", "sparse") else 1):
        u, v = graph(kind, seed)
        expected = sorted(union_find(u, v).items())
        ids, labels = connected(u, v)
        assert [*zip(ids.tolist(), labels.tolist(), strict=True)] == expected
        for size in (1, 7, 10**6) if len(u) < 1000 else (10**6,):
            ids, labels, count = rounds(u, v, size)
            assert [*zip(ids.tolist(), labels.tolist(), strict=True)] == expected
            assert count <= 12


def test_a_bucket_is_a_star_around_its_least_document():
    key = np.array([-5, -5, 3, 3, 3, 4, 9, 9], np.int64)
    id = np.array([1, 2, 5, 6, 9, 7, 2, 9], np.int64)
    for size in range(1, 9):
        u, v = joined(star_edges(blocks_of((key, id), size)))
        assert (u.tolist(), v.tolist()) == ([2, 6, 9, 9], [1, 5, 5, 2])


def test_a_hot_bucket_is_streamed():
    """A million copies come in blocks; each is handed on before the next one is asked for."""
    asked = []

    def blocks():
        for number in range(100):
            asked.append(number)
            yield np.zeros(100, np.int64), np.arange(number * 100, number * 100 + 100)

    for number, (u, v) in enumerate(star_edges(blocks())):
        assert len(asked) == number + 1 and not v.any() and len(u) == 100 - (number == 0)
    assert len(asked) == 100


def test_distinct_compares_across_blocks_and_empty_ones():
    columns = (np.array([1, 1, 1, 2, 2, 3]), np.array([4, 4, 5, 5, 5, 5]))
    for size in range(1, 7):
        blocks = itertools.chain.from_iterable(
            (each, (columns[0][:0], columns[1][:0])) for each in blocks_of(columns, size)
        )
        a, b = joined(distinct(blocks))
        assert (a.tolist(), b.tolist()) == ([1, 1, 2, 3], [4, 5, 5, 5])


def test_members_names_each_label_once():
    id, label = np.array([3, 4, 9, 8, 7]), np.array([1, 1, 1, 2, 5])
    for size in range(1, 6):
        a, b = joined(members(blocks_of((id, label), size)))
        assert (a.tolist(), b.tolist()) == ([1, 3, 4, 9, 2, 8, 5, 7], [1, 1, 1, 1, 2, 2, 5, 5])


def test_a_checksum_knows_neither_order_nor_parts_but_every_edge():
    rng = np.random.default_rng(0)
    u, v = rng.integers(100, 200, 50), rng.integers(0, 100, 50)
    whole, first, second, other, swapped = (Checksum() for _ in range(5))
    whole.add(u, v)
    order = rng.permutation(50)
    first.add(u[order][:20], v[order][:20])
    second.add(np.append(u[order][20:], v), np.append(v[order][20:], u))  # the other direction does not count
    assert first + second == whole and first != whole
    other.add(np.append(u[:-1], 777), np.append(v[:-1], v[-1]))
    swapped.add(u, np.roll(v, 1))
    assert other != whole and swapped != whole and len({whole, first + second}) == 1
