"""The part of a parameter that a rank holds, derived from the layout that MindSpore gave it; NumPy only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pangu_alpha.proof.dry_run.job import Slice

Region = tuple[slice, ...]


def region(layout: Slice, place: int, own_shape: Sequence[int], group: Sequence[int]) -> Region:
    """The part of the whole parameter that a rank holds.

    Args:
        place: Index of the rank among the ranks of its stage.
        own_shape: Shape of the parameter in the rank's graph; smaller than the slice if the optimizer's
            sharding cuts it.
        group: Indices, among the ranks of the stage, of those that share the slice's rows.

    Raises:
        ValueError: If layout and graph contradict each other.
    """
    coordinates = np.unravel_index(place, layout.device_matrix)
    cuts = []
    for axis, size in zip(layout.tensor_map, layout.slice_shape, strict=True):
        # MindSpore counts the axes of its device matrix from the last one.
        part = 0 if axis < 0 else int(coordinates[len(layout.device_matrix) - 1 - axis])
        cuts.append(slice(part * size, (part + 1) * size))
    if tuple(own_shape) != layout.slice_shape:
        rows, begin = own_shape[0], cuts[0].start + group.index(place) * own_shape[0]
        cuts[0] = slice(begin, begin + rows)
        if rows * len(group) != layout.slice_shape[0] or tuple(own_shape[1:]) != layout.slice_shape[1:]:
            raise ValueError(f"a rank holds {list(own_shape)} of {layout} shared by {list(group)}")
    return tuple(cuts)


@dataclass(frozen=True)
class Piece:
    """The part of a tensor that a rank holds, with its values.

    Args:
        region: Which part of the whole it is.
        values: Its elements, in the region's shape.
    """

    rank: int
    region: Region
    values: np.ndarray


@dataclass(frozen=True)
class Gathered:
    """A whole tensor, assembled from ranks.

    Args:
        values: The elements; where several ranks hold one, that of the lowest rank.
        owner: The rank from which each element was taken.
        spread: Largest difference between two ranks that hold the same element.
        spread_rank: The rank that differs most.
    """

    values: np.ndarray
    owner: np.ndarray
    spread: float
    spread_rank: int


def gather(shape: Sequence[int], pieces: Iterable[Piece]) -> Gathered:
    """Assembles a tensor.

    Args:
        pieces: Pieces in ascending order of their ranks.

    Raises:
        ValueError: If some elements are on no rank.
    """
    values, owner = np.zeros(shape, np.float32), np.full(shape, -1)
    spread, worst = 0.0, -1
    for piece in pieces:
        known = owner[piece.region] >= 0
        differs = np.where(known, np.abs(values[piece.region] - piece.values), 0.0)
        largest = float(differs.max(initial=0.0))
        if largest > spread or np.isnan(largest):
            spread, worst = largest, piece.rank
        values[piece.region] = np.where(known, values[piece.region], piece.values)
        owner[piece.region] = np.where(known, owner[piece.region], piece.rank)
    if (owner < 0).any():
        raise ValueError(f"{int((owner < 0).sum())} elements of {list(shape)} are on no rank")
    return Gathered(values, owner, spread, worst)
