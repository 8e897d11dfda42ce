"""Tables are built, read, merged and placed without losing or inventing anything."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pangu_alpha.cluster.placement import Placement, permute
from pangu_alpha.cluster.tables.build import (
    Host,
    build,
    by_rule,
    device_ids,
    hosts_by_rule,
    read_hccn_conf,
    read_hosts,
)
from pangu_alpha.cluster.tables.rank_table import check, merge, read, write
from pangu_alpha.parallel.mesh import Mesh

SHIPPED = Path(__file__).parents[2] / "rank_tables"
RULE = "10.{device%4+1}.{server}.{device+1}"
PAPER = Mesh(dp=16, tp=8, pp=16)


def cluster(servers, devices=range(8), first=0):
    return build(hosts_by_rule(servers, "10.0.{server}.1", devices), first_rank=first, ip_rule=RULE)


@pytest.mark.parametrize(
    ("name", "mesh"),
    [
        ("1p", Mesh()),
        ("8p", Mesh(tp=8)),
        ("16p", Mesh(dp=2, tp=8)),
        ("32p_4x2x4", Mesh(dp=2, tp=4, pp=4)),
        ("32p_super_pod", Mesh(tp=32)),
    ],
)
def test_shipped_tables(name, mesh, tmp_path):
    path = SHIPPED / f"{name}.json"
    table = read(path, mesh)
    assert table.size == mesh.size
    write(table, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text("utf-8") == path.read_text("utf-8")


def test_every_shipped_table_is_tested():
    assert {p.stem for p in SHIPPED.glob("*.json")} == {"1p", "8p", "16p", "32p_4x2x4", "32p_super_pod"}


def test_the_shipped_grid_is_the_published_one():
    table = read(SHIPPED / "32p_4x2x4.json")
    for number, server in enumerate(table.servers):
        assert server.ranks == tuple(range(8 * number, 8 * number + 8))  # a server is a stage


@pytest.fixture(scope="module")
def placed():
    return permute(cluster(256), PAPER, Placement.parse("rack=data server=stage device=tensor"), 16)


def test_paper_placement(placed):
    assert check(placed, PAPER) == []
    for rank in random.Random(0).sample(range(2048), 400):
        data, stage, tensor = PAPER.coordinates(rank)
        server, device = placed.find(rank)
        assert placed.servers.index(server) == data * 16 + stage  # rack = data, place in the rack = stage
        assert (device.device_id, server.server_id) == (tensor, f"10.0.{data * 16 + stage}.1")


def test_paper_groups_stay_where_they_should(placed):
    server_of = {rank: i for i, server in enumerate(placed.servers) for rank in server.ranks}
    for group in PAPER.groups("tp"):
        assert len({server_of[rank] for rank in group}) == 1
    for group in PAPER.groups("pp"):
        assert len({server_of[rank] // 16 for rank in group}) == 1
    for group in PAPER.groups("dp"):
        assert {server_of[rank] // 16 for rank in group} == set(range(16))


def test_without_permutation_pipelines_cross_racks():
    server_of = {rank: i for i, server in enumerate(cluster(256).servers) for rank in server.ranks}
    assert {server_of[rank] // 16 for rank in PAPER.group("pp", 0)} == set(range(16))


@pytest.mark.parametrize(
    ("text", "mesh", "per_rack"),
    [
        ("server=pp device=dp,tp", Mesh(dp=2, tp=4, pp=4), 4),
        ("rack=pp server=dp device=tp", Mesh(dp=2, tp=8, pp=2), 2),
        ("rack=dp server=dp,pp device=tp", Mesh(dp=4, tp=4, pp=2), 2),
        ("rack=pp server=tp device=dp", Mesh(dp=8, tp=2, pp=2), 2),
    ],
)
def test_other_placements_are_permutations(text, mesh, per_rack):
    devices = range(4) if "dp,pp" in text else range(8)
    table = cluster(mesh.size // len(devices), devices)
    placed = permute(table, mesh, Placement.parse(text), per_rack)
    assert sorted(r for s in placed.servers for r in s.ranks) == list(range(mesh.size))
    assert [s.server_id for s in placed.servers] == [s.server_id for s in table.servers]


def test_default_order_is_the_identity():
    table, mesh = cluster(4), Mesh(dp=2, tp=4, pp=4)
    assert permute(table, mesh, Placement.parse("server=pp device=dp,tp"), 4) == table


@pytest.mark.parametrize(
    ("text", "per_rack", "words"),
    [
        ("rack=data server=stage device=expert", 2, "device=expert is none of the axes"),
        ("shelf=data", 2, "'shelf=data' must be one of rack=AXES"),
        ("rack=data server=stage", 2, "tp = 8 has no level"),
        ("rack=dp server=tp device=pp", 2, "a server has 8 devices, but the axes inside it are pp 2"),
        ("rack=dp server=pp device=tp", 4, "a rack has 32 devices, but the axes inside it are pp 2, tp 8"),
        ("rack=dp server=pp device=tp", 3, "4 servers do not fill racks of 3"),
        ("rack=dp server=pp device=dp,tp", 2, "two places that are not neighbours"),
    ],
)
def test_placements_that_do_not_fit(text, per_rack, words):
    with pytest.raises(ValueError, match=words):
        permute(cluster(4), Mesh(dp=2, tp=8, pp=2), Placement.parse(text), per_rack)


def test_placement_needs_the_whole_grid():
    with pytest.raises(ValueError, match="the table has 32 devices, the grid dp 16, tp 8, pp 16 has 2048"):
        permute(cluster(4), PAPER, Placement(), 4)


def test_merge_keeps_ranks():
    first, second = (
        cluster(2),
        build([Host("10.0.2.1", tuple(range(8)))], first_rank=16, ip_rule="10.9.9.{device+1}"),
    )
    merged = merge([("second", second), ("first", first)])  # the order of arguments plays no part
    assert merged.servers == (*first.servers, *second.servers)
    assert check(merged) == []


def test_merge_refuses_clashes():
    with pytest.raises(ValueError, match=r"b: rank 0-7 is already that of a; .*--renumber"):
        merge([("a", cluster(1)), ("b", build([Host("10.0.9.1", tuple(range(8)))]))])
    with pytest.raises(ValueError, match="b: server 10.0.0.1 is already that of a; merge each server once"):
        merge([("a", cluster(1)), ("b", cluster(1, first=8))])


def test_merge_renumbers_only_when_asked():
    other = build([Host("10.0.9.1", tuple(range(8)))], ip_rule="10.9.9.{device+1}")
    merged = merge([("b", other), ("a", cluster(1))], renumber=True)
    assert [server.server_id for server in merged.servers] == ["10.0.9.1", "10.0.0.1"]
    assert check(merged) == []


def test_host_lists_in_both_forms(tmp_path):
    (tmp_path / "node2.conf").write_text(
        "".join(f"address_{i}=10.2.0.{i + 1}\nnetmask_{i}=255.255.0.0\n" for i in range(8)), "utf-8"
    )
    (tmp_path / "hosts.txt").write_text(
        "# id devices addresses\n10.0.0.1 0,1 10.1.0.1,10.1.0.2\n\n10.0.0.2 4-7 node2.conf  # second\n",
        "utf-8",
    )
    (tmp_path / "hosts.yaml").write_text(
        "hosts:\n- {server: 10.0.0.1, devices: 2, device_ips: [10.1.0.1, 10.1.0.2]}\n"
        "- {server: 10.0.0.2, devices: [4, 5, 6, 7], hccn_conf: node2.conf}\n", "utf-8"
    )  # fmt: skip
    hosts = read_hosts(tmp_path / "hosts.txt")
    assert hosts == read_hosts(tmp_path / "hosts.yaml")
    table = build(hosts)
    assert [device.device_ip for device in table.servers[1].devices] == [f"10.2.0.{i}" for i in (5, 6, 7, 8)]
    assert [server.ranks for server in table.servers] == [(0, 1), (2, 3, 4, 5)]
    assert check(table) == []


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("h.txt", "10.0.0.1 8 a b\n", "line 1: 4 columns"),
        ("h.txt", "# nobody\n", "names no server"),
        ("h.txt", "10.0.0.1 two\n", "line 1, server 10.0.0.1: devices: 'two' must be a number"),
        ("h.txt", "10.0.0.1 4 node.conf\n", "node.conf"),
        ("h.yaml", "hosts:\n- {servre: x}\n", "host 1: must be a mapping with the key server"),
        ("h.yaml", "hosts:\n- {server: x, device: 2}\n", "unknown key 'device'; did you mean devices?"),
        ("h.yaml", "- x\n", "must be `hosts:`"),
    ],
)
def test_host_lists_that_are_wrong(name, text, words, tmp_path):
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises((ValueError, OSError)) as caught:
        read_hosts(tmp_path / name)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("address_0=10.0.0.1\naddress_0=10.0.0.2\n", "line 2: address_0 is given twice"),
        ("adress_0=10.0.0.1\n", "line 1: unknown key 'adress_0'; write address_N=IP"),
        ("netmask_0=255.255.255.0\n", "no address_N= line"),
    ],
)
def test_hccn_conf_that_is_wrong(text, words, tmp_path):
    (tmp_path / "hccn.conf").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=words):
        read_hccn_conf(tmp_path / "hccn.conf")


def test_rules_and_ids():
    assert by_rule("10.{device%4}.{server//256+1}.{device+1}", 300, 6) == "10.2.2.7"
    assert device_ids("0-3,6") == (0, 1, 2, 3, 6) and device_ids(2) == (0, 1) and device_ids("3,") == (3,)
    for rule in ("10.{rack}.0.1", "10.{device*2}.0.1"):
        with pytest.raises(ValueError, match="placeholders are"):
            by_rule(rule, 0)
    with pytest.raises(ValueError, match="2 device addresses for 8 devices"):
        build([Host("a", tuple(range(8)), ("10.0.0.1", "10.0.0.2"))])


def test_optional_keys_survive(tmp_path):
    document = cluster(1).to_document()
    document["server_list"][0] |= {"host_nic_ip": "reserve", "container_ip": "10.0.0.1"}
    document["server_list"][0]["device"][0]["device_port"] = "16667"
    (tmp_path / "a.json").write_text(json.dumps(document), "utf-8")
    table = read(tmp_path / "a.json")
    assert table.servers[0].devices[0].other == (("device_port", "16667"),)
    assert table.to_document() == document


@pytest.mark.parametrize("line", ["server: 1.10", "{server: a, super_pod: 1.10}", "server: true", "server:",
                                  "{server: a, super_pod: }", "server: 0e10", "server: [a]"])  # fmt: skip
def test_names_of_a_yaml_that_are_no_text_are_not_guessed(line, tmp_path):
    (tmp_path / "h.yaml").write_text(f"hosts:\n- {line}\n")
    with pytest.raises(ValueError, match=r"h.yaml, host 1: (server|super_pod) is read as .*in quotes"):
        read_hosts(tmp_path / "h.yaml")


def test_names_of_a_yaml_stay_as_they_are_written(tmp_path):
    text = 'hosts:\n- {server: "1.10", super_pod: 0}\n- {server: 12, super_pod: 010}\n'
    (tmp_path / "h.yaml").write_text(text)
    hosts = read_hosts(tmp_path / "h.yaml")
    assert [(host.server, host.super_pod) for host in hosts] == [("1.10", "0"), ("12", "010")]
