"""The planner's calls are those of the formulas that the proof compares with graphs, call by call."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import pytest

from pangu_alpha import load_model_config
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import RECOMPUTE, ParallelPlan, misfits, unpartitionable
from pangu_alpha.planner.cost import demands
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.cost.shapes import Shape
from pangu_alpha.proof.checks.traffic import Formulas
from pangu_alpha.proof.replay.suite import continued, suite


def by_formula(model, plan, rows, stage):
    """What the whole network's formulas ask for, by purpose and call."""
    found = Counter()
    for each in Formulas(model, plan, rows, "float16", stage).demands():
        found[each.what, each.call] += each.times
    return found


def by_planner(model, plan, rows, stage):
    job = Job.of(Shape.of(model), plan, rows * plan.dp * plan.micro_batches)
    ends = (stage == 0, stage == plan.pp - 1)
    return Counter(demands.Demands(job).of_stage(*ends, job.recomputed()[stage]))


def by_axis(calls):
    """Bytes of a step over each axis."""
    found = Counter()
    for (_, call), times in calls.items():
        found[call.axis] += times * call.bytes
    return found


def check(model, plan, rows):
    for stage in range(plan.pp):
        theirs, ours = by_formula(model, plan, rows, stage), by_planner(model, plan, rows, stage)
        assert ours == theirs, (plan, stage)
        assert by_axis(ours) == by_axis(theirs)


JOBS = suite() | {name: change.after for name, change in continued().items()}


@pytest.mark.parametrize("name", JOBS)
def test_the_suite_s_plans(name):
    job = JOBS[name]
    check(job.model, job.plan, job.batch_size)


PUBLISHED = ParallelPlan(dp=16, tp=8, pp=16, micro_batches=32, optimizer_parallel="level1", recompute="full")
BEST = ParallelPlan(dp=8, tp=8, pp=32, micro_batches=64, optimizer_parallel="level1", sequence_parallel=True)


@pytest.mark.parametrize("plan", [PUBLISHED, BEST])
def test_all_stages_of_the_200b(plan):
    check(load_model_config("200b"), plan, 1)


def random_plan(draw, model):
    dp, tp, pp = (draw.choice((1, 2, 4, 8)) for _ in range(3))
    cuts = sorted(draw.sample(range(1, model.num_layers), pp - 1))
    return ParallelPlan(
        dp=dp,
        tp=tp,
        pp=pp,
        micro_batches=draw.randint(pp, 2 * pp + 1),
        layers_per_stage=tuple(b - a for a, b in zip([0, *cuts], [*cuts, model.num_layers], strict=True)),
        optimizer_parallel=draw.choice(("none", "level1", "level2", "level3")) if dp > 1 else "none",
        optimizer_threshold=draw.choice((0, 4, 64)),
        recompute=tuple(draw.choice(RECOMPUTE) for _ in range(model.num_layers)),
        sequence_parallel=tp > 1 and draw.random() < 0.5,
        vocab_parallel=draw.random() < 0.8,
    )


def test_plans_drawn_at_random():
    draw, tried = random.Random(7), 0
    while tried < 60:
        model = ModelConfig(
            draw.choice((64, 67, 1000)), 32 * draw.choice((1, 3)), draw.randint(8, 11), 8, seq_length=16,
            dropout=draw.choice((0.0, 0.1)),
        )  # fmt: skip
        plan = random_plan(draw, model)
        if not [*misfits(plan, model), *unpartitionable(plan)]:
            check(model, plan, draw.choice((1, 2, 4)))
            tried += 1


def test_what_does_not_matter_is_not_computed_again(monkeypatch):
    """A search asks for the calls of thousands of jobs, most of which differ in one decision only."""
    asked = []

    class Counted(Formulas):
        def __init__(self, *given):
            asked.append(given)
            super().__init__(*given)

    monkeypatch.setattr(demands, "Formulas", Counted)
    shape = Shape.of(ModelConfig(101, 32, 8, 8, seq_length=16))  # which no other test asks for
    job = Job(shape, 2, dp=4, tp=2, pp=4, micro_batches=4)
    demands.Demands(job).passes_of_layer("full")
    first = len(asked)
    for sharding in ("level1", "level2"):
        other = dataclasses.replace(job, sharding=sharding, optimizer_threshold=0)
        assert demands.Demands(other).passes_of_layer("full") == demands.Demands(job).passes_of_layer("full")
    assert len(asked) == first > 0


def test_what_the_formulas_do_not_know():
    job = Job(Shape.of(ModelConfig(64, 32, 2, 4)))
    assert demands.describes(job)
    assert not demands.describes(dataclasses.replace(job, sharding="optimizer"))
    assert not demands.describes(Job(Shape.llama(2, 64, 8, 4, 128, 100, 32)))


def test_calls_are_in_one_order_whatever_strings_hash_to():
    """Seconds are added up in it: a set has another order in each process, and other last digits."""
    more, less = Counter(f"kind {n}" for n in range(40)), Counter(["other", "kind 3"])
    assert list(demands._difference(more, less)) == [f"kind {n}" for n in range(40) if n != 3] + ["other"]
