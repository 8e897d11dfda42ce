"""Tables of ModelArts and template 2 become HCCL's; what cannot is told in a sentence."""

from __future__ import annotations

import copy
import json

import pytest

from pangu_alpha.cli.rank_table import main
from pangu_alpha.cluster.tables.other_forms import converted
from pangu_alpha.cluster.tables.rank_table import read


def group(*instances, **others):
    """A table of one group of (server, device ids)."""
    listed = [
        {"pod_name": f"job-worker-{place}", "server_id": server,
         "devices": [{"device_id": str(i), "device_ip": f"10.2.{server[-1]}.{i}"} for i in ids]}
        for place, (server, ids) in enumerate(instances)
    ]  # fmt: skip
    number = sum(len(ids) for _, ids in instances)
    one = {"group_name": "worker", "instance_count": str(len(listed)), "device_count": str(number)}
    return {
        "status": "completed",
        "group_count": "1",
        "group_list": [one | {"instance_list": listed}],
    } | others


def places(table):
    return [(s.server_id, d.device_id, d.rank_id, d.device_ip) for s in table.servers for d in s.devices]


def test_a_pod_for_each_server(tmp_path, capsys):
    (tmp_path / "given.json").write_text(json.dumps(group(("10.0.0.1", range(8)), ("10.0.0.2", range(8)))))
    out = tmp_path / "table.json"
    assert main(["build", "--from", str(tmp_path / "given.json"), "--output", str(out)]) == 0
    assert places(read(out)) == [
        (f"10.0.0.{s}", i, 8 * (s - 1) + i, f"10.2.{s}.{i}") for s in (1, 2) for i in range(8)
    ]
    assert "2 server(s), 16 devices, ranks 0 to 15; checked" in capsys.readouterr().out


def test_a_pod_for_each_device_whose_servers_take_turns(tmp_path):
    pods = [(f"10.0.0.{place % 2 + 1}", [place // 2]) for place in range(8)]
    (tmp_path / "given.json").write_text(json.dumps(group(*pods)))
    out = tmp_path / "table.json"
    assert main(["build", "--from", str(tmp_path / "given.json"), "--output", str(out)]) == 0
    assert [server.ranks for server in read(out).servers] == [(0, 2, 4, 6), (1, 3, 5, 7)]


def test_devices_may_be_numbers():
    document = group(("10.0.0.1", [0]))
    document["group_list"][0]["instance_list"][0]["devices"][0]["device_id"] = 0
    assert converted(document, "x")["server_list"][0]["device"][0]["device_id"] == "0"


def instance(document):
    return document["group_list"][0]["instance_list"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda d: d["group_list"].append(d["group_list"][0]),
            "group_list has 2 groups .'worker', 'worker'., and nothing says",
        ),
        (lambda d: d.update(group_list=[]), "group_list must be a list of at least one object"),
        (lambda d: d.update(group_list=[3]), "group_list must be a list of at least one object"),
        (lambda d: d["group_list"][0].update(device_count="9"), "device_count is '9', but the file lists 8"),
        (lambda d: d["group_list"][0].update(instance_count="2"), "instance_count is '2', but .* lists 1"),
        (lambda d: instance(d).pop("server_id"), "instance 1: server_id is missing"),
        (lambda d: instance(d).update(devices={}), "instance 1: devices must be a list"),
        (lambda d: d.update(server_list=[]), "is of HCCL's own form already"),
        (lambda d: d.pop("group_list"), "has neither group_list nor server_list"),
        (lambda d: (d.pop("group_list"), d.update(version="2.0")), 'form of version "2.0"'),
    ],
)
def test_tables_that_cannot_be_converted(change, words):
    document = group(("10.0.0.1", range(8)))
    change(document)
    with pytest.raises(ValueError, match=words):
        converted(copy.deepcopy(document), "given.json")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (group(("10.0.0.1", [2, 3, 4])), "devices 2-4 straddle"),
        (group(("10.0.0.1", [0, 0])), "device 0: is listed 2 times"),
        (group(("10.0.0.1", range(8)), status="initializing"), "status is 'initializing'"),
    ],
)
def test_what_is_converted_is_checked_and_not_written_else(document, words, tmp_path):
    (tmp_path / "given.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=words):
        main(["build", "--from", str(tmp_path / "given.json"), "--output", str(tmp_path / "out.json")])
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    "words", [["--devices", "8"], ["--first-rank", "8"], ["--device-ip", "10.0.0.1"], ["--version", "1.2"]]
)
def test_options_that_the_file_answers(words, tmp_path):
    (tmp_path / "given.json").write_text(json.dumps(group(("10.0.0.1", range(8)))))
    with pytest.raises(ValueError, match=f"{words[0]}: .*leave it out"):
        main(
            ["build", "--from", str(tmp_path / "given.json"), *words, "--output", str(tmp_path / "out.json")]
        )
