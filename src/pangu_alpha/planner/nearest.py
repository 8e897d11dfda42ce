"""The nearest possible questions to one that has no answer: other numbers of devices, batches, limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from pangu_alpha.config.parallel import ParallelPlan, unpartitionable
from pangu_alpha.planner.search import Candidate, Question, grids, judge, peak, search

_MOST_DEVICES = 1 << 20


class Nearest(NamedTuple):
    """Another question that has an answer.

    Args:
        change: What is other, in words.
        question: It.
        best: Its best plan.
    """

    change: str
    question: Question
    best: Candidate


def problem(question: Question) -> str | None:
    """Why a question can have no answer; None if it may have one."""
    count = question.cluster.count
    if odd := next(unpartitionable(ParallelPlan(dp=count)), None):
        return f"cluster: {count} devices: {odd.partition('; ')[2]}"
    if next(grids(question), None) is None:
        fixed = ", ".join(f"{name}={value}" for name, value in question.fixed.items())
        return (
            f"batch: {question.batch} sequences cannot be divided over {count} devices and the micro-batches "
            f"that a pipeline needs{f', with {fixed}' if fixed else ''}"
        )
    return None


def shortage(question: Question) -> str:
    """How far the model is from fitting: the least memory that any plan needs."""
    best = min((_smallest(question, grid) for grid in grids(question)), key=lambda one: one.memory)
    job = best.job
    return (
        f"the model does not fit: a device needs at least {best.memory / 2**30:.1f} GiB (dp {job.dp}, tp "
        f"{job.tp}, pp {job.pp}, {job.micro_batches} micro-batches, {job.sharding}, full recompute), and "
        f"may use {question.limit / 2**30:.1f}"
    )


def nearest(question: Question) -> tuple[Nearest, ...]:
    """Questions like this one that have an answer: the nearest below and above, of each kind of change."""
    found = []
    for ways in (_devices(question), _batches(question), _free(question)):
        for change, other in ways:
            if problem(other) is None and (answer := search(other, top=1)).best:
                found.append(Nearest(change, other, answer.best[0]))
    return tuple(found)


def _smallest(question: Question, grid: tuple) -> Candidate:
    """The plan of a grid that needs least memory."""
    dp, tp, pp, micro_batches, _ = grid
    ways = []
    for level in ("none", "level2", "level3") if dp > 1 else ("none",):
        plan = ParallelPlan(
            dp=dp, tp=tp, pp=pp, micro_batches=micro_batches, optimizer_parallel=level, recompute="full",
            sequence_parallel=tp > 1 and question.model.seq_length % tp == 0,
        )  # fmt: skip
        if not list(unpartitionable(plan)):
            ways.append(judge(question, plan))
    return min(ways, key=lambda one: peak(one.job, question))


def _devices(question: Question) -> Iterator[tuple[str, Question]]:
    """Fewer and more devices: the next numbers that have a plan."""
    count = question.cluster.count
    below = [number for number in (8 * (count // 8), 4, 2, 1) if 0 < number < count]
    above, number = [], 1
    while number <= count:
        number *= 2
    while number <= min(_MOST_DEVICES, 64 * count):
        above.append(number)
        number *= 2
    above += [8 * (count // 8 + 1)]
    for numbers in (sorted(below, reverse=True), sorted(set(above))):
        for number in numbers:
            cluster = dataclasses.replace(question.cluster, count=number)
            other = dataclasses.replace(question, cluster=cluster)
            if problem(other) is None and search(other, top=1).best:
                yield f"{number} devices", other
                break


def _batches(question: Question) -> Iterator[tuple[str, Question]]:
    """Smaller and larger batches, if the batch is what is wrong."""
    if list(unpartitionable(ParallelPlan(dp=question.cluster.count))) or next(grids(question), None):
        return
    for way in (range(question.batch - 1, 0, -1), range(question.batch + 1, 2 * question.batch + 4096)):
        for batch in way:
            other = dataclasses.replace(question, batch=batch)
            if next(grids(other), None) is not None and search(other, top=1).best:
                yield f"batch {batch}", other
                break


def _free(question: Question) -> Iterator[tuple[str, Question]]:
    """The same with nothing fixed."""
    if question.fixed:
        names = ", ".join(question.fixed)
        yield f"{names} left free", dataclasses.replace(question, fixed={})
