"""Finds the closest questions that have an answer: other numbers of devices, other batches, nothing fixed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pangu_alpha.config.parallel import ParallelPlan, unpartitionable
from pangu_alpha.planner.cost.hardware import MOST_DEVICES
from pangu_alpha.planner.search.search import Candidate, Question, grids, judge, peak, search

_NEAR = 512  # smaller numbers of devices that are tried before only powers of two are
_FARTHEST = 4096  # larger batches are tried up to twice the batch and so many sequences


class Nearest(NamedTuple):
    """Another question that has an answer; `change` describes how it differs from the first one."""

    change: str
    question: Question
    best: Candidate


def problem(question: Question) -> str | None:
    """Why a question cannot have an answer; None if it may have one."""
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
    """Describes how far the model is from fitting: the least memory that any plan needs."""
    best = min((_smallest(question, grid) for grid in grids(question)), key=lambda one: one.memory)
    job = best.job
    return (
        f"the model does not fit: a device needs at least {best.memory / 2**30:.1f} GiB (dp {job.dp}, tp "
        f"{job.tp}, pp {job.pp}, {job.micro_batches} micro-batches, {job.sharding}, full recompute), and "
        f"may use {question.limit / 2**30:.1f}"
    )


def nearest(question: Question) -> tuple[Nearest, ...]:
    """Similar questions that have an answer: the nearest below and above, for each kind of change."""
    return tuple(itertools.chain(_devices(question), _batches(question), _free(question)))


def _try(change: str, question: Question) -> Nearest | None:
    if problem(question) is not None:
        return None
    best = search(question, top=1).best
    return Nearest(change, question, best[0]) if best else None


def _first(ways: Iterable[tuple[str, Question]]) -> Iterator[Nearest]:
    """Yields the first question that has an answer, if any has."""
    found = (_try(*way) for way in ways)
    yield from itertools.islice((each for each in found if each is not None), 1)


def _smallest(question: Question, grid: tuple) -> Candidate:
    """The plan of a grid that needs the least memory."""
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


def _devices(question: Question) -> Iterator[Nearest]:
    """Fewer and more devices: the next numbers that have a plan."""
    count = question.cluster.count
    doubled = (1 << power for power in range(count.bit_length(), MOST_DEVICES.bit_length()))
    ways: list[Iterable[int]] = [itertools.takewhile(lambda number: number <= 64 * count, doubled)]
    if problem(question) is not None:  # memory is not the reason, so fewer devices may help, too
        first = 8 * (count // 8)
        powers = (1 << power for power in reversed(range(count.bit_length())))
        near = range(first, max(first - 8 * _NEAR, 0), -8)  # a huge number has too many below it to try all
        below = (number for number in itertools.chain(near, powers) if number < count)
        above = (
            number
            for number in (2, 4, *range(first + 8, 2 * first + 17, 8))
            if count < number <= MOST_DEVICES
        )
        ways = [below, above]

    def on(number: int) -> tuple[str, Question]:
        cluster = dataclasses.replace(question.cluster, count=number)
        return f"{number} devices", dataclasses.replace(question, cluster=cluster)

    for numbers in ways:
        yield from _first(map(on, numbers))


def _batches(question: Question) -> Iterator[Nearest]:
    """Smaller and larger batches, if the batch is the reason that there is no answer."""
    if list(unpartitionable(ParallelPlan(dp=question.cluster.count))):
        return
    if next(grids(question), None) is not None:
        return

    def of(batch: int) -> tuple[str, Question]:
        return f"batch {batch}", dataclasses.replace(question, batch=batch)

    batch = question.batch
    for batches in (range(batch - 1, 0, -1), range(batch + 1, 2 * batch + _FARTHEST)):
        yield from _first(map(of, batches))


def _free(question: Question) -> Iterator[Nearest]:
    """The same question with nothing fixed."""
    if question.fixed:
        names = ", ".join(question.fixed)
        yield from _first([(f"{names} left free", dataclasses.replace(question, fixed={}))])
