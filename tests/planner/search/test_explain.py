"""Why plans win and lose."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.parallel.mesh import RANK_ORDER
from pangu_alpha.planner.cost.cost import CostModel
from pangu_alpha.planner.cost.hardware import load_cluster, load_stack
from pangu_alpha.planner.search.explain import changes, front, parts, reason, too_large
from pangu_alpha.planner.search.search import Question, judge, search

MODEL = ModelConfig(40000, 2048, 16, 16, seq_length=1024)
QUESTION = Question(MODEL, load_cluster("910a-32"), load_stack("mindspore"), 128)
SMALL = dataclasses.replace(QUESTION, cluster=load_cluster("910a-8"), batch=64)
COSTS = CostModel(QUESTION.cluster, QUESTION.software)


@pytest.fixture(scope="module")
def answer():
    return search(QUESTION, top=4)


def plan(order=RANK_ORDER, **values):
    return judge(QUESTION, ParallelPlan(**values), order)


def test_parts_add_up_to_the_step(answer):
    for each in (*answer.best, plan(dp=4, tp=4, pp=2, micro_batches=8, recompute="full")):
        assert sum(parts(each.job, COSTS).values()) == pytest.approx(each.seconds)


BASE = {"dp": 4, "tp": 2, "pp": 4, "micro_batches": 8}


@pytest.mark.parametrize(
    ("better", "worse", "first"),
    [
        ({"micro_batches": 16}, {"micro_batches": 4}, "pipeline bubble"),
        ({}, {"recompute": "full"}, "matrix products"),
        ({"dp": 8, "tp": 1}, {"dp": 1, "tp": 8}, "tensor parallel"),
        ({"dp": 32, "tp": 1, "pp": 1, "micro_batches": 1, "optimizer_parallel": "level1"},
         {"dp": 32, "tp": 1, "pp": 1, "micro_batches": 4, "optimizer_parallel": "level3"}, "weight gathers"),
        ({"dp": 32, "tp": 1, "pp": 1, "micro_batches": 1, "optimizer_parallel": "level1"},
         {"dp": 32, "tp": 1, "pp": 1, "micro_batches": 1}, "optimizer"),
        ({"layers_per_stage": (4, 4, 4, 4)}, {"layers_per_stage": (1, 1, 1, 13)}, "matrix products"),
    ],
)  # fmt: skip
def test_a_reason_names_what_costs_most(better, worse, first):
    said = reason(plan(**BASE | better), plan(**BASE | worse), COSTS)
    assert said.startswith(f"{first} +")


def test_placements_lose_by_the_traffic_of_the_axis_that_is_outside():
    values = {"dp": 4, "tp": 8, "micro_batches": 1}
    said = reason(plan(**values), plan(("dp", "tp", "pp"), **values), COSTS)
    assert said.startswith("tensor parallel +")


def test_a_plan_loses_nothing_to_itself(answer):
    assert reason(answer.best[0], answer.best[0], COSTS) == "nothing much"


def test_what_a_loser_wins_is_said_too():
    few, many = plan(**BASE), plan(**BASE | {"micro_batches": 16, "recompute": "full"})
    assert "; but pipeline bubble -" in reason(few, many, COSTS)


def test_single_changes_of_the_winner(answer):
    best = answer.best[0]
    found = {each.what: each for each in changes(best, QUESTION)}
    levels = {f"optimizer parallel {level}" for level in ("none", "level1", "level2", "level3")}
    own = f"optimizer parallel {best.plan.optimizer_parallel}"
    refused = {"optimizer parallel level3"} if best.plan.pp > 1 else set()  # by MindSpore
    assert levels - set(found) == {own} | refused
    assert "recompute full" in found and found["recompute full"].memory < best.memory
    assert found["recompute full"].seconds > best.seconds
    allowed = {what for what in found if found[what].memory <= QUESTION.limit} - {"optimizer parallel level3"}
    assert all(found[what].seconds >= best.seconds * (1 - 1e-3) for what in allowed)


def test_changes_are_judged_alike():
    values = {"dp": 4, "tp": 2, "pp": 4, "micro_batches": 8, "sequence_parallel": True}
    found = {each.what: each for each in changes(plan(**values), QUESTION)}
    other = plan(**values | {"sequence_parallel": False})
    assert found["no sequence parallel"] == ("no sequence parallel", other.seconds, other.memory)
    turned = plan(("tp", "pp", "dp"), **values)
    assert found["placement tp, pp, dp"].seconds == turned.seconds
    assert not [what for what in found if "even" in what or "rank order" in what]


def test_plans_that_memory_rules_out():
    tight = dataclasses.replace(SMALL, capacity=6 << 30)
    answer = search(tight, top=1)
    beyond = too_large(tight, answer)
    assert 1 <= len(beyond) <= 3
    for each in beyond:
        assert each.memory > 6 << 30 and each.seconds <= answer.best[0].seconds
    ample = dataclasses.replace(SMALL, capacity=1 << 40)
    assert too_large(ample, search(ample, top=1)) == ()


def test_the_front_is_one():
    found = front(SMALL, steps=4)
    assert len(found) >= 2
    assert found[-1].seconds == pytest.approx(search(SMALL, top=1).best[0].seconds, rel=1e-3)
    for less, more in itertools.pairwise(found):
        assert less.memory < more.memory <= SMALL.limit and less.seconds > more.seconds
    for each in found:
        again = judge(SMALL, each.plan, each.job.order)
        assert (again.seconds, again.memory) == pytest.approx((each.seconds, each.memory), rel=1e-6)
        tight = dataclasses.replace(SMALL, capacity=each.memory)
        assert search(tight, top=1).best[0].seconds <= each.seconds * (1 + 1e-3)
