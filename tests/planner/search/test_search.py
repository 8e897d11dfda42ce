"""The plans that are found against all there are."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import RECOMPUTE, ParallelPlan, misfits, unpartitionable
from pangu_alpha.planner.cost.cost import CostModel
from pangu_alpha.planner.cost.hardware import load_cluster, load_stack
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.cost.memory import memory
from pangu_alpha.planner.cost.shapes import Shape
from pangu_alpha.planner.search.search import LEVELS, Question, _least, grids, judge, search
from pangu_alpha.planner.search.stages import _CLOSE

SMALL = ModelConfig(30000, 1024, 4, 4, seq_length=512)
MEDIUM = ModelConfig(40000, 2560, 32, 32, seq_length=1024)


def question(model=MEDIUM, cluster="910a-64", batch=128, stack="mindspore", **values):
    return Question(model, load_cluster(cluster), load_stack(stack), batch, **values)


def every_plan(asked):
    """Every candidate of a question with few layers, by brute force; those beyond memory too.

    Without kept scores, selective recompute saves nothing in the usual terms.
    """
    model = asked.model
    modes = RECOMPUTE if asked.stack.partitioned else ("none", "full")
    for grid in grids(asked):
        for split in splits(model.num_layers, grid.pp):
            for words in itertools.product(modes, repeat=model.num_layers):
                for level, sequence in itertools.product(LEVELS, (False, True)):
                    values = dict(zip(("dp", "tp", "pp", "micro_batches"), grid, strict=False))
                    if (sequence and grid.tp == 1) or (level != "none" and grid.dp == 1):
                        continue
                    plan = ParallelPlan(
                        **values, layers_per_stage=split, optimizer_parallel=level, recompute=words,
                        sequence_parallel=sequence,
                    )  # fmt: skip
                    if [*misfits(plan, model), *unpartitionable(plan)]:
                        continue
                    for order in itertools.permutations(("tp", "dp", "pp")):
                        yield judge(asked, plan, order)


def splits(layers, pp):
    for ends in itertools.combinations(range(1, layers), pp - 1):
        yield tuple(b - a for a, b in itertools.pairwise((0, *ends, layers)))


def check(each, asked):
    """A candidate is a plan that can be run, and costs what it says."""
    model = CostModel(asked.cluster, asked.software)
    assert list(misfits(each.plan, asked.model)) == list(unpartitionable(each.plan)) == []
    assert each.job == Job.of(Shape.of(asked.model), each.plan, asked.batch, each.job.order)
    assert each.seconds == pytest.approx(model.estimate(each.job).step, rel=1e-9)
    sizes = memory(each.job, asked.cluster.device, asked.software)
    assert each.memory == pytest.approx(max(part.total for part in sizes), abs=8)
    assert each.memory <= asked.limit
    assert each.plan.devices == asked.cluster.count


@pytest.mark.parametrize(
    ("cluster", "batch", "stack", "dropout"),
    [
        ("910a-4", 4, "mindspore", 0.1),
        ("910b-8", 8, "mindspore", 0.1),
        ("910a-4", 4, "pangu-alpha", 0.1),
        ("910b-4", 8, "pangu-alpha", 0.0),
    ],
)
def test_the_best_of_all_is_found(cluster, batch, stack, dropout):
    model = dataclasses.replace(SMALL, num_layers=2, dropout=dropout)
    asked = question(model, cluster, batch, stack)
    known = list(every_plan(asked))
    sizes = sorted(each.memory for each in known)
    assert len(known) > 700
    for limit in (sizes[-1], sizes[len(sizes) // 3], sizes[len(sizes) // 20], sizes[0]):
        given = dataclasses.replace(asked, capacity=limit)
        answer = search(given, top=1)
        best = min(each.seconds for each in known if each.memory <= limit)
        assert answer.least <= best * (1 + 1e-9)
        assert answer.best[0].seconds == pytest.approx(best, rel=_CLOSE)
        check(answer.best[0], given)
    assert search(dataclasses.replace(asked, capacity=sizes[0] - 64), top=1).best == ()


@pytest.mark.parametrize("stack", ["pangu-alpha", "mindspore-unfused"])
@pytest.mark.parametrize(("cluster", "batch"), [("910a-32", 64), ("910b-16", 48)])
def test_the_top_plans_are_real_sorted_and_of_different_grids(cluster, batch, stack):
    asked = question(cluster=cluster, batch=batch, stack=stack)
    answer = search(asked, top=4)
    assert len(answer.best) == 4
    assert len({each.grid for each in answer.best}) == len(answer.best)
    assert list(answer.best) == sorted(answer.best, key=lambda each: each.seconds)
    assert answer.least <= answer.best[0].seconds
    for each in answer.best:
        check(each, asked)


def test_more_plans_do_not_change_the_best():
    asked = question(cluster="910b-16")
    few, many = search(asked, top=1), search(asked, top=8)
    assert many.best[0].seconds == pytest.approx(few.best[0].seconds, rel=_CLOSE)
    assert few.searched <= many.searched <= many.grids == len(list(grids(asked)))


@pytest.mark.parametrize(
    "fixed",
    [
        {"tp": 4, "pp": 2},
        {"dp": 8, "micro_batches": 16},
        {"optimizer_parallel": "level2", "tp": 2},
        {"recompute": "full", "pp": 4},
        {"sequence_parallel": False, "tp": 8},
        {"order": ("dp", "tp", "pp"), "tp": 2},
    ],
)
def test_given_decisions_are_kept(fixed):
    asked = question(cluster="910a-32", fixed=fixed)
    answer = search(asked, top=2)
    assert len(answer.best) == 2
    for each in answer.best:
        check(each, asked)
        for name, value in fixed.items():
            assert (each.job.order if name == "order" else getattr(each.plan, name)) == value


def test_less_memory_is_never_faster():
    asked, found = question(SMALL, "910b-8", batch=64), []
    while answer := search(asked, top=1).best:
        check(answer[0], asked)
        found.append(answer[0].seconds)
        asked = dataclasses.replace(asked, capacity=answer[0].memory * 9 // 10)
    assert len(found) >= 3
    assert all(a <= b * (1 + _CLOSE) for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("cluster", ["910a-8", "910b-4"])
def test_no_plan_of_a_grid_undercuts_the_grid_s_bound(cluster):
    asked = question(cluster=cluster, batch=32)
    costs, answer = CostModel(asked.cluster, asked.software), search(asked, top=1000)
    assert len(answer.best) == answer.searched - answer.unfit > 15
    assert all(_least(asked, costs, each.grid) <= each.seconds * (1 + 1e-9) for each in answer.best)


def test_only_plans_within_a_time_are_wanted():
    asked = question(cluster="910b-16")
    best = search(asked, top=3).best
    assert search(asked, top=3, within=best[1].seconds * 1.0001).best == best[:2]
    assert search(asked, within=best[0].seconds * 0.9).best == ()


def test_the_found_plan_is_judged_as_it_was_found():
    asked = question(cluster="910b-16")
    best = search(asked, top=1).best[0]
    assert judge(asked, best.plan, best.job.order) == best


def test_a_plan_that_does_not_suit_is_refused():
    with pytest.raises(ValueError, match="tp: 64 does not divide the model's 32 heads"):
        judge(question(), ParallelPlan(tp=64))
    with pytest.raises(ValueError, match="batch 128 is not divisible by dp 64 x micro_batches 3"):
        judge(question(), ParallelPlan(dp=64, micro_batches=3))
    with pytest.raises(ValueError, match="128 devices .* more than the 64"):
        judge(question(), ParallelPlan(dp=128))


def test_questions_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="fixed: stages cannot be fixed; dp, tp"):
        question(fixed={"stages": 4})
    with pytest.raises(ValueError, match="batch: 0 sequences"):
        question(batch=0)
