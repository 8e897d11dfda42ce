"""Traffic by formula: hand-worked numbers, and equal to the graphs of real dry runs, call by call."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pangu_alpha.cluster.tables.rank_table import Device, RankTable, Server
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.network.parameters import parameter_shapes
from pangu_alpha.parallel.layout import layouts
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.proof.checks.stages import together
from pangu_alpha.proof.checks.traffic import Call, Demand, Formulas, axis_name, holders
from pangu_alpha.proof.checks.traffic_check import Seen, check
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.dry_run.links import Cluster
from pangu_alpha.proof.dry_run.report import operator_name, summarise

MODEL = ModelConfig(192, 32, 2, 4, seq_length=16, dropout=0.1)
SHARDED = {"optimizer_parallel": "level1", "optimizer_threshold": 0}


def _asked(plan: ParallelPlan, stage: int = 0, model: ModelConfig = MODEL, batch: int = 2) -> dict:
    """{(what, phase, operation): (calls, bytes)} of a stage."""
    found: dict = {}
    for demand in Formulas(model, plan, batch, "float16", stage).demands():
        key = (demand.what, demand.call.phase, demand.call.operation)
        calls, size = found.get(key, (0, 0))
        found[key] = (calls + demand.times, size + demand.times * demand.call.bytes)
    return found


def test_tensor_parallel_sums_are_two_a_layer_and_phase():
    asked = _asked(ParallelPlan(tp=2, micro_batches=3))
    # 2 sums x 2 layers x 3 micro-batches of 2 * 16 rows of 32 columns in float16
    for phase in ("forward", "backward"):
        key = ("layers: sums over heads and feed-forward", phase, "AllReduce")
        assert asked[key] == (12, 12 * 2 * 16 * 32 * 2)
    assert ("layers: sums over heads and feed-forward", "recompute", "AllReduce") not in asked


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_full_recompute_repeats_one_sum_a_layer(dropout):
    model = ModelConfig(192, 32, 2, 4, seq_length=16, dropout=dropout)
    asked = _asked(ParallelPlan(tp=2, recompute="full"), model=model)
    assert asked["layers: sums over heads and feed-forward", "recompute", "AllReduce"][0] == 2


def test_sequence_parallel_scatters_and_gathers_the_same_bytes():
    asked = _asked(ParallelPlan(dp=2, tp=2, sequence_parallel=True))
    size = 4 * 2 * 16 * 32 * 2
    assert asked["layers: sums over heads and feed-forward", "forward", "ReduceScatter"] == (4, size)
    assert asked["layers: sums over heads and feed-forward", "backward", "AllGather"] == (4, size)
    assert asked["layers: rows of the residual stream", "forward", "AllGather"] == (4, size)
    assert asked["layers: rows of the residual stream", "backward", "ReduceScatter"] == (4, size)


def test_gradients_of_a_data_parallel_plan_are_all_parameters_and_the_tied_table_once_more():
    asked = _asked(ParallelPlan(dp=4))
    table = 192 * 32
    assert asked["gradients: sums over replicas", "gradient", "AllReduce"][1] == 4 * (
        MODEL.parameter_count + table
    )


def test_a_pipeline_sends_activations_and_the_tied_table():
    plan = ParallelPlan(dp=2, tp=2, pp=4, micro_batches=5, sequence_parallel=True)
    model = ModelConfig(192, 32, 4, 4, seq_length=16, dropout=0.0)
    first, between, last = (_asked(plan, stage, model) for stage in (0, 1, 3))
    activations, table = "stage to stage: activations", "tied table: first and last stage"
    sent = (5, 5 * 2 * 16 * 32 * 2 // 2)  # half of the rows
    assert first[activations, "forward", "Send"] == sent
    assert (activations, "backward", "Send") not in first
    assert between[activations, "forward", "Send"] == between[activations, "backward", "Send"] == sent
    assert first[table, "parameter", "Send"] == last[table, "parameter", "Receive"] == (1, 96 * 32 * 4)
    assert first[table, "gradient", "Receive"] == last[table, "gradient", "Send"]
    assert not any(what == table for what, _, _ in between)


def test_one_device_sends_nothing():
    assert _asked(ParallelPlan()) == {}


def test_shapes_add_up_to_the_number_of_parameters():
    sizes = [rows * (rest[0] if rest else 1) for rows, *rest in parameter_shapes(MODEL).values()]
    assert sum(sizes) == MODEL.parameter_count


@pytest.mark.parametrize(
    ("mesh", "axes", "name"),
    [
        (Mesh(2, 2, 2), ["dp", "tp"], "dp+tp"),
        (Mesh(2, 2, 1), ["dp", "tp"], "world"),
        (Mesh(2, 1, 2), ["dp", "tp"], "dp"),
        (Mesh(1, 2, 1), ["dp"], ""),
    ],
)
def test_axes_are_called_as_the_mesh_calls_their_groups(mesh, axes, name):
    assert axis_name(mesh, axes) == name
    if name:
        ranks = [rank for rank in range(mesh.size) if mesh.stage_of(rank) == 0]
        assert mesh.axis_of(ranks) == name


@pytest.mark.parametrize("degrees", [(4, 2, 2), (4, 1, 1), (2, 4, 1), (1, 4, 2), (1, 2, 1)])
@pytest.mark.parametrize("vocab_parallel", [True, False])
def test_holders_are_the_ranks_of_a_stage_with_the_same_slice(degrees, vocab_parallel):
    dp, tp, pp = degrees
    plan = ParallelPlan(dp=dp, tp=tp, pp=pp, micro_batches=pp, vocab_parallel=vocab_parallel)
    mesh = Mesh.of(plan)
    for layout in layouts(MODEL, plan).values():
        ranks = mesh.stage_ranks(layout.stage)
        group = [rank for rank in ranks if layout.start(plan, rank) == layout.start(plan, ranks[0])]
        assert holders(layout, plan) == (mesh.axis_of(group) if len(group) > 1 else "")


def test_the_formulas_do_not_walk_through_the_ranks(monkeypatch):
    plan = ParallelPlan(dp=8192, tp=8, optimizer_parallel="level1", optimizer_threshold=0)

    def walked(*_):
        raise AssertionError("a plan of 65,536 devices is priced without looking at each of them")

    monkeypatch.setattr(Mesh, "digits", walked)
    monkeypatch.setattr(Mesh, "coordinates", walked)
    axes = {each.call.axis for each in Formulas(MODEL, plan, 1, "float16", 0).updates()}
    assert axes == {"dp", "world"}


def test_check_names_what_is_missing_and_what_no_formula_asks_for():
    call = Call("forward", "AllReduce", "tp", "float16", 64)
    other = call._replace(axis="dp")
    seen = {
        call: Seen(2, 64.0, frozenset({(0, 1)})),
        other: Seen(1, 64.0, frozenset({(0, 2)})),
    }
    missing, unexplained = check([Demand("layers", call, 3)], seen)
    assert (missing.expected_calls, missing.calls, missing.equal) == (3, 2, False)
    assert (unexplained.what, unexplained.axis, unexplained.bytes) == ("not explained", "dp", 64)
    assert not unexplained.equal
    assert check([Demand("layers", call, 2)], {call: seen[call]})[0].equal


def test_links_are_those_of_servers_and_racks():
    cluster = Cluster.in_order(64, servers_per_rack=2)
    assert cluster.link((0, 7)) == "in server"
    assert cluster.link((0, 8, 15)) == "in rack"
    assert cluster.link((8, 16)) == "across"
    assert Cluster.in_order(64).link((0, 63)) == "in rack"
    servers = tuple(Server(str(n), (Device(0, n), Device(1, 3 - n))) for n in range(2))
    assert Cluster.of(RankTable(servers)).servers == (0, 1, 1, 0)
    with pytest.raises(ValueError, match="servers per rack: 0 must be at least 1"):
        Cluster.in_order(8, 0)


def test_operators_of_all_layers_have_one_name():
    scope = "Default/network-Loss/token_loss-TokenLoss/model-Pangu/blocks-CellList/3-Block/add-Add/Add-op7"
    assert operator_name(scope) == "blocks.*.add.Add"


def _summaries(job, ranks, folder):
    """Dry runs of some ranks, two at once."""
    cluster = Cluster.in_order(job.plan.devices)
    with ThreadPoolExecutor(2) as pool:
        reports = pool.map(lambda rank: compile_rank(job, rank, folder), ranks)
        return [summarise(job, report, cluster) for report in reports]


def _assert_as_predicted(summary):
    assert [line for line in summary.lines if not line.equal] == []
    assert [each for each in summary.placements if each.problem] == []
    assert summary.agrees
    assert len(summary.lines) >= 6


@pytest.mark.parametrize(
    ("plan", "ranks"),
    [
        # test_dropout.py asks the same of this plan, with the device's masks
        pytest.param(ParallelPlan(dp=2, tp=2), [0], marks=pytest.mark.long),
        (ParallelPlan(dp=2, tp=2, sequence_parallel=True, **SHARDED), [0]),
        (ParallelPlan(dp=2, tp=2, pp=2, micro_batches=2, recompute="full", **SHARDED), [0, 4]),
    ],
)
def test_formulas_and_table_say_what_the_compiler_does(plan, ranks, tmp_path):
    summaries = _summaries(Job(MODEL, plan, batch_size=2), ranks, tmp_path)
    if len(summaries) == plan.pp:
        found = together({each.rank: each.order for each in summaries}, Mesh.of(plan))
        assert found.meet, found.text()
    for summary in summaries:
        _assert_as_predicted(summary)
        assert len(summary.lines) >= 10
        if summary.stage == 0:  # the last stage's copy of the tied table has no moments
            assert summary.bytes["moments"] == 2 * (summary.bytes["weights"] - 6 * 4)  # without `controls`
        assert set(summary.links) == {"in server"}


SMALL = ModelConfig(64, 16, 2, 2, seq_length=8, dropout=0.0)
LEVEL2 = {"optimizer_parallel": "level2", "optimizer_threshold": 0}


@pytest.mark.long  # shorter than that, the last plan above has stages at level 1
def test_at_level_2_the_last_stage_sends_its_part_of_the_tied_gradient_unsummed(tmp_path):
    plan = ParallelPlan(dp=2, pp=2, micro_batches=2, **LEVEL2)
    first, last = _summaries(Job(SMALL, plan), [0, 2], tmp_path)
    _assert_as_predicted(first)
    _assert_as_predicted(last)
    assert not any(line.what == "gradients: sums over replicas" for line in last.lines)
    # What stages do together has one order in both graphs: no device may sum the tokens before a transfer.
    found = together({0: first.order, 2: last.order}, Mesh.of(plan))
    assert found.meet, found.text()


@pytest.mark.long
@pytest.mark.parametrize(
    ("level", "pp"),
    # MindSpore 2.9 ends its compiler on the first stage of level3.
    [*((level, pp) for level in ("none", "level1", "level2") for pp in (1, 2)), ("level3", 1)],
)
def test_every_level_with_and_without_a_pipeline(level, pp, tmp_path):
    # Thresholds in KB of the whole parameter: all are cut; only the table of 1,024 rows (64 KB); none.
    cuts = [(0, 64), (64, 1024), (64, 64)] if level != "none" else [(0, 64)]
    for threshold, vocabulary in cuts:
        plan = ParallelPlan(
            dp=2,
            pp=pp,
            micro_batches=2,
            optimizer_parallel=level,
            optimizer_threshold=threshold,
        )
        job = Job(replace(SMALL, vocab_size=vocabulary), plan)
        summaries = _summaries(job, [0, 2][:pp], tmp_path / f"{threshold}_{vocabulary}")
        for summary in summaries:
            _assert_as_predicted(summary)
        found = together({each.rank: each.order for each in summaries}, Mesh.of(plan))
        assert found.meet, found.text()


@pytest.mark.long
@pytest.mark.parametrize("level", ["none", "level1"])
def test_stages_meet_on_a_chip_that_sums_its_float_status_too(level, tmp_path):
    plan = ParallelPlan(dp=2, pp=2, micro_batches=2, optimizer_parallel=level, optimizer_threshold=0)
    summaries = _summaries(Job(SMALL, plan, chip="910A"), [0, 2], tmp_path)
    for summary in summaries:
        _assert_as_predicted(summary)
    found = together({each.rank: each.order for each in summaries}, Mesh.of(plan))
    assert found.meet, found.text()
