"""Packing texts into passes: each token of their tree once, each attends to its own ancestors only."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.inference.packing import common_length, document_starts, pack

END = 9


def texts_of(seed, count, longest, words=3):
    """Sorted texts of few words, so that many begin alike; some hold the end of a document."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, count)
    return sorted((*rng.integers(END - words, END + 1, length).tolist(),) for length in lengths)


def replay(texts, sizes, slots):
    """What each text's tokens attend to, read from the slots that the passes wrote; and all passes."""
    held, seen, passes = {}, [{} for _ in texts], list(pack(texts, sizes, slots, END))
    path = {}
    for each in passes:
        for part in each.parts:
            for depth in range(part.first, part.stop):
                row = part.row + depth - part.first
                held[each.slots[row]] = (depth, int(each.ids[row]), int(each.positions[row]))
        for part in each.parts:
            for depth in range(part.first, part.stop):
                row = part.row + depth - part.first
                path[depth] = [held[slot] for slot in np.flatnonzero(each.mask[row])]
            for depth in range(part.stop):
                seen[part.text][depth] = path[depth]
    return seen, passes


@pytest.mark.parametrize(("seed", "longest"), [(0, 5), (1, 20), (2, 50), (3, 50)])
def test_every_token_attends_to_the_earlier_ones_of_its_document(seed, longest):
    texts = texts_of(seed, 60, longest)
    seen, passes = replay(texts, (8, 16), 50 + 16)
    for text, found in zip(texts, seen, strict=True):
        start = 0
        for depth, token in enumerate(text):
            expected = [(d, text[d], d - start) for d in range(start, depth + 1)]
            assert sorted(found[depth]) == expected
            start = depth + 1 if token == END else start
    tree = {text[: depth + 1] for text in texts for depth in range(len(text))}
    assert sum(each.count for each in passes) == len(tree)
    assert all(each.full and len(each.ids) == 16 for each in passes[:-1])


def test_padding_attends_to_itself_in_a_slot_of_its_own():
    (only,) = pack([(1, 2, 3)], (8, 16), 40, END)
    assert len(only.ids) == 8 and only.count == 3
    assert len(set(only.slots.tolist())) == 8
    np.testing.assert_array_equal(only.mask[3:].sum(1), 1)
    np.testing.assert_array_equal(only.mask[np.arange(8), only.slots], 1)


def test_a_slot_is_not_written_twice_in_a_pass_nor_while_its_token_is_needed():
    texts = [(1,) * 30 + (n,) * 25 for n in range(2, 9)]
    for each in list(pack(texts, (16,), 55 + 16, END)):
        assert len(set(each.slots.tolist())) == 16
    seen, _ = replay(texts, (16,), 55 + 16)
    assert [len(found[54]) for found in seen] == [55] * 7


def test_equal_texts_are_computed_once():
    (only,) = pack([(1, 2), (1, 2), (1, 2)], (8,), 20, END)
    assert only.count == 2
    assert [(part.first, part.stop) for part in only.parts] == [(0, 2), (2, 2), (2, 2)]


def test_common_length():
    assert common_length((1, 2, 3), (1, 2, 4)) == 2
    assert common_length((1, 2), [1, 2, 4]) == 2
    assert common_length((), (1,)) == common_length((5,), (1,)) == 0


def test_document_starts():
    assert document_starts((1, END, 2, 3, END, END, 4), END).tolist() == [0, 0, 2, 2, 2, 5, 6]
