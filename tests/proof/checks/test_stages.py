"""Whether stages meet: schedules made by hand, and graphs of real dry runs, moved over the grid."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random

import pytest

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.zoo import load_network
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.proof.checks.dependences import PartialOrder, partial_order
from pangu_alpha.proof.checks.order import meeting, walk
from pangu_alpha.proof.checks.stages import Moves, together
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.graph import mindir
from pangu_alpha.proof.graph.alike import first_difference

ROWS = mindir.Tensor((8, 16), "float16")


def collective(operation, ranks, phase="forward", peer=None, micro=None, payload=ROWS):
    return mindir.Collective(
        operation=operation,
        reduction="sum" if operation == "AllReduce" else "",
        group=f"{phase} {ranks}",
        ranks=tuple(ranks),
        peer=peer,
        payload=payload,
        phase=phase,
        parameter="",
        micro_batch=micro,
        fusion=0,
        scope="layer",
        function="main",
        node="node",
        calls=1,
    )


def forced(collectives):
    """All in the order given."""
    listed = tuple(collectives)
    return PartialOrder(listed, tuple((1 << place) - 1 for place in range(len(listed))))


def schedule(mesh, micro_batches):
    """What the first rank of every stage does: forward passes, then backward passes, then the update."""
    return {mesh.rank(stage=stage): forced(_stage(mesh, stage, micro_batches)) for stage in range(mesh.pp)}


def _stage(mesh, stage, micro_batches):
    rank = mesh.rank(stage=stage)
    around = {step: rank + step * mesh.dp * mesh.tp for step in (-1, 1)}
    last = mesh.pp - 1
    if stage == 0:
        yield collective("Send", mesh.group("pp", rank), "parameter", mesh.rank(stage=last))
    if stage == last:
        yield collective("Receive", mesh.group("pp", rank), "parameter", mesh.rank(stage=0))
    for phase, onwards in (("forward", 1), ("backward", -1)):
        for micro in range(micro_batches):
            if 0 <= stage - onwards <= last:
                yield collective("Receive", mesh.group("pp", rank), phase, around[-onwards], micro)
            for _ in range(4):
                yield collective("AllReduce", mesh.group("tp", rank), phase)
            if 0 <= stage + onwards <= last:
                yield collective("Send", mesh.group("pp", rank), phase, around[onwards], micro)
    if stage == last:
        yield collective("Send", mesh.group("pp", rank), "gradient", mesh.rank(stage=0))
    if stage == 0:
        yield collective("Receive", mesh.group("pp", rank), "gradient", mesh.rank(stage=last))
    yield collective("AllReduce", mesh.group("dp", rank), "gradient")
    yield collective("AllReduce", range(mesh.size), "update", payload=mindir.Tensor((), "float32"))


LARGE = Mesh(dp=16, tp=8, pp=16)


@pytest.fixture
def large():
    """Orders of 2048 devices with 32 micro-batches, which a test may change."""
    return schedule(LARGE, 32)


def changed(order, change):
    collectives = list(order.collectives)
    change(collectives)
    return forced(collectives)


def places(order, **want):
    return [
        place
        for place, each in enumerate(order.collectives)
        if all(getattr(each, name) == value for name, value in want.items())
    ]


def test_all_ranks_of_a_large_plan_meet(large):
    found = together(large, LARGE)
    assert found.meet and found.problems == ()
    assert found.ranks == 2048
    pipelines, lines = 16 * 8, 16 * 16 + 16 * 8  # and groups of tp and dp
    transfers = pipelines * (2 * 15 * 32 + 2)
    assert found.meetings == transfers + 16 * 16 * 2 * 32 * 4 + 16 * 8 + 1
    assert lines == len(LARGE.groups("tp")) + len(LARGE.groups("dp"))
    assert found.text().startswith(f"stages meet: yes, 2048 ranks, {found.meetings} meetings\norder of exec")


def test_two_transfers_exchanged_on_the_last_stage_are_named(large):
    rank = LARGE.rank(stage=15)
    one, other = places(large[rank], operation="Receive", phase="forward")[3:5]

    def exchange(collectives):
        collectives[one], collectives[other] = collectives[other], collectives[one]

    large[rank] = changed(large[rank], exchange)
    found = together(large, LARGE)
    assert not found.meet
    (said,) = [each for each in found.problems if each.startswith("rank 1920,")]
    assert "1792 sends 1920 8x16 float16, forward of micro-batch 4" in said
    assert "waits for rank 1792 (at 1792 sends 1920 8x16 float16, forward of micro-batch 3)" in said
    assert found.text().startswith("stages meet: NO, 2048 ranks")


def test_a_send_without_its_receive_is_named(large):
    rank = LARGE.rank(stage=7)
    gone = places(large[rank], operation="Receive", phase="backward")[-1]
    large[rank] = changed(large[rank], lambda collectives: collectives.pop(gone))
    said = "; ".join(together(large, LARGE).problems)
    assert "rank 1024" in said and "1024 sends 896 8x16 float16, backward of micro-batch 31" in said


@pytest.mark.parametrize(
    ("operation", "phase", "peer", "words"),
    [
        (
            "Send",
            "forward",
            5 * 128,
            "rank 384 of stage 3 sends to rank 640 of stage 5, but should send to rank 512",
        ),
        ("Send", "forward", 4 * 128 + 8, "to rank 520 of stage 4, but should send to rank 512 of stage 4"),
        ("Send", "backward", 4 * 128, "to rank 512 of stage 4, but should send to rank 256 of stage 2"),
        (
            "Receive",
            "forward",
            4 * 128,
            "rank 512 of stage 4 sends to rank 384 of stage 3, but should send to rank 640",
        ),
    ],
)
def test_a_transfer_to_the_wrong_neighbour_is_named(operation, phase, peer, words, large):
    rank = LARGE.rank(stage=3)
    place = places(large[rank], operation=operation, phase=phase)[2]

    def divert(collectives):
        collectives[place] = replace(collectives[place], peer=peer)

    large[rank] = changed(large[rank], divert)
    said = next(each for each in together(large, LARGE).problems if "should send" in each)
    assert (
        said.startswith(f"stage 3, rank 384: {operation}, {phase} of micro-batch 2: rank ") and words in said
    )


def test_the_tied_table_goes_from_the_first_stage_to_the_last_only():
    mesh = Mesh(pp=4)
    orders = schedule(mesh, 4)
    orders[1] = changed(
        orders[1], lambda collectives: collectives.append(collective("Send", range(4), "parameter", 3))
    )
    said = together(orders, mesh).problems[0]
    assert said == (
        "stage 1, rank 1: Send, parameter: rank 1 of stage 1 sends to rank 3 of stage 3, but should send to "
        "no rank"
    )


def test_ends_of_other_sizes_do_not_meet():
    mesh = Mesh(dp=2, tp=2, pp=2)
    orders = schedule(mesh, 2)
    place = places(orders[4], operation="Receive", phase="forward")[0]

    def shorten(collectives):
        collectives[place] = replace(collectives[place], payload=mindir.Tensor((4, 16), "float16"))

    orders[4] = changed(orders[4], shorten)
    said = "; ".join(together(orders, mesh).problems)
    assert "0 sends 4 8x16 float16, forward of micro-batch 0 of [0, 4] in layer, waits for rank 4" in said


def test_what_stages_do_together_must_be_ordered_by_their_graphs():
    mesh = Mesh(dp=2, tp=2, pp=2)
    orders = schedule(mesh, 2)
    before = list(orders[0].before)
    before[-1] = 0  # the sum over all devices waits for nothing
    orders[0] = PartialOrder(orders[0].collectives, tuple(before))
    found = together(orders, mesh)
    assert not found.meet
    assert found.problems[0].startswith(
        "stage 0, rank 0: nothing orders 0 sends 4 8x16 float16, parameter in layer and AllReduce sum scalar "
        "float32 in layer (6 such pairs)"
    )


def shuffled(order, random):
    """Places of the collectives in an order that the graph allows."""
    left, done, result = list(range(len(order.before))), 0, []
    while left:
        place = random.choice([each for each in left if not order.before[each] & ~done])
        left.remove(place)
        done |= 1 << place
        result.append(place)
    return result


def hangs(orders, mesh, chosen):
    """Whether ranks wait for ever, each running what its stage does in the order `chosen(stage, rank)`."""
    keys = {}
    for first, order in orders.items():
        moves = Moves(mesh, [meeting(each, first) for each in order.collectives])
        for rank in mesh.stage_ranks(mesh.stage_of(first)):
            own = moves.keys(rank)
            keys[rank] = [own[place] for place in chosen(order, rank)]
    done = walk(keys)
    return any(done[rank] < len(own) for rank, own in keys.items())


def by_stage(mesh, seed):
    return lambda order, rank: shuffled(order, Random(f"{seed} {mesh.stage_of(rank)}"))


def by_rank(seed):
    return lambda order, rank: shuffled(order, Random(f"{seed} {rank}"))


def loose(order, mesh, rank, ordered):
    """The same where only `ordered` and what stages do together have an order."""
    shared = [
        place
        for place, each in enumerate(order.collectives)
        if each.peer is not None or (ordered and len(each.ranks) == mesh.size)
    ]
    masks = [
        sum(1 << other for other in shared if other < place) if place in shared else 0
        for place in range(len(order.collectives))
    ]
    return PartialOrder(order.collectives, tuple(masks))


def test_plans_that_meet_hang_in_no_order_that_ranks_of_a_stage_share():
    mesh = Mesh(dp=2, tp=2, pp=4)
    orders = {rank: loose(order, mesh, rank, True) for rank, order in schedule(mesh, 4).items()}
    assert together(orders, mesh).meet
    assert not any(hangs(orders, mesh, by_stage(mesh, seed)) for seed in range(30))
    # ranks of one stage that choose for themselves do hang: HCCL wants one order of all ranks of a group
    assert sum(hangs(orders, mesh, by_rank(seed)) for seed in range(30)) > 25


def test_a_sum_over_all_devices_without_an_order_does_hang():
    mesh = Mesh(dp=2, tp=2, pp=4)
    orders = {rank: loose(order, mesh, rank, False) for rank, order in schedule(mesh, 4).items()}
    assert not together(orders, mesh).meet
    assert sum(hangs(orders, mesh, by_stage(mesh, seed)) for seed in range(30)) >= 20


def test_order_within_a_stage_is_counted():
    mesh = Mesh(tp=2)
    sums = tuple(collective("AllReduce", (0, 1)) for _ in range(3))
    found = together({0: PartialOrder(sums, (0, 0, 0b11))}, mesh)
    assert (found.meet, found.free, found.meetings) == (True, 1, 3)
    assert "MindSpore chooses that of 1 pairs within a stage" in found.text()


# -- graphs of dry runs

MODEL = ModelConfig(64, 16, 2, 2, seq_length=8, dropout=0.0)


def compiled(job, ranks, folder):
    """Graphs of some ranks, two compiled at once."""
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda rank: compile_rank(job, rank, folder), ranks))
    return {report.rank: mindir.read(report.graph) for report in reports}


@pytest.mark.long
@pytest.mark.parametrize("schedule_", ["1f1b", "gpipe"])
def test_moved_meetings_are_those_of_ranks_that_were_compiled(schedule_, tmp_path):
    plan = ParallelPlan(
        dp=2,
        tp=2,
        pp=2,
        micro_batches=3,
        schedule=schedule_,
        optimizer_parallel="level1",
        optimizer_threshold=0,
    )
    mesh = Mesh.of(plan)
    graphs = compiled(Job(MODEL, plan), range(8), tmp_path)
    orders = {rank: partial_order(graph) for rank, graph in graphs.items()}
    for rank in range(8):
        first = rank // 4 * 4
        template = [meeting(each, first) for each in orders[first].collectives]
        own = [meeting(each, rank).key for each in orders[rank].collectives]
        assert Moves(mesh, template).keys(rank) == own and len(own) > 50
        assert orders[rank].before == orders[first].before
        assert first_difference(graphs[first], graphs[rank]) == ""
    assert first_difference(graphs[0], graphs[4]).startswith("operator 0 of")
    found = together({rank: orders[rank] for rank in (0, 4)}, mesh)
    assert found.meet, found.text()
    firsts = {rank: orders[rank] for rank in (0, 4)}
    assert not any(hangs(firsts, mesh, by_stage(mesh, seed)) for seed in range(10))
    assert any(hangs(firsts, mesh, by_rank(seed)) for seed in range(10))


@pytest.mark.long
def test_stages_of_a_2048_device_plan_meet_and_faults_in_them_are_named(tmp_path):
    model = replace(load_network("200b").model, num_layers=16)
    plan = ParallelPlan(dp=16, tp=8, pp=16, micro_batches=16, optimizer_parallel="level1", recompute="full")
    graphs = compiled(Job(model, plan), [LARGE.rank(stage=stage) for stage in range(16)], tmp_path)
    orders = {rank: partial_order(graph) for rank, graph in graphs.items()}
    assert together(orders, LARGE).meet
    rank = LARGE.rank(stage=9)
    one, other = places(orders[rank], operation="Send", phase="forward")[5:7]

    def exchange(collectives):
        collectives[one], collectives[other] = collectives[other], collectives[one]

    crossed = together(orders | {rank: changed(orders[rank], exchange)}, LARGE)
    assert any(each.startswith("rank 1152,") and "micro-batch 6" in each for each in crossed.problems)

    def divert(collectives):
        collectives[one] = replace(collectives[one], peer=LARGE.rank(stage=11))

    (said, *_) = together(orders | {rank: changed(orders[rank], divert)}, LARGE).problems
    assert "rank 1152 of stage 9 sends to rank 1408 of stage 11, but should send to rank 1280" in said
