from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.proof.dry_run.job import Slice
from pangu_alpha.proof.replay.slices import Piece, gather, region

WEIGHT = np.arange(32.0, dtype=np.float32).reshape(8, 4)


def layout(tensor_map, slice_shape, matrix=(2, 2), group=""):
    return Slice(matrix, tensor_map, (8, 4), slice_shape, group)


def test_tensor_map_counts_axes_of_the_device_matrix_from_the_last():
    by_last, by_first = layout((0, -1), (4, 4)), layout((-1, 1), (8, 2))
    rows = [WEIGHT[region(by_last, rank, (4, 4), ())][0, 0] for rank in range(4)]
    columns = [WEIGHT[region(by_first, rank, (8, 2), ())][0, 0] for rank in range(4)]
    assert rows == [0, 16, 0, 16]
    assert columns == [0, 0, 2, 2]


def test_the_optimizers_sharding_cuts_the_rows_of_the_slice_by_place_in_the_group():
    sharded = layout((0, -1), (4, 4), group="2-17")
    groups = {0: (0, 2), 1: (1, 3), 2: (0, 2), 3: (1, 3)}
    first = [WEIGHT[region(sharded, rank, (2, 4), groups[rank])][0, 0] for rank in range(4)]
    assert first == [0, 16, 8, 24]
    with pytest.raises(ValueError, match="holds"):
        region(sharded, 0, (3, 4), groups[0])


def test_gather_is_the_inverse_and_tells_where_copies_differ():
    cut = layout((0, -1), (4, 4))
    pieces = [
        Piece(rank, part, WEIGHT[part].copy())
        for rank in range(4)
        for part in [region(cut, rank, (4, 4), ())]
    ]
    whole = gather((8, 4), pieces)
    assert (whole.values == WEIGHT).all() and whole.spread == 0.0
    assert whole.owner[:4].max() == 0 and whole.owner[4:].min() == 1
    pieces[3].values[1, 1] += 0.5
    assert (gather((8, 4), pieces).spread, gather((8, 4), pieces).spread_rank) == (0.5, 3)
    with pytest.raises(ValueError, match="16 elements"):
        gather((8, 4), pieces[::2])
