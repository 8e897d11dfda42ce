"""Broken tables are refused, each with the server, the device, the rule and the remedy."""

from __future__ import annotations

import copy
import json

import pytest

from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.rank_table import read
from pangu_alpha.parallel.rank_table_build import Host, build, hosts_by_rule
from pangu_alpha.parallel.rank_table_check import check_document

GOOD = build(
    hosts_by_rule(2, "10.0.0.{server+1}", range(8)), ip_rule="10.{device%4+1}.{server}.{device+1}"
).to_document()
PODS = build(
    [
        Host(f"10.0.0.{i + 1}", (0, 1), (f"10.1.{i}.1", f"10.1.{i}.2"), "pod", (2 * i, 2 * i + 1))
        for i in (0, 1)
    ],
    "1.2",
).to_document()


def server(document, number):
    return document["server_list"][number]


def device(document, number, place):
    return server(document, number)["device"][place]


def keep(document, *places):
    """Only these devices of the only server, ranks from 0."""
    document["server_list"] = document["server_list"][:1]
    document["server_count"] = "1"
    kept = [device(document, 0, place) for place in places]
    server(document, 0)["device"] = [d | {"rank_id": str(rank)} for rank, d in enumerate(kept)]


# A name, what it does to the good table of two servers of 8, and the words of the refusal.
BROKEN = {
    "rank twice": (
        lambda d: device(d, 1, 2).update(rank_id="3"),
        [
            "server 10.0.0.2, device 2: rank_id 3 is already that of server 10.0.0.1, device 3",
            "rank 10 missing",
        ],
    ),
    "rank missing": (
        lambda d: server(d, 1)["device"].pop(3),
        ["rank 11 missing, but there is 15", "15 devices must have the ranks 0 to 14"],
    ),
    "ranks from 1": (
        lambda d: [
            v.update(rank_id=str(int(v["rank_id"]) + 1)) for s in d["server_list"] for v in s["device"]
        ],
        ["rank 0 missing, but there is 16"],
    ),
    "rank as a number": (
        lambda d: device(d, 0, 3).update(rank_id=3),
        ["server 10.0.0.1, device 3: rank_id is the number 3, but every value must be a string", 'write "3"'],
    ),
    "device as a number": (
        lambda d: device(d, 0, 3).update(device_id=3),
        ["server 10.0.0.1, device 3: device_id is the number 3"],
    ),
    "server count as a number": (
        lambda d: d.update(server_count=2),
        ["the table: server_count is the number 2"],
    ),
    "rank is not a number": (
        lambda d: device(d, 0, 1).update(rank_id="one"),
        ["server 10.0.0.1, device 1: rank_id 'one' is not a whole number from 0"],
    ),
    "rank with a leading zero": (
        lambda d: device(d, 0, 1).update(rank_id="01"),
        ["rank_id '01' is not a whole number", "without leading zeros"],
    ),
    "address twice": (
        lambda d: device(d, 1, 0).update(device_ip="10.1.0.1"),
        ["server 10.0.0.2, device 0: device_ip 10.1.0.1 is already that of server 10.0.0.1, device 0"],
    ),
    "address missing": (
        lambda d: device(d, 1, 5).pop("device_ip"),
        ["server 10.0.0.2, device 5: device_ip is missing", "hccn_tool -i N -ip -g"],
    ),
    "address empty": (
        lambda d: device(d, 1, 5).update(device_ip=""),
        ["server 10.0.0.2, device 5: device_ip is empty"],
    ),
    "address out of range": (
        lambda d: device(d, 1, 5).update(device_ip="10.1.0.256"),
        ["server 10.0.0.2, device 5: device_ip '10.1.0.256' is not an IP address"],
    ),
    "address is loopback": (
        lambda d: device(d, 0, 0).update(device_ip="127.0.0.1"),
        ["server 10.0.0.1, device 0: device_ip '127.0.0.1' is not an IP address of a device"],
    ),
    "server count wrong": (
        lambda d: d.update(server_count="3"),
        ["server_count is 3, server_list has 2", 'write "2"'],
    ),
    "server twice": (
        lambda d: server(d, 1).update(server_id="10.0.0.1"),
        ["server 10.0.0.1: is listed 2 times (entries 1, 2)", "a server_id of its own"],
    ),
    "server without id": (
        lambda d: server(d, 1).pop("server_id"),
        ["server number 2: server_id is missing"],
    ),
    "server id too long": (
        lambda d: server(d, 1).update(server_id="n" * 64),
        ["server_id has 64 characters; use at most 63"],
    ),
    "device twice": (
        lambda d: device(d, 0, 7).update(device_id="6"),
        ["server 10.0.0.1, device 6: is listed 2 times"],
    ),
    "device too large": (
        lambda d: device(d, 0, 7).update(device_id="8"),
        ["server 10.0.0.1, device 8: a server of 910A has devices 0 to 7"],
    ),
    "straddling range": (
        lambda d: keep(d, 2, 3, 4, 5),
        [
            "server 10.0.0.1: devices 2-5 straddle the groups of 4",
            "devices of one group (0-3 or 4-7), or all 8",
        ],
    ),
    "straddling pair": (
        lambda d: keep(d, 0, 4),
        ["devices 0, 4 straddle"],
    ),
    "unknown key": (
        lambda d: device(d, 0, 0).update(devcie_port="1"),
        ["server 10.0.0.1, device 0: unknown key 'devcie_port'; did you mean device_port?"],
    ),
    "misspelt key": (
        lambda d: d.update(sever_count=d.pop("server_count")),
        ["the table: server_count is missing", "unknown key 'sever_count'; did you mean server_count?"],
    ),
    "port out of range": (
        lambda d: device(d, 0, 0).update(device_port="70000"),
        ["server 10.0.0.1, device 0: device_port '70000' is not a port; use 1 to 65535"],
    ),
    "not completed": (
        lambda d: d.update(status="initializing"),
        ["status is 'initializing'", 'write "completed"'],
    ),
    "unknown version": (
        lambda d: d.update(version="1.1"),
        ["version '1.1' is unknown"],
    ),
    "super pods in version 1.0": (
        lambda d: d.update(
            super_pod_list=[{"super_pod_id": "0", "server_list": [{"server_id": "10.0.0.1"}]}]
        ),
        ['super_pod_list belongs to version "1.2"'],
    ),
    "version 1.2 without super pods": (
        lambda d: d.update(version="1.2"),
        ["super_pod_list is missing", "server 10.0.0.1, device 0: super_device_id is missing"],
    ),
    "no servers": (
        lambda d: d.update(server_list=[]),
        ["server_list must be a list of at least one entry", "server_count is 2, server_list has 0"],
    ),
    "devices not a list": (
        lambda d: server(d, 0).update(device={"device_id": "0"}),
        ["server 10.0.0.1: device must be a list"],
    ),
    "server not an object": (
        lambda d: d["server_list"].__setitem__(1, "10.0.0.2"),
        ["server number 2: '10.0.0.2' is not a JSON object"],
    ),
}

BROKEN_PODS = {
    "server in no super pod": (
        lambda d: d["super_pod_list"][0]["server_list"].pop(),
        ["server 10.0.0.2: is in no super pod; add it to super_pod_list"],
    ),
    "unknown server": (
        lambda d: d["super_pod_list"][0]["server_list"].append({"server_id": "10.0.0.3"}),
        ["super pod pod: server 10.0.0.3 is not in server_list"],
    ),
    "server in two super pods": (
        lambda d: d["super_pod_list"].append(
            {"super_pod_id": "b", "server_list": [{"server_id": "10.0.0.1"}]}
        ),
        ["server 10.0.0.1: is in super_pod_list 2 times (super pods pod, b)"],
    ),
    "super device twice": (
        lambda d: device(d, 1, 0).update(super_device_id="1"),
        ["server 10.0.0.2, device 0: super_device_id 1 is already that of server 10.0.0.1, device 1"],
    ),
    "super pod twice": (
        lambda d: d["super_pod_list"].append(d["super_pod_list"][0]),
        ["super pod pod: is listed twice"],
    ),
}


def assert_refused(document, change, words, tmp_path):
    document = copy.deepcopy(document)
    assert check_document(document) == []
    change(document)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(ValueError) as caught:
        read(path)
    for word in words:
        assert word in str(caught.value)
    assert all(problem.where and problem.what and problem.remedy for problem in caught.value.problems)


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name, tmp_path):
    assert_refused(GOOD, *BROKEN[name], tmp_path)


@pytest.mark.parametrize("name", BROKEN_PODS)
def test_broken_super_pods(name, tmp_path):
    assert_refused(PODS, *BROKEN_PODS[name], tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace('"1.0",', '"1.0", // version', 1), r"line 2: a comment \(//\)"),
        (lambda t: "# cluster\n" + t, r"line 1: a comment \(#\)"),
        (lambda t: t.replace("[", "[ /* all */", 1), r"line 4: a comment \(/\*\)"),
        (lambda t: t.replace('"completed"', '"completed",', 1), "not JSON"),
        (lambda t: t.replace('"version"', '"status": "completed", "version"', 1), "key 'status' twice"),
        (lambda t: "[]", "the table: is not a JSON object"),
        (lambda t: "", "line 1, column 1: not JSON"),
    ],
)
def test_broken_json(change, words, tmp_path):
    path = tmp_path / "table.json"
    path.write_text(change(json.dumps(GOOD, indent=1)), "utf-8")
    with pytest.raises(ValueError, match=words):
        read(path)


def test_a_string_may_look_like_a_comment(tmp_path):
    document = copy.deepcopy(GOOD)
    server(document, 0)["server_id"] = "rack//1#2"
    (tmp_path / "table.json").write_text(json.dumps(document), "utf-8")
    assert read(tmp_path / "table.json").servers[0].server_id == "rack//1#2"


def test_all_problems_at_once():
    document = copy.deepcopy(GOOD)
    for name in ("rank as a number", "address missing", "server count wrong", "unknown version"):
        BROKEN[name][0](document)
    assert len(check_document(document)) == 4


def test_devices_that_are_one_group_or_another_chip():
    for places, chip in (((4, 5, 6, 7), None), ((1, 2), None), (range(8), None), ((2, 3, 4, 5), "910B")):
        document = copy.deepcopy(GOOD)
        keep(document, *places)
        assert check_document(document, chip=chip) == []
    with pytest.raises(ValueError, match="chip: '910D' is not one of 910A, 910B, 910C"):
        check_document(GOOD, chip="910D")


def test_the_grid():
    assert check_document(GOOD, Mesh(dp=2, tp=8)) == []
    (problem,) = check_document(GOOD, Mesh(dp=2, tp=4))
    assert "has 16 devices, the grid dp 2, tp 4, pp 1 has 8" in str(problem)
    (problem,) = check_document(GOOD, Mesh(tp=16))
    assert "server 10.0.0.2: tensor parallel group of ranks 0-15 crosses from server 10.0.0.1" in str(problem)
    assert check_document(PODS, Mesh(tp=4)) == []  # one super pod


def test_a_part_of_a_cluster():
    part = build([Host("10.0.0.9", (0, 1))], first_rank=8).to_document()
    assert [p.what[:14] for p in check_document(part)] == ["rank 0-1 missi"]
    assert check_document(part, partial=True) == []
