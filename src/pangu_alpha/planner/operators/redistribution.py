"""What it takes to bring a tensor from one layout into another, and how many bytes each collective sends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pangu_alpha.planner.operators.block import ALIKE, PARTIAL, ROWS


class Step(NamedTuple):
    """A collective operation.

    Args:
        operation: "AllReduce", "AllGather", "ReduceScatter" or "AlltoAll".
        group: Devices that take part.
        bytes: Payload: what goes in, what comes out of an AllGather.
    """

    operation: str
    group: int
    bytes: float


def sent(step: Step) -> float:
    """Bytes that each device sends when the operation goes round a ring (Patarasuk and Yuan, 2009)."""
    rounds = 2 if step.operation == "AllReduce" else 1
    return rounds * (step.group - 1) / step.group * step.bytes


def redistribute(
    before: str, after: str, axes: Sequence[int], size: float, exchanges: bool = True
) -> list[Step] | None:
    """Collectives that bring a tensor from one layout into another.

    Along an axis a partial sum is summed by slices (ReduceScatter) or whole (AllReduce), a dimension is
    exchanged for another (AlltoAll) or gathered (AllGather); to cut what is alike sends nothing, nor does to
    make it a partial sum (one device keeps it, the others have zero). Axes with the same task act as one.
    What makes the tensor smaller comes first; an AllReduce beside others is done as its two halves, which
    join these.

    Args:
        before: State along each axis.
        after: State wanted.
        axes: Sizes of the axes.
        size: Bytes of the whole tensor.
        exchanges: Whether there is AlltoAll; else a dimension is gathered and the other cut.

    Returns:
        The steps; None where a split tensor would have to become a partial sum, for which there is no reason.
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
    """Both dimensions of the rows are one where a whole tensor is gathered from or cut into rows."""
    return ROWS if state in ROWS else state


def _in_order(tasks: Mapping[tuple[str, str], int]) -> Iterator[tuple[str, int]]:
    """(operation, devices), what shrinks first, what grows last."""
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
