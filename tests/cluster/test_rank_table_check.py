"""Broken tables are refused, each with the server, the device, the rule and the remedy."""

from __future__ import annotations

import copy
import json

import pytest

from pangu_alpha.cluster.tables.build import Host, build, hosts_by_rule
from pangu_alpha.cluster.tables.check import check_document, spread
from pangu_alpha.cluster.tables.rank_table import read
from pangu_alpha.parallel.mesh import Mesh

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
        ["super_pod_list is missing", "server 10.0.0.1, devices 0-7: super_device_id is missing"],
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
        (lambda t: t.replace('"completed"', '"completed",', 1), r"line \d+: a comma behind the last entry"),
        (lambda t: t.replace('"rank_id": "0"\n', '"rank_id": "0",\n', 1), "line 11: a comma behind the last"),
        (lambda t: t.replace('"rank_id": "0"', '"rank_id" "0"', 1), "not JSON: Expecting ':' delimiter"),
        (lambda t: t.replace('"version"', '"status": "completed", "version"', 1), "key 'status' twice"),
        (lambda t: "[]", "the table: is not a JSON object"),
        (lambda t: "", "line 1, column 1: not JSON"),
        (lambda t: t + "\n// end", r"line \d+: a comment \(//\)"),
        (lambda t: t.replace(",", ",  # next", 1), r"line 2: a comment \(#\)"),
        (lambda t: "[" * 100_000, "mappings and lists in one another more than 100 deep"),
        (lambda t: t.replace('"2"', "9" * 5000), "a number of thousands of digits"),
        (lambda t: '"' + '\\"' * 100_000, "not JSON: Unterminated string"),
    ],
)
def test_broken_json(change, words, tmp_path):
    path = tmp_path / "table.json"
    path.write_text(change(json.dumps(GOOD, indent=1)), "utf-8")
    with pytest.raises(ValueError, match=words):
        read(path)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "table.json").write_text("\ufeff" + json.dumps(GOOD), "utf-8")
    assert read(tmp_path / "table.json").size == 16


def test_a_table_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "table.json").write_bytes("// 集群\n".encode("gbk") + json.dumps(GOOD).encode())
    with pytest.raises(ValueError, match=r"table.json, line 1: not UTF-8 text \(byte 0xbc at offset 3\)"):
        read(tmp_path / "table.json")


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
    with pytest.raises(ValueError, match="chip: '910D' is not one of 910A, 910B, 910B-Box16, 910C"):
        check_document(GOOD, chip="910D")


def test_the_grid():
    assert check_document(GOOD, Mesh(dp=2, tp=8)) == []
    (problem,) = check_document(GOOD, Mesh(dp=2, tp=4))
    assert "has 16 devices, the grid dp 2, tp 4, pp 1 has 8" in str(problem)
    assert check_document(PODS, Mesh(tp=4)) == []  # one super pod


def with_ranks(*ranks):
    """The good table with the ranks of its first and of its second server."""
    document = copy.deepcopy(GOOD)
    for number, own in enumerate(ranks):
        for place, rank in enumerate(own):
            device(document, number, place)["rank_id"] = str(rank)
    return document


@pytest.mark.parametrize(
    ("mesh", "first", "runs"),
    [
        (Mesh(dp=2, tp=8), range(8), 1),
        (Mesh(dp=2, tp=8), [*range(4), *range(8, 12)], 2),  # the planner's answer for 13b on 910b-16
        (Mesh(tp=16), range(8), 2),
        (Mesh(dp=4, tp=4), [0, 4, 1, 5, 8, 12, 9, 13], 2),
        (Mesh(dp=8, tp=2), range(0, 16, 2), 2),
        (Mesh(dp=16), range(8), 1),
    ],
)
def test_tensor_parallel_groups_that_lie_alike(mesh, first, runs):
    document = with_ranks(first, [rank for rank in range(16) if rank not in first])
    assert check_document(document, mesh) == []
    note = spread(document, mesh)
    if runs == 1:
        assert note is None
    else:
        assert note.startswith(
            f"every tensor parallel group of {mesh.tp} lies on 2 servers, {mesh.tp // 2} neighbours on each"
        )


@pytest.mark.parametrize(
    ("mesh", "first", "broken"),
    [
        (Mesh(dp=4, tp=4), [0, 1, 2, 3, 4, 5, 6, 8], ["4-7", "8-11"]),  # two ranks exchanged
        (Mesh(dp=2, tp=8), range(0, 16, 2), ["0-7", "8-15"]),  # dealt out in turn: no runs of neighbours
        (Mesh(dp=2, tp=8), [*range(3), *range(8, 13)], ["0-7", "8-15"]),  # 3 and 5, 5 and 3
        (Mesh(dp=2, tp=8), [0, 1, 6, 7, 8, 9, 14, 15], ["0-7", "8-15"]),  # back again
    ],
)
def test_tensor_parallel_groups_that_do_not_lie_alike(mesh, first, broken):
    document = with_ranks(first, [rank for rank in range(16) if rank not in first])
    problems = check_document(document, mesh)
    assert [problem.what.split(" crosses ")[0] for problem in problems] == [
        f"tensor parallel group of ranks {ranks}" for ranks in broken
    ]
    assert "server 10.0.0." in problems[0].where and "crosses from server 10.0.0." in problems[0].what


def test_a_group_in_one_server_where_the_others_are_spread():
    document = with_ranks([0, 2, 4, 5, 8, 10, 12, 14], [1, 3, 6, 7, 9, 11, 13, 15])
    problems = check_document(document, Mesh(dp=8, tp=2))
    assert [str(problem).split(", unlike")[0] for problem in problems] == [
        "server 10.0.0.1: tensor parallel group of ranks 4-5 lies in it whole",
        "server 10.0.0.2: tensor parallel group of ranks 6-7 lies in it whole",
    ]


def one_server(*ids):
    return build([Host("10.0.0.1", ids)]).to_document()


@pytest.mark.parametrize(
    "ids",
    [
        range(16),
        range(8, 16),
        (9, 10, 14),
        (*range(5), *range(8, 13)),  # 10: five of each ring, the same ones
        (0, 1, 2, 4, 5, 7, 8, 9, 10, 12, 13, 15),
        (*range(7), *range(8, 15)),
    ],
)
def test_a_server_of_two_rings_of_eight(ids):
    assert check_document(one_server(*ids)) == []
    assert check_document(one_server(*ids), chip="910B-Box16") == []
    assert check_document(one_server(*ids), chip="910B") == []  # which it is


@pytest.mark.parametrize(
    ("ids", "shown"),
    [
        (range(9), "0-8"),
        (range(11), "0-10"),
        ((0, *range(8, 16)), "0, 8-15"),
        ((*range(5), *range(9, 14)), "0-4, 9-13"),  # ten, but not the same of each
        (range(15), "0-14"),
    ],
)
def test_devices_of_two_rings_that_no_job_takes(ids, shown):
    (problem,) = check_document(one_server(*ids))
    assert f"devices {shown} straddle the groups of 8 that a 910B-Box16 server links directly" in str(problem)
    assert "0-7 or 8-15" in problem.remedy and "10, 12, 14 or 16 devices: the same of both" in problem.remedy


def test_up_to_eight_devices_of_a_box16_are_of_one_ring():
    (problem,) = check_document(one_server(0, 1, 8, 9), chip="910B-Box16")
    assert "devices 0-1, 8-9 straddle" in str(problem)


@pytest.mark.parametrize(
    ("chip", "ids", "words"),
    [
        ("910C", range(9), "devices 0-8 take parts of packages, but a 910C has 2 dies in each; take both"),
        ("910C", (1, 2), "take both dies of a package (0 and 1), or a single one"),
        ("910A", range(3), "devices 0-2 are 3, but a job takes 1, 2, 4 or 8 of a 910A server"),
    ],
)
def test_numbers_of_devices_that_no_job_takes(chip, ids, words):
    (problem,) = check_document(one_server(*ids), chip=chip)
    assert words in str(problem)


def test_what_a_job_takes_of_other_chips():
    assert check_document(one_server(*range(3)), chip="910B") == []
    for ids in ((3,), (2, 3), (0, 1, 6, 7), range(16)):
        assert check_document(one_server(*ids), chip="910C") == []


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"status": "completed", "group_list": []}, "has the form of ModelArts"),
        ({"version": "2.0", "status": "completed", "rank_list": []}, 'has the form of version "2.0"'),
        ({"status": "initializing"}, "status is 'initializing' and no server is listed"),
    ],
)
def test_another_form_is_one_problem(document, words):
    (problem,) = check_document(document)
    assert str(problem).startswith(f"the table: {words}")


def test_what_all_devices_of_a_server_have_is_one_problem():
    document = one_server(*range(8))
    for each in server(document, 0)["device"]:
        each["device_ip"] = "-.-.-.-"
    (problem,) = check_document(document)
    assert str(problem).startswith("server 10.0.0.1, devices 0-7: device_ip '-.-.-.-' is not an IP address")


def test_keys_that_schedulers_add_are_known():
    document = copy.deepcopy(GOOD)
    server(document, 0).update(server_name="node-173", server_ip="192.168.3.4", container_ip="192.168.3.4")
    device(document, 0, 0)["device_logical_id"] = "0"
    assert check_document(document) == []


@pytest.mark.parametrize("value", ["-1", "99999999999999999999", "1e3", "\u0661"])
def test_numbers_that_are_none(value):
    document = copy.deepcopy(GOOD)
    device(document, 0, 1)["rank_id"] = value
    assert [problem.what for problem in check_document(document)] == [
        f"rank_id '{value}' is not a whole number from 0"
    ]


def test_control_characters_of_ids_are_escaped():
    document = one_server(0)
    server(document, 0)["server_id"] = "a\x1b[31m\nb\u202e"
    device(document, 0, 0)["rank_id"] = "\x1b]0;x\x07"
    (problem,) = check_document(document)
    assert str(problem) == (
        r"server a\x1b[31m\nb\u202e, device 0: rank_id '\x1b]0;x\x07' is not a whole number from 0; "
        "write digits only, without leading zeros"
    )


def test_many_unknown_keys_are_told_in_short():
    document = copy.deepcopy(GOOD)
    document |= {f"key{number}": "" for number in range(40_000)}
    problems = check_document(document)
    assert len(problems) == 11
    assert str(problems[-1]) == "the table: 39990 more unknown keys; is this a rank table?"


class Counted(str):
    """A text that counts how often it is compared."""

    compared = 0

    def __eq__(self, other):
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_the_work_grows_with_the_number_of_servers():
    hosts = hosts_by_rule(400, "10.0.{server//200}.{server%200}", range(8))
    document = build(hosts, ip_rule="10.{device}.{server//200}.{server%200+1}").to_document()
    for each in document["server_list"]:
        each["server_id"] = Counted(each["server_id"])
    Counted.compared = 0
    assert check_document(document, Mesh(dp=400, tp=8)) == []
    assert Counted.compared < 4 * 400  # each with each would be 160,000


def test_an_error_lists_the_first_problems(tmp_path):
    document = copy.deepcopy(GOOD)
    document["server_list"] = [{"server_id": str(number)} for number in range(60)]
    document["server_count"] = "60"
    (tmp_path / "table.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="10 more; rank_table.py check lists all") as caught:
        read(tmp_path / "table.json")
    assert len(caught.value.problems) == 60 and len(str(caught.value).splitlines()) == 52


def test_a_part_of_a_cluster():
    part = build([Host("10.0.0.9", (0, 1))], first_rank=8).to_document()
    assert [p.what[:14] for p in check_document(part)] == ["rank 0-1 missi"]
    assert check_document(part, partial=True) == []
