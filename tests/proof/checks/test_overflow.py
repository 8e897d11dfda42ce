"""On a chip that saturates every stage reads the float status once, behind all that it computes."""

from __future__ import annotations

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.proof.checks.overflow import problems
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.dry_run.links import Cluster
from pangu_alpha.proof.dry_run.report import summarise
from pangu_alpha.proof.graph import mindir
from pangu_alpha.proof.graph.inline import inline

MODEL = ModelConfig(192, 32, 2, 4, seq_length=16, dropout=0.0)
SHARDED = {"optimizer_parallel": "level1", "optimizer_threshold": 0}
PIPELINE = ParallelPlan(pp=2, micro_batches=2)
RANKS = [
    pytest.param(PIPELINE, 0, marks=pytest.mark.long),
    (PIPELINE, 1),
    (ParallelPlan(dp=2, micro_batches=2, **SHARDED), 0),
]
GET = "NPUGetFloatStatusV2"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Compiles a rank for a 910A, once."""
    folder, found = tmp_path_factory.mktemp("compiled"), {}

    def rank_of(plan, rank):
        if (plan, rank) not in found:
            job = Job(MODEL, plan, batch_size=2, chip="910A")
            found[plan, rank] = job, compile_rank(job, rank, folder / str(len(found)))
        return found[plan, rank]

    return rank_of


@pytest.mark.parametrize(("plan", "rank"), RANKS)
def test_a_910a_reads_its_float_status_and_tells_the_others(compiled, plan, rank):
    job, report = compiled(plan, rank)
    counted = mindir.summary(mindir.read(report.graph)).operators
    assert counted[GET] == 1
    assert "FlashAttentionScore" not in counted and counted["Softmax"] >= 1
    summary = summarise(job, report, Cluster.in_order(plan.devices))
    assert [line for line in summary.lines if not line.equal] == []
    (told,) = (line for line in summary.lines if line.what == "update: tokens and norm")
    (overflow,) = (line for line in summary.lines if line.what == "update: overflow")
    assert (told.calls, overflow.calls, overflow.bytes) == (2, 1, 4)
    assert summary.overflow == () and summary.agrees


def test_a_reading_behind_nothing_but_the_norm_is_seen(compiled):
    """The norm does not rest on the loss of the last micro-batch, which no gradient needs."""
    model = inline(mindir.read(compiled(*RANKS[2])[1].graph))
    assert problems(model, saturates=True) == ()
    nodes = model.functions[0].by_name
    (read,) = (node for node in nodes.values() if node.type == GET)
    waited = nodes[nodes[read.inputs[0]].inputs[1]]
    norm = next(name for name in waited.inputs if "update-Update" in nodes[name].scope)
    nodes[read.inputs[0]].proto.input[1] = norm
    found = problems(mindir.wrap(model.proto), saturates=True)
    assert all(each.endswith("may run after the float status is read") for each in found)
    assert any("cross_entropy-TiedCrossEntropy/Log-op" in each for each in found)


def test_a_graph_for_another_chip_is_seen(compiled):
    model = inline(mindir.read(compiled(PIPELINE, 1)[1].graph))
    (said,) = problems(model, saturates=False)
    assert said.endswith("reads a float status that the chip does not have")
    (function,) = model.functions
    read = next(node for node in function.nodes if node.type == GET)
    again = type(read.proto)()
    again.CopyFrom(read.proto)
    again.name = again.output[0] = "again"
    model.proto.graph.node.append(again)
    twice = mindir.wrap(model.proto)
    assert problems(twice, saturates=True) == ("the float status is read 2 times, not once",)


def test_a_job_on_a_chip_without_its_type_is_refused():
    half = ModelConfig(192, 32, 2, 4, seq_length=16, compute_dtype="bfloat16")
    with pytest.raises(ValueError, match="a 910A .* has no bfloat16"):
        Job(half, ParallelPlan(dp=2), chip="910A")
    Job(half, ParallelPlan(dp=2), chip="910C")
