"""The axes named in a table of operators: what they mean on the grid of one stage, and their sizes.

The devices of a stage form a grid: dp outermost, then tp, or the axes into which a found table divides tp.
All other names, such as "sp" or "dp+tp0", stand for some of these axes, outermost first. Knows no operator.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping

from pangu_alpha.config.operator_table import DATA, TENSOR, joined
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.parallel.mesh import Mesh


def grid(plan: ParallelPlan) -> dict[str, int]:
    """Size of each axis of a stage, outermost first."""
    return {name: size for name, size in Mesh.of(plan).axes.items() if name != "pp"}


def single(axis: str | None, plan: ParallelPlan) -> tuple[str, ...]:
    """The axes of the grid that a name stands for, outermost first; none for a whole dimension."""
    if axis is None:
        return ()
    tensor = tuple(grid(plan))[1:]
    known = {
        TENSOR: tensor,
        "sp": (DATA, *tensor) if plan.sequence_parallel else (DATA,),
        "vp": tensor if plan.vocab_parallel else (),
        "lp": (DATA,) if plan.vocab_parallel else (DATA, *tensor),
    }
    return tuple(itertools.chain.from_iterable(known.get(name, (name,)) for name in axis.split("+")))


def degree(axis: str | None, plan: ParallelPlan) -> int:
    """Number of parts into which a name cuts a dimension."""
    sizes = grid(plan)
    return math.prod(sizes[name] for name in single(axis, plan))


def part_at(names: Iterable[str], sizes: Mapping[str, int], coordinates: Mapping[str, int]) -> int:
    """Index of the part at given coordinates, if several axes, outermost first, cut one dimension."""
    number = 0
    for name in names:
        number = number * sizes[name] + coordinates[name]
    return number


def written(names: Iterable[str], plan: ParallelPlan) -> str | None:
    """Axes of the grid as one name, without axes of one device; None if none is left."""
    wide = [name for name, size in grid(plan).items() if size > 1]
    return joined([name for name in names if name in wide], [name for name in wide if name != DATA])
