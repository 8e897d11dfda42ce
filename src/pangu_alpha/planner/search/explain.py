"""Explains why plans win and lose: seconds by part, comparison with the winner, the memory-time front."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pangu_alpha.parallel.mesh import RANK_ORDER
from pangu_alpha.planner.cost.cost import CostModel
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.search.search import Answer, Candidate, Question, peak, search

_UNBOUNDED = 1 << 60  # bytes


class Change(NamedTuple):
    """The winner with one decision changed.

    Args:
        what: The change, in words.
        seconds: Seconds of a step.
        memory: Bytes on the fullest device.
    """

    what: str
    seconds: float
    memory: int


def parts(job: Job, model: CostModel) -> dict[str, float]:
    """Seconds of a step by part; they add up to the whole step."""
    estimate = model.estimate(job)
    rest = {
        "pipeline bubble": estimate.bubble,
        "data parallel": estimate.data_parallel,
        "optimizer": estimate.optimizer,
    }
    return estimate.parts | rest


def reason(winner: Candidate, other: Candidate, model: CostModel) -> str:
    """Describes in which parts another plan loses most against the winner, and in which it gains most."""
    own, theirs = parts(winner.job, model), parts(other.job, model)
    losses = sorted(((theirs[name] - own[name], name) for name in own), reverse=True)
    told = [f"{name} +{seconds:.3g} s" for seconds, name in losses[:2] if seconds > 0.002 * winner.seconds]
    gains = [f"{name} {seconds:.3g} s" for seconds, name in losses[-1:] if seconds < -0.002 * winner.seconds]
    return ", ".join(told or ["nothing much"]) + (f"; but {gains[0]}" if gains else "")


def too_large(question: Question, answer: Answer, top: int = 3) -> tuple[Candidate, ...]:
    """The plans that would be faster than the best one if memory were unlimited."""
    free = dataclasses.replace(question, capacity=_UNBOUNDED)
    within = answer.best[0].seconds if answer.best else float("inf")
    found = search(free, top, within).best
    return tuple(each for each in found if each.memory > question.limit)


def changes(winner: Candidate, question: Question) -> Iterator[Change]:
    """Yields the winner with each of its decisions changed alone, where that makes a difference."""
    job, model = winner.job, CostModel(question.cluster, question.software)
    for what, other in _others(job):
        if other != job:
            yield Change(what, model.estimate(other).step, peak(other, question))


def _others(job: Job) -> Iterator[tuple[str, Job]]:
    for order in (RANK_ORDER, ("tp", "pp", "dp"), ("dp", "tp", "pp")):
        here, there = ([axis for axis in one if getattr(job, axis) > 1] for one in (job.order, order))
        if here != there:
            words = "MindSpore's rank order" if order == RANK_ORDER else "placement"
            yield f"{words} {', '.join(there)}", dataclasses.replace(job, order=order)
    if job.dp > 1:
        for level in ("none", "level1", "level2", "level3"):
            if level != job.sharding and not (level == "level3" and job.pp > 1):
                yield f"optimizer parallel {level}", dataclasses.replace(job, sharding=level)
    for mode in ("none", "full"):
        if job.recompute != mode:
            yield f"recompute {mode}", dataclasses.replace(job, recompute=mode)
    if job.tp > 1:
        turned = not job.sequence_parallel
        yield (
            f"{'' if turned else 'no '}sequence parallel",
            dataclasses.replace(job, sequence_parallel=turned),
        )
    if job.stage_layers:
        yield "even layers", dataclasses.replace(job, stage_layers=())


def front(question: Question, steps: int = 10) -> tuple[Candidate, ...]:
    """The Pareto front of memory against time: the fastest plan for each of `steps` memory limits."""
    found: list[Candidate] = []
    limit = question.limit
    for step in range(steps):
        share = limit * (steps - step) // steps
        if found and found[-1].memory <= share:
            continue  # the last plan fits into this limit as well, so it is still the best one
        answer = search(dataclasses.replace(question, capacity=share), top=1)
        if not answer.best:
            break
        found.append(answer.best[0])
    return tuple(_undominated(found))


def _undominated(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Yields, by memory, the candidates that no other one beats in both memory and time."""
    fastest = float("inf")
    for each in sorted(candidates, key=lambda one: (one.memory, one.seconds)):
        if each.seconds < fastest:
            fastest = each.seconds
            yield each
