"""Orders of axes, placements, and permuted rank tables say the same."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from pangu_alpha.cluster.placement import Placement, permute
from pangu_alpha.cluster.tables.build import build, hosts_by_rule
from pangu_alpha.cluster.tables.rank_table import check, read
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.zoo import load_model_card
from pangu_alpha.parallel.mesh import RANK_ORDER, Mesh
from pangu_alpha.planner.cost.hardware import load_cluster, load_stack
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.cost.shapes import Shape
from pangu_alpha.planner.search.placing import (
    chip_of,
    cluster_of,
    in_rank_order,
    launchable,
    placed,
    placement_of,
    rack_servers,
    table_of,
)
from pangu_alpha.planner.search.search import Question, search

SHAPE = Shape.gpt(64, 1024, 64, 30000, 512)
SHIPPED = Path(__file__).parents[3] / "rank_tables"
GRIDS = [(16, 8, 2), (8, 2, 16), (2, 4, 32), (1, 16, 16), (4, 64, 1), (256, 1, 1)]  # dp, tp, pp


def servers(count, devices=range(8)):
    rule = "10.{device%4+1}.{server}.{device+1}"
    return build(hosts_by_rule(count, "10.0.{server}.1", devices), ip_rule=rule)


def job(dp, tp, pp, order):
    return Job(SHAPE, 1, dp, tp, pp, micro_batches=pp, order=order)


def test_the_paper_s_placement_of_200b():
    shape = Shape.of(load_model_card("200b").model)
    cluster, table = load_cluster("910a-2048"), servers(256)
    paper = Job(shape, 1, 16, 8, 16, 16, order=("tp", "pp", "dp"))
    assert str(placement_of(paper, cluster)) == "rack=dp server=pp device=tp"
    assert rack_servers(cluster, 2048) == 16
    wanted = permute(table, Mesh(dp=16, tp=8, pp=16), Placement(("dp",), ("pp",), ("tp",)), 16)
    assert placed(table, paper) == wanted != table
    assert not in_rank_order(paper)


@pytest.mark.parametrize("order", list(itertools.permutations(RANK_ORDER)), ids=",".join)
@pytest.mark.parametrize(("dp", "tp", "pp"), GRIDS)
def test_neighbours_along_each_axis_are_as_far_apart_as_the_cost_model_says(dp, tp, pp, order):
    one, table = job(dp, tp, pp, order), servers(32)
    new = placed(table, one)
    ranks = [rank for server in new.servers for rank in server.ranks]
    assert sorted(ranks) == list(range(256))
    where = {rank: position for position, rank in enumerate(ranks)}
    mesh = Mesh(dp=dp, tp=tp, pp=pp)
    for axis in RANK_ORDER:
        for group in mesh.groups(axis):
            places = [where[rank] for rank in group]
            assert {b - a for a, b in itertools.pairwise(places)} <= {one.stride(axis)}


@pytest.mark.parametrize(("dp", "tp", "pp"), GRIDS)
def test_mindspores_own_order_leaves_the_ranks_as_they_are(dp, tp, pp):
    one, table = job(dp, tp, pp, RANK_ORDER), servers(32)
    assert in_rank_order(one)
    assert placed(table, one) == table


def test_sizes_that_do_not_nest_are_placed_by_their_order():
    one, cluster = job(4, 2, 10, ("tp", "pp", "dp")), load_cluster("910a-80")
    with pytest.raises(ValueError, match="a server has 8 devices, but the axes inside it are pp 10, tp 2"):
        placement_of(one, cluster)
    assert launchable(one, one.order, cluster)
    ranks = [server.ranks for server in placed(servers(10), one).servers]
    assert ranks[0] == (0, 1, 8, 9, 16, 17, 24, 25)  # stages 0 to 3 of the first pipeline
    assert ranks[2] == (64, 65, 72, 73, 2, 3, 10, 11)  # its last two, the second's first two


@pytest.mark.parametrize(
    ("grid", "order", "cluster", "may"),
    [
        ((2, 8, 1), ("dp", "tp", "pp"), "910b-16", True),  # four of each group on both servers
        ((16, 16, 1), RANK_ORDER, "910b-256", True),  # whole servers
        ((8, 5, 1), RANK_ORDER, "910b-40", False),  # 5 and 3, 2 and 5 and 1, ...
        ((1, 5, 8), ("pp", "tp", "dp"), "910b-40", True),  # one on each of five servers
        ((3, 8, 1), ("dp", "tp", "pp"), "910b-24", False),  # 3, 3 and 2
        ((5, 8, 1), RANK_ORDER, "910b-40", True),
        ((8, 5, 1), RANK_ORDER, "910c-40", True),  # all in one super pod
        ((1, 5, 1), RANK_ORDER, "910b-5", True),  # all in one server
    ],
)
def test_what_can_be_launched_is_what_the_check_of_rank_tables_takes(grid, order, cluster, may):
    dp, tp, pp = grid
    one, where = job(dp, tp, pp, order), load_cluster(cluster)
    assert launchable(one, order, where) == may
    chip = chip_of(where)
    table = placed(table_of(where, one.devices), one)
    if chip == "910C":
        pod = [replace(server, super_pod="0") for server in table.servers]
        table = replace(table, servers=tuple(pod), version="1.2")
    problems = check(table, Mesh(dp=dp, tp=tp, pp=pp), chip)
    assert any("tensor parallel group" in problem.what for problem in problems) != may


def test_the_search_considers_only_what_can_be_launched():
    question = Question(ModelConfig(40000, 5120, 40, 40, seq_length=1024), load_cluster("910b-40"),
                        load_stack("pangu-alpha"), 40)  # fmt: skip
    found = search(question, top=100).best
    assert found and all(launchable(each.job, each.job.order, question.cluster) for each in found)
    tables = [placed(table_of(question.cluster, 40), each.job) for each in found]
    for each, table in zip(found, tables, strict=True):
        mesh = Mesh(dp=each.job.dp, tp=each.job.tp, pp=each.job.pp)
        assert not [p for p in check(table, mesh, "910B") if "tensor parallel" in p.what]
    fixed = {"tp": 5, "order": ("tp", "dp", "pp")}
    assert search(dataclasses.replace(question, fixed=fixed)).best == ()


def test_a_last_server_that_is_not_full():
    cluster = load_cluster("910c-24")
    table = table_of(cluster, 24)
    assert [len(server.devices) for server in table.servers] == [16, 8]
    assert placed(table, job(3, 8, 1, ("dp", "tp", "pp"))).size == 24


def test_chips_of_clusters():
    names = {"910a-8": "910A", "910b4-8": "910B", "910c-16": "910C", "a100-80-8": None}
    assert {name: chip_of(load_cluster(name)) for name in names} == names


def test_an_axis_of_one_device_has_no_place():
    assert in_rank_order(job(32, 1, 8, ("dp", "tp", "pp")))
    assert in_rank_order(job(1, 8, 32, ("tp", "pp", "dp")))
    assert not in_rank_order(job(1, 8, 32, ("pp", "tp", "dp")))


def test_a_placement_is_read_as_it_is_written():
    for grid, order in itertools.product(GRIDS, itertools.permutations(RANK_ORDER)):
        placement = placement_of(job(*grid, order), load_cluster("910a-256"))
        assert Placement.parse(str(placement)) == placement


def test_a_small_cluster_is_one_rack():
    cluster = load_cluster("910a-32")
    assert rack_servers(cluster, 32) == 4
    one = job(4, 4, 2, ("tp", "pp", "dp"))
    assert str(placement_of(one, cluster)) == "rack= server=dp device=pp,tp"
    assert rack_servers(load_cluster("910c-64"), 64) == 4  # servers of 16
    assert rack_servers(load_cluster("910a-4"), 4) == 1


def test_the_cluster_of_a_table():
    table = read(SHIPPED / "32p_4x2x4.json")
    cluster = cluster_of(table, "910a")
    assert (cluster.count, cluster.device.name, cluster.server) == (32, "910A", 8)
    assert cluster.levels == load_cluster("910a-32").levels
    assert cluster.name == "910a, 4 servers"


def test_tables_that_cannot_be_planned_for():
    hosts = hosts_by_rule(3, "10.0.{server}.1", range(8))
    hosts += hosts_by_rule(1, "10.1.{server}.1", range(4))
    uneven = build(hosts, ip_rule="10.{device%4+1}.{server}.{device+1}")
    with pytest.raises(ValueError, match="servers have 4, 8 devices; planning needs all alike"):
        cluster_of(uneven, "910a")
    with pytest.raises(ValueError, match="servers have 16 devices, those of 910a 8; name the levels"):
        cluster_of(servers(2, range(16)), "910a")
    with pytest.raises(ValueError, match="cluster family '910x' is unknown"):
        cluster_of(servers(2), "910x")


def test_a_table_of_another_size_is_refused():
    with pytest.raises(ValueError, match="the table has 32 devices"):
        placed(servers(4), job(16, 2, 2, RANK_ORDER))
