"""Questions without an answer: why, and the nearest that have one."""

from __future__ import annotations

import dataclasses

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import misfits, unpartitionable
from pangu_alpha.planner.cost.cost import CostModel
from pangu_alpha.planner.cost.hardware import load_cluster, load_stack
from pangu_alpha.planner.search.closest_questions import nearest, problem, shortage
from pangu_alpha.planner.search.search import Question, judge, search

MODEL = ModelConfig(40000, 1024, 8, 8, seq_length=512)
LARGE = ModelConfig(40000, 5120, 8, 8, seq_length=512)  # 2.8e9 parameters


def question(cluster="910a-8", batch=64, model=MODEL, **values):
    return Question(model, load_cluster(cluster), load_stack("mindspore"), batch, **values)


def check(each):
    """A nearest question can be asked, and its plan is real."""
    asked, best = each.question, each.best
    assert problem(asked) is None
    assert list(misfits(best.plan, asked.model)) == list(unpartitionable(best.plan)) == []
    assert best.plan.devices == asked.cluster.count
    assert best.job.batch == asked.batch
    assert best.memory <= asked.limit
    assert best.seconds == pytest.approx(CostModel(asked.cluster, asked.software).estimate(best.job).step)
    assert judge(asked, best.plan, best.job.order).memory == pytest.approx(best.memory, abs=8)
    assert each.change.split()[0] in (str(asked.cluster.count), "batch", *("dp", "tp", "pp", "tp,"))


@pytest.mark.parametrize(("count", "near"), [(7, {4, 8}), (3, {2, 4}), (12, {8, 16})])
def test_numbers_of_devices_that_mindspore_does_not_take(count, near):
    asked = question(f"910a-{count}", batch=16)
    assert f"{count} devices: MindSpore 2.9 takes 1, 2, 4 or a multiple of 8" in problem(asked)
    found = nearest(asked)
    assert {each.question.cluster.count for each in found} == near
    for each in found:
        check(each)
        assert dataclasses.replace(each.question, cluster=asked.cluster) == asked


def test_a_batch_that_cannot_be_divided():
    asked = question("910a-16", batch=9, fixed={"pp": 1, "dp": 4})
    assert problem(asked).startswith("batch: 9 sequences cannot be divided over 16 devices")
    assert problem(asked).endswith("with pp=1, dp=4")
    found = {each.change: each for each in nearest(asked)}
    assert {"batch 8", "batch 12", "pp, dp left free"} <= set(found)
    for change in ("batch 8", "batch 12"):
        check(found[change])
        assert dataclasses.replace(found[change].question, batch=9) == asked
    assert found["pp, dp left free"].question.fixed == {}


def test_a_pipeline_that_the_batch_cannot_fill():
    asked = question(batch=3, fixed={"pp": 8})
    assert "the micro-batches that a pipeline needs, with pp=8" in problem(asked)
    found = {each.change: each for each in nearest(asked)}
    check(found["batch 8"])
    assert found["batch 8"].best.job.micro_batches == 8


def test_a_model_that_does_not_fit():
    asked = question("910a-1", batch=8, model=LARGE)
    assert problem(asked) is None and search(asked, top=1).best == ()
    said = shortage(asked)
    assert "the model does not fit: a device needs at least" in said and "may use 32.0" in said
    needed = float(said.partition("at least ")[2].partition(" GiB")[0])
    assert needed > 32
    enough = dataclasses.replace(asked, capacity=int((needed + 0.1) * (1 << 30)))
    assert search(enough, top=1).best
    found = nearest(asked)
    assert [each.question.cluster.count for each in found] == [2]  # the next larger
    check(found[0])


def test_the_stated_shortage_is_the_least_there_is():
    asked = question("910a-8", batch=16, model=LARGE, capacity=1 << 30)
    needed = float(shortage(asked).partition("at least ")[2].partition(" GiB")[0])
    above, below = (
        dataclasses.replace(asked, capacity=int((needed + more) * (1 << 30))) for more in (0.06, -0.06)
    )
    assert search(above, top=1).best and not search(below, top=1).best


def test_nothing_is_possible_at_all():
    asked = question("910a-8", batch=8, capacity=1 << 20)
    assert nearest(asked) == ()


def test_what_is_fixed_may_be_the_only_trouble():
    asked = question(batch=16, model=LARGE, fixed={"dp": 8, "optimizer_parallel": "none"})
    assert problem(asked) is None and search(asked, top=1).best == ()
    found = {each.change: each for each in nearest(asked)}
    free = found["dp, optimizer_parallel left free"]
    assert free.question == dataclasses.replace(asked, fixed={})
    assert free.best.plan.devices == 8 and free.best.memory <= free.question.limit


def test_a_possible_question_has_no_problem():
    assert problem(question()) is None
    assert problem(question(fixed={"tp": 3})) is not None
