"""The collectives that bring a tensor from one layout into another, and how many bytes each sends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pangu_alpha.planner.operators.block import ALIKE, PARTIAL, ROWS


class Step(NamedTuple):
    """A collective operation.

    Args:
        operation: "AllReduce", "AllGather", "ReduceScatter" or "AlltoAll".
        group: Number of devices that take part.
        bytes: Payload: the input, or for an AllGather the output.
    """

    operation: str
    group: int
    bytes: float


def sent(step: Step) -> float:
    """Bytes that each device sends when the operation runs in a ring (Patarasuk and Yuan, 2009)."""
    rounds = 2 if step.operation == "AllReduce" else 1
    return rounds * (step.group - 1) / step.group * step.bytes


def redistribute(
    before: str, after: str, axes: Sequence[int], size: float, exchanges: bool = True
) -> list[Step] | None:
    """Finds the collectives that bring a tensor from one layout into another.

    Along an axis, a partial sum is summed in slices (ReduceScatter) or as a whole (AllReduce); a split
    dimension is exchanged for another (AlltoAll) or gathered (AllGather). Cutting a tensor that is equal on
    all devices sends nothing, and neither does making it a partial sum (one device keeps it, the others take
    zero). Axes with the same task act as one. Steps that make the tensor smaller come first; an AllReduce
    next to other steps is replaced by its two halves, which join those steps.

    Args:
        before: State along each axis; see planner.operators.block.STATES.
        after: Wanted state along each axis.
        axes: Sizes of the axes.
        size: Bytes of the whole tensor.
        exchanges: Whether AlltoAll may be used; otherwise one dimension is gathered and the other cut.

    Returns:
        The steps in order; None where a split tensor would have to become a partial sum, which is never
            useful.
    """
    local, tasks = size, Counter[tuple[str, str]]()
    for was, shall, length in zip(before, after, axes, strict=True):
        if shall == PARTIAL and was not in (ALIKE, PARTIAL):
            return None
        cut = was not in (ALIKE, PARTIAL) or (was == ALIKE and shall not in (ALIKE, PARTIAL))
        local /= length if cut else 1
        if was != shall and was != ALIKE:
            task = (was, shall) if {was, shall} == set(ROWS) else (_merged(was), _merged(shall))
            tasks[task] = max(tasks[task], 1) * length
    steps = []
    for operation, group in _in_order(tasks):
        if operation == "AlltoAll" and not exchanges:
            steps.append(Step("AllGather", group, local * group))
            continue
        local *= group if operation == "AllGather" else 1
        steps.append(Step(operation, group, local))
        local /= group if operation == "ReduceScatter" else 1
    return steps


def _merged(state: str) -> str:
    """Treats both dimensions of the rows as one, where a tensor is gathered from rows or cut into them."""
    return ROWS if state in ROWS else state


def _in_order(tasks: Mapping[tuple[str, str], int]) -> Iterator[tuple[str, int]]:
    """Yields (operation, devices): operations that shrink the tensor first, those that enlarge it last."""
    whole = tasks.get((PARTIAL, ALIKE), 1)
    others = sorted(task for task in tasks if task != (PARTIAL, ALIKE))
    if whole > 1 and not others:
        yield "AllReduce", whole
        return
    groups: dict[str, list[int]] = {"ReduceScatter": [], "AlltoAll": [], "AllGather": []}
    for was, shall in others:
        operation = "ReduceScatter" if was == PARTIAL else "AllGather" if shall == ALIKE else "AlltoAll"
        groups[operation].append(tasks[was, shall])
    if whole > 1:
        for operation in ("ReduceScatter", "AllGather"):
            first, *rest = groups[operation] or [1]
            groups[operation] = [first * whole, *rest]
    for operation, sizes in groups.items():
        yield from ((operation, size) for size in sizes)
