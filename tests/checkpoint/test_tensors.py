from __future__ import annotations

from pathlib import Path

import pytest

from pangu_alpha.checkpoint.tensors import Box, Piece, Stored, spans, whole


def test_boxes_meet_in_a_box():
    first, second = Box((0, 4), (6, 4)), Box((4, 0), (9, 6))
    assert first.intersect(second) == second.intersect(first) == Box((4, 4), (2, 2))
    assert first.intersect(Box((6, 0), (1, 9))) is None  # they touch
    assert first.stop == (6, 8) and first.size == 24 and whole([3, 2]) == Box((0, 0), (3, 2))
    assert Box((4, 4), (2, 2)).within(first) == (slice(4, 6), slice(0, 2))


def test_a_flipped_tensor_has_the_same_bytes():
    piece = Piece(Box((2, 0), (1, 5)), Path("a"), ((8, 20),), "float32")
    flipped = Stored((3, 5), (piece,)).flipped
    assert flipped.shape == (5, 3) and flipped.pieces[0].box == Box((0, 2), (5, 1))
    assert flipped.pieces[0].transposed and flipped.pieces[0].extents == piece.extents
    assert flipped.pieces[0].stored_shape == piece.stored_shape == (1, 5)
    assert flipped.flipped == Stored((3, 5), (piece,))


@pytest.mark.parametrize(
    ("start", "length", "found"),
    [
        (0, 10, [(100, 0, 4), (200, 4, 3), (300, 7, 3)]),
        (5, 1, [(201, 0, 1)]),
        (3, 2, [(103, 0, 1), (200, 1, 1)]),
        (4, 3, [(200, 0, 3)]),
        (10, 0, []),
    ],
)
def test_spans_of_scattered_bytes(start, length, found):
    assert [*spans(((100, 4), (200, 3), (300, 9)), start, length)] == found
