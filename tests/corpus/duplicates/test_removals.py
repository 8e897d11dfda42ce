"""The copy kept is the first by rank and id, and nothing is removed for a copy that it does not resemble."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.corpus.duplicates import exact_removals, near_removals, removals


def blocks_of(columns, size):
    for start in range(0, len(columns[0]), size):
        yield tuple(each[start : start + size] for each in columns)


def rows_of(blocks):
    return [
        row
        for each in blocks
        for row in zip(each.id.tolist(), each.kept.tolist(), each.copies.tolist(), strict=True)
    ]


def in_order(*columns):
    order = np.lexsort([each if each.ndim == 1 else each[:, 0] for each in columns][::-1])
    return tuple(each[order] for each in columns)


@pytest.mark.parametrize("seed", range(4))
def test_exact_copies_by_a_plain_loop_and_any_blocks(seed):
    rng = np.random.default_rng(seed)
    high, low = rng.integers(0, 4, (2, 40)).astype(np.uint64)
    rank, id = rng.integers(0, 3, 40), rng.permutation(40)
    columns = high, low, rank, id = in_order(high, low, rank, id)
    expected = []
    for key in sorted({*zip(high.tolist(), low.tolist(), strict=True)}):
        group = id[(high == key[0]) & (low == key[1])].tolist()
        expected += [(each, group[0], 1) for each in group[1:]]
        expected += [(group[0], group[0], len(group))] if len(group) > 1 else []
    for size in (1, 2, 3, 7, 40):
        assert rows_of(exact_removals(blocks_of(columns, size))) == expected
    assert rows_of(exact_removals([])) == []


def one_by_one(columns, threshold):
    """The rule of `near_removals` as it is said, without blocks."""
    expected, labels = [], columns[0]
    for label in dict.fromkeys(labels.tolist()):
        _, _, id, copies, rows = (each[labels == label] for each in columns)
        leaders = []
        for place in range(len(id)):
            near = [each for each in leaders if (rows[each["place"]] == rows[place]).mean() >= threshold]
            if near:
                near[0]["copies"] += int(copies[place])
                near[0]["joined"] += 1
                expected.append((int(id[place]), near[0]["id"], int(copies[place])))
            else:
                new = {"place": place, "id": int(id[place]), "copies": int(copies[place]), "joined": 0}
                leaders.append(new)
        expected += [(each["id"], each["id"], each["copies"]) for each in leaders if each["joined"]]
    return expected


def components(seed, count=30, hashes=20):
    """Documents of components of which most are copies, and some chains."""
    rng = np.random.default_rng(seed)
    parts = []
    for label in range(count):
        size = int(rng.integers(1, 9))
        rows = np.repeat(rng.integers(0, 9, (1, hashes)), size, 0).astype(np.uint32)
        if label % 3 == 0:
            for place in range(1, size):
                rows[place] = rows[place - 1]
                rows[place, rng.integers(0, hashes, 5)] = 100 + place
        id = rng.integers(0, 10**6, size) * 100 + label
        parts.append((np.full(size, label), rng.integers(0, 3, size), id, rng.integers(1, 5, size), rows))
    label, rank, id, copies, rows = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.lexsort((id, rank, label))
    return tuple(each[order] for each in (label, rank, id, copies, rows))


@pytest.mark.parametrize("seed", range(4))
def test_near_copies_by_a_plain_loop_and_any_blocks(seed):
    columns = components(seed)
    expected = one_by_one(columns, 0.74)
    assert any(a == b for a, b, _ in expected) and len({a for a, _, _ in expected}) == len(expected)
    for size in (1, 2, 5, 50, 1000):
        assert rows_of(near_removals(blocks_of(columns, size), 0.74)) == expected
    assert rows_of(near_removals([], 0.74)) == []


def test_every_removed_document_agrees_with_the_one_kept_and_counts_add_up():
    label, rank, id, copies, rows = columns = components(9, count=200)
    [found] = near_removals([columns], 0.74)
    row = {each: place for place, each in enumerate(id.tolist())}
    gone = found.removed
    for a, b in zip(found.id[gone].tolist(), found.kept[gone].tolist(), strict=True):
        assert (rows[row[a]] == rows[row[b]]).mean() >= 0.74
        assert (rank[row[b]], b) < (rank[row[a]], a)
    left = {*id.tolist()} - {*found.id[gone].tolist()}
    stands_for = {each: int(copies[row[each]]) for each in left}
    stands_for.update(zip(found.id[~gone].tolist(), found.copies[~gone].tolist(), strict=True))
    assert sum(stands_for.values()) == copies.sum()


def test_a_giant_of_copies_and_one_of_strangers(monkeypatch):
    monkeypatch.setattr(removals, "_ROWS", 64)
    monkeypatch.setattr(removals, "MOST_LEADERS", 50)
    strangers = np.arange(1, 300 * 20 + 1, dtype=np.uint32).reshape(300, 20)
    rows = np.concatenate([np.zeros((10_000, 20), np.uint32), strangers, strangers[:60]])
    label = np.repeat([1, 2], [10_000, 360])
    id = np.arange(len(rows))
    columns = label, np.zeros_like(id), id, np.ones_like(id), rows
    for size in (333, 20_000):
        found = rows_of(near_removals(blocks_of(columns, size), 0.74))
        assert found[:10_000] == [*((each, 0, 1) for each in range(1, 10_000)), (0, 0, 10_000)]
        # strangers beyond the first 50 are kept, but nobody is compared with them
        again = [(10_300 + each, 10_000 + each, 1) for each in range(50)]
        assert found[10_000:] == [*again, *((10_000 + each, 10_000 + each, 2) for each in range(50))]
