"""The grid of devices in MindSpore's rank order: coordinates and ranks, groups along each axis, stages.

Ranks are stage-major: rank = (stage * dp + data) * tp + tensor. Knows no device, server or table.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pangu_alpha.config.parallel import ParallelPlan

# The order of the axes everywhere, outermost first: a rank is a number whose digits are the coordinates.
AXES = ("pp", "dp", "tp")
RANK_ORDER = AXES[::-1]  # from neighbouring ranks outwards, as MindSpore assigns ranks
COORDINATE_OF = {"pp": "stage", "dp": "data", "tp": "tensor"}
STAGE_AXES = tuple(axis for axis in AXES if axis != "pp")  # along which the ranks of one stage differ


class Coordinates(NamedTuple):
    """Place of a rank on the grid, each coordinate from 0.

    Args:
        data: Index of the data parallel replica, below dp.
        stage: Index of the pipeline stage, below pp.
        tensor: Index in the tensor parallel group, below tp.
    """

    data: int
    stage: int
    tensor: int

    def along(self, axis: str) -> int:
        """The coordinate along an axis, by the name of its degree: "dp", "pp" or "tp"."""
        return getattr(self, COORDINATE_OF[axis])


@dataclass(frozen=True)
class Mesh:
    """A grid of dp * pp * tp ranks.

    Args:
        dp: Number of data parallel replicas.
        tp: Number of devices that share a matrix product.
        pp: Number of pipeline stages.
        tensor: Name and size of the axes into which a found table divides tp, outermost first; () leaves tp
            undivided.

    Raises:
        ValueError: A degree is not a positive integer.
    """

    dp: int = 1
    tp: int = 1
    pp: int = 1
    tensor: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        for axis in AXES:
            degree = self.degree(axis)
            if not isinstance(degree, int) or degree < 1:
                raise ValueError(f"{axis}: {degree!r} must be a whole number of at least 1")

    @staticmethod
    def of(plan: ParallelPlan) -> Mesh:
        """The grid of a plan."""
        return _mesh(plan.dp, plan.tp, plan.pp, () if plan.table is None else tuple(plan.table.axes.items()))

    @functools.cached_property  # asked for each rank of thousands
    def size(self) -> int:
        """Number of ranks."""
        return math.prod(map(self.degree, AXES))

    @functools.cached_property
    def stage_size(self) -> int:
        """Number of ranks in a stage."""
        return math.prod(map(self.degree, STAGE_AXES))

    @property
    def row_holders(self) -> int:
        """Number of ranks that read the same rows of the batch: the product of all axes but "dp"."""
        return self.size // self.degree("dp")

    def degree(self, axis: str) -> int:
        """Number of ranks along an axis.

        Raises:
            ValueError: The axis is none of "dp", "pp", "tp".
        """
        if axis not in AXES:
            raise ValueError(f"axis: {axis!r} is not one of {', '.join(AXES)}")
        return getattr(self, axis)

    @property
    def axes(self) -> dict[str, int]:
        """Size of every axis, outermost first; the axes into which tp is divided replace tp."""
        return {"pp": self.pp, "dp": self.dp, **(dict(self.tensor) or {"tp": self.tp})}

    def digits(self, rank: int) -> dict[str, int]:
        """A rank's coordinate along every one of `axes`.

        Raises:
            ValueError: The rank lies outside the grid.
        """
        self._check(rank)
        found = {}
        for axis, size in self._innermost_first:
            rank, found[axis] = divmod(rank, size)
        return found

    @functools.cached_property
    def _innermost_first(self) -> tuple[tuple[str, int], ...]:
        return tuple(reversed(self.axes.items()))

    def rank(self, data: int = 0, stage: int = 0, tensor: int = 0) -> int:
        """The rank at the given coordinates.

        Raises:
            ValueError: A coordinate lies outside the grid.
        """
        for axis, value in zip(AXES, (stage, data, tensor), strict=True):
            if not 0 <= value < self.degree(axis):
                raise ValueError(
                    f"coordinate {value} along {axis} lies outside 0..{self.degree(axis) - 1} of {self}"
                )
        return (stage * self.dp + data) * self.tp + tensor

    def coordinates(self, rank: int) -> Coordinates:
        """The coordinates of a rank.

        Raises:
            ValueError: The rank lies outside the grid.
        """
        self._check(rank)
        line, tensor = divmod(rank, self.tp)
        stage, data = divmod(line, self.dp)
        return Coordinates(data, stage, tensor)

    def _check(self, rank: int) -> None:
        if not 0 <= rank < self.size:
            raise ValueError(f"rank {rank} lies outside 0..{self.size - 1} of {self}")

    def group(self, axis: str, rank: int) -> tuple[int, ...]:
        """The ranks of the line through `rank` along an axis, in the order of their coordinates.

        The line along "dp" averages gradients, the one along "tp" shares matrix products, and the one along
        "pp" is one pipeline.
        """
        place = self.coordinates(rank)
        step = {"tp": 1, "dp": self.tp, "pp": self.tp * self.dp}[axis] if self.degree(axis) else 0
        first = rank - place.along(axis) * step
        return tuple(first + i * step for i in range(self.degree(axis)))

    def groups(self, axis: str) -> list[tuple[int, ...]]:
        """All lines along an axis, ordered by their first ranks; every rank is in exactly one."""
        return sorted({self.group(axis, rank) for rank in range(self.size)})

    def stage_of(self, rank: int) -> int:
        """The pipeline stage of a rank."""
        return self.coordinates(rank).stage

    def stage_ranks(self, stage: int) -> tuple[int, ...]:
        """The ranks of a stage, which are consecutive."""
        first = self.rank(stage=stage)
        return tuple(range(first, first + self.stage_size))

    def axis_of(self, group: Sequence[int]) -> str:
        """Names the part of the grid that a communication group covers, in any order of its ranks.

        Returns:
            "self" (one rank); an axis ("dp", "pp", "tp") of which the group is a whole line; "world"; a
            combination of whole axes, outermost first ("dp+tp" is a stage); "pp pair" (first and last stage
            of a pipeline, which share the tied table), "pp hop" (two neighbouring stages); "dp part", "pp
            part", "tp part" (some ranks of one line); or "other".

        Raises:
            ValueError: The group is empty, or holds a rank twice or one outside the grid.
        """
        ranks = set(group)
        if not ranks or len(ranks) != len(group):
            raise ValueError(f"group {tuple(group)} must hold at least one rank, and none twice")
        places = [self.coordinates(rank) for rank in sorted(ranks)]
        if len(places) == 1:
            return "self"
        varying = [axis for axis in AXES if len({place.along(axis) for place in places}) > 1]
        if len(ranks) == math.prod(self.degree(axis) for axis in varying):
            return "world" if len(varying) > 1 and len(ranks) == self.size else "+".join(varying)
        if len(varying) > 1:
            return "other"
        return self._part_of_line(varying[0], [place.along(varying[0]) for place in places])

    def _part_of_line(self, axis: str, values: list[int]) -> str:
        if axis == "pp" and values == [0, self.pp - 1]:
            return "pp pair"
        if axis == "pp" and len(values) == 2 and values[1] - values[0] == 1:
            return "pp hop"
        return f"{axis} part"

    def counterpart(self, group: Sequence[int], rank: int) -> tuple[int, ...]:
        """Moves a group to another rank: returns the one with the same role for `rank` as `group` has.

        Args:
            group: Some ranks; along the axes in which they differ, their coordinates are kept.
            rank: Gives the coordinates along the other axes.

        Returns:
            As many ranks, in the same order.
        """
        own = self.digits(rank)
        moved = {axis: own[axis] for axis in self.shared_axes(group)}
        return tuple(self._rank_at(self.digits(each) | moved) for each in group)

    def _rank_at(self, digits: Mapping[str, int]) -> int:
        """The rank with the given coordinates along `axes`."""
        rank = 0
        for axis, size in self.axes.items():
            rank = rank * size + digits[axis]
        return rank

    def shared_axes(self, group: Sequence[int]) -> tuple[str, ...]:
        """The axes along which all ranks of a group have the same coordinate, outermost first."""
        places = [self.digits(each) for each in group]
        return tuple(axis for axis in self.axes if len({place[axis] for place in places}) == 1)

    def __str__(self) -> str:
        return f"the grid dp {self.dp}, tp {self.tp}, pp {self.pp}"


@functools.lru_cache(1 << 10)  # a search and a layout ask for the same few grids thousands of times
def _mesh(dp: int, tp: int, pp: int, tensor: tuple[tuple[str, int], ...]) -> Mesh:
    return Mesh(dp, tp, pp, tensor)
