"""Every byte that the formulas ask for is in the cost, once and over its own axis."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from pangu_alpha import load_model_config
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan, misfits, unpartitionable
from pangu_alpha.planner.cost.collectives import Links
from pangu_alpha.planner.cost.cost import CostModel, Step
from pangu_alpha.planner.cost.demands import Demands
from pangu_alpha.planner.cost.exchange import Partitioned, Stage
from pangu_alpha.planner.cost.hardware import load_cluster, load_stack
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.cost.shapes import Shape
from pangu_alpha.planner.cost.software import software_of
from pangu_alpha.proof.checks.traffic import ACTIVATION, Formulas
from pangu_alpha.proof.replay.suite import suite


class Bytes:
    """Links over which a byte takes a second on one axis, and no time on the others."""

    def __init__(self, job, axis):
        lines = tuple(axis.split("+")) if axis != "world" else ("pp", "dp", "tp")
        self.lines = tuple((getattr(job, name), job.stride(name)) for name in lines if name in vars(job))
        self.stride = job.stride("pp") * (job.pp - 1 if axis == "pp pair" else 1)
        self.sends = axis in ("pp hop", "pp pair") or (axis == "pp" and job.pp == 2)

    def fan_of(self, lines):
        return lines

    def gather(self, size, lines):
        return size if lines == self.lines else 0

    reduce = gather

    def send(self, size, stride):
        return size if self.sends and stride == self.stride else 0


def spent(job, plan, stage, axis):
    """Bytes of a stage's step over an axis, as the cost adds them up."""
    ends, counts = (stage == 0, stage == plan.pp - 1), job.recomputed()[stage]
    exchange = Partitioned(Bytes(job, axis), 0.0, Demands(job), job)
    found = Stage(*ends, counts, 0)
    passes = [*exchange.ends(*ends), *exchange.transfers(*ends), *exchange.gathers(found, 0.0, 0.0)]
    for mode, layers in counts.items():
        passes.append(layers * (exchange.forward_layer + exchange.backward_layer(mode)))
    return plan.micro_batches * sum(passes) + exchange.once(found, 0.0, 0.0)


def asked(model, plan, rows, stage):
    """Bytes by axis of a stage's step by the proof's formulas; who receives activations spends nothing."""
    found = Counter()
    for each in Formulas(model, plan, rows, "float16", stage).demands():
        if each.what != ACTIVATION or each.call.operation == "Send":
            found[each.call.axis] += each.times * each.call.bytes
    return found


def check(model, plan, rows):
    job = Job.of(Shape.of(model), plan, rows * plan.dp * plan.micro_batches)
    for stage in range(plan.pp):
        for axis, size in asked(model, plan, rows, stage).items():
            assert spent(job, plan, stage, axis) == pytest.approx(size, rel=1e-9), (plan, stage, axis)


@pytest.mark.parametrize("name", suite())
def test_the_suite_s_plans(name):
    job = suite()[name]
    check(job.model, job.plan, job.batch_size)


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_the_200b(recompute):
    plan = ParallelPlan(
        dp=8, tp=8, pp=32, micro_batches=64, optimizer_parallel="level1", sequence_parallel=True,
        recompute=recompute,
    )  # fmt: skip
    check(load_model_config("200b"), plan, 1)


def test_plans_drawn_at_random():
    draw, tried = random.Random(3), 0
    while tried < 40:
        dp, tp, pp = (draw.choice((2, 4, 8)) for _ in range(3))
        model = ModelConfig(1000, 96, 8, 8, seq_length=16)
        plan = ParallelPlan(
            dp=dp, tp=tp, pp=draw.choice((1, pp)), micro_batches=draw.choice((8, 9, 16)),
            optimizer_parallel=draw.choice(("none", "level1", "level2", "level3")),
            optimizer_threshold=draw.choice((0, 64)), sequence_parallel=draw.random() < 0.5,
            recompute=draw.choice(("none", "selective", "full")), vocab_parallel=draw.random() < 0.8,
        )  # fmt: skip
        if not [*misfits(plan, model), *unpartitionable(plan)]:
            check(model, plan, draw.choice((1, 2)))
            tried += 1


MODEL = ModelConfig(40000, 2560, 8, 32, seq_length=1024)


def step(**values):
    plan = ParallelPlan(**values)
    cluster = load_cluster("910b-64")
    stack = software_of(load_stack("pangu-alpha"), MODEL, cluster.device.family)
    job = Job.of(Shape.of(MODEL), plan, 4 * plan.dp * plan.micro_batches)
    return Step(CostModel(cluster, stack), job)


def test_the_embedding_s_sum_weighs_on_the_first_stage():
    """An AllReduce of 4 T H bytes in each pass: as much as a layer's two of 2 T H."""
    found = step(tp=4, pp=4, micro_batches=4)
    first, between = (found.exchange.ends(end, False)[0] for end in (True, False))
    assert between == 0
    assert first == pytest.approx(found.exchange.forward_layer, rel=0.05)


def test_the_tied_table_is_sent_twice():
    found = step(pp=4, micro_batches=4)
    size = 4 * MODEL.vocab_size * MODEL.hidden_size
    once = found.exchange.once(Stage(True, False, {"none": 2}, 0), 0.0, 0.0)
    assert once == pytest.approx(2 * found.model.links.send(size, 3), rel=0.01)


def test_one_micro_batch_gathers_in_float32():
    """Of the same bytes of weights, several micro-batches gather 16 bits."""
    one, several = (
        step(dp=8, micro_batches=number, optimizer_parallel="level1").exchange for number in (1, 4)
    )
    stage = Stage(True, True, {"none": 8}, 0)
    gathered = [each._of_stage(stage, "weights: gathered for use") for each in (one, several)]
    assert 1.5 < gathered[0] / gathered[1] < 2.0  # the table is of float32 in both


def test_a_group_that_does_not_tile_a_level():
    """64 ranks of stride 16 lie in two super pods of 768, 48 and 16 of them: a ring of 64, not of 96."""
    cluster = load_cluster("910c-1536")
    links = Links(cluster, rings=True)
    assert links.fan(64, 16) == (1, 32, 2)
    assert links.fan(48, 16) == (1, 48, 1)
    pod, spine = (level.latency for level in cluster.levels[1:])
    assert links.gather(0.0, links.fan(64, 16)) == pytest.approx(62 * pod + spine)


def test_a_group_along_two_axes():
    links = Links(load_cluster("910a-64"))
    assert links.fan_of(((4, 1), (2, 4))) == links.fan(8, 1) == (4, 2, 1, 1)
    assert links.fan_of(((2, 32), (4, 1))) == (4, 1, 2, 1)
