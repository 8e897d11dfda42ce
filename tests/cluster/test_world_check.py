"""Ranks that are not alike, or not where the rank table has them, are named before a run begins."""

from __future__ import annotations

import json
import socket
import typing
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from pangu_alpha.cluster import process_identity, world_check
from pangu_alpha.cluster.process_identity import PATHS, RECORD, Identity, identify
from pangu_alpha.cluster.tables.rank_table import from_document
from pangu_alpha.cluster.world_check import compare_ranks, group_lines, misplacements
from pangu_alpha.config.data import SourceConfig
from pangu_alpha.config.optim import LossScaleConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.run import TrainConfig, build_train_config
from pangu_alpha.config.schema import PathText


@pytest.fixture
def config():
    return build_train_config(
        {
            "model": {"vocab_size": 60, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "seq_length": 16},
            "data": {"train": {"one": {"records": "/data/one"}}},
            "run": {"output": "/runs/one", "steps": 20},
            "parallel": {"dp": 2, "tp": 2},
        }
    )


def table_of(ranks_of_servers, ids=None):
    """A rank table whose servers have these ranks, device 0 first."""
    servers = [
        {
            "server_id": ids[place] if ids else f"10.0.0.{place}",
            "device": [
                {"device_id": str(device), "device_ip": f"10.1.{place}.{device}", "rank_id": str(rank)}
                for device, rank in enumerate(ranks)
            ],
        }
        for place, ranks in enumerate(ranks_of_servers)
    ]
    return {"version": "1.0", "server_count": str(len(servers)), "server_list": servers,
            "status": "completed"}  # fmt: skip


def records_of(table):
    """What the ranks of a table say when every one is where the table has it."""
    records = np.zeros(table.size, RECORD)
    records["rank"] = records["host_server"] = -1
    for place, server in enumerate(table.servers):
        for device in server.devices:
            each = records[device.rank_id : device.rank_id + 1]
            each["host"], each["machine"], each["place"] = f"node{place:02d}".encode(), place + 1, place + 1
            each["device"] = each["table_device"] = device.device_id
            each["server"] = place
    return records


TABLE = from_document(table_of([(0, 1), (2, 3)]))
PLAN = ParallelPlan(dp=2, tp=2)


def met(crowd, config, change=lambda rank, own: own):
    """Ranks on one machine meet, each changed by `change`."""
    size = config.parallel.devices
    return crowd(size).run(
        lambda world: compare_ranks(world, change(world.rank, identify(world.rank, config, world.rank)))
    )


def test_a_record_is_small_and_the_same_in_one_place(config):
    assert RECORD.itemsize == 80
    first, second = (identify(0, config, 3, {}).record for _ in range(2))
    assert first == second and first["device"] == 3 and first["server"] == -1
    assert first["host"].item().decode() == socket.gethostname()[:32]
    assert identify(0, config, 1, {"ASCEND_RT_VISIBLE_DEVICES": "4, 6"}).record["device"] == 6


def test_the_keys_that_may_differ_are_the_paths():
    def paths(cls, place=""):
        hints = typing.get_type_hints(cls, include_extras=True)
        for field in fields(cls):
            hint = hints[field.name]
            several = typing.get_origin(hint) is dict
            inner = typing.get_args(hint)[1] if several else hint
            if is_dataclass(inner):
                yield from paths(inner, f"{place}{field.name}." + "*." * several)
            elif hint == PathText or PathText in typing.get_args(hint):
                yield place + field.name

    assert set(paths(TrainConfig)) == set(PATHS)


def test_ranks_that_are_alike_pass_and_the_first_logs_their_groups(crowd, config, caplog):
    caplog.set_level("INFO")
    assert met(crowd, config) == [None] * 4
    host = socket.gethostname()[:32]
    assert [record.getMessage() for record in caplog.records] == [
        f"tp: 2 groups of 2; first: rank 0 {host} device 0, rank 1 {host} device 1",
        f"tp: last: rank 2 {host} device 2, rank 3 {host} device 3",
        f"dp: 2 groups of 2; first: rank 0 {host} device 0, rank 2 {host} device 2",
        f"dp: last: rank 1 {host} device 1, rank 3 {host} device 3",
    ]


@pytest.mark.parametrize(
    ("section", "change", "key"),
    [
        ("run", {"steps": 21}, r"run\.steps"),
        ("optim", {"learning_rate": 2e-4}, r"optim\.learning_rate"),
        ("optim", {"loss_scale": LossScaleConfig(initial=2.0**16)}, r"optim\.loss_scale"),
        ("data", {"train": {"one": SourceConfig("/data/one", 2.0)}}, r"data\.train"),
        ("model", {"activation": "fast_gelu"}, r"model\.activation"),
        ("parallel", {"dp": 4, "tp": 1}, r"parallel\.dp, parallel\.tp"),
    ],
)
def test_another_configuration_is_named_by_its_keys(crowd, config, section, change, key):
    other = replace(config, **{section: replace(getattr(config, section), **change)})

    def told(rank, own):
        return identify(rank, other, rank) if rank == 2 else own

    with pytest.raises(ValueError, match=rf"^{key}: not the same on all ranks: rank 2 \(.*\) against rank 0"):
        met(crowd, config, told)


def test_all_ranks_stop_by_the_same_sentence(crowd, config):
    other = replace(config, run=replace(config.run, seed=2))

    def meet(world):
        try:
            compare_ranks(world, identify(world.rank, other if world.rank == 3 else config, None))
        except ValueError as error:
            return str(error)

    said = crowd(4).run(meet)
    assert len(set(said)) == 1 and said[0].startswith("run.seed: ")


def test_paths_may_differ(crowd, config):
    train = {"one": SourceConfig("/elsewhere/one")}
    data = replace(config.data, train=train, vocabulary="/elsewhere/vocab.model")
    other = replace(config, run=replace(config.run, output="/elsewhere"), data=data)
    assert met(crowd, config, lambda rank, own: identify(rank, other, rank) if rank else own) == [None] * 4


def test_a_container_is_another_place_than_its_neighbour(config, monkeypatch):
    """Containers that share the host's name and processes may each have a device 0; their mounts differ."""
    own = identify(0, config, 0).record
    monkeypatch.setattr(process_identity.os, "readlink", lambda path: f"{path}:[1]")
    first = identify(0, config, 0).record
    monkeypatch.setattr(process_identity.os, "readlink", lambda path: f"{path}:[{1 + path.endswith('mnt')}]")
    second = identify(0, config, 0).record
    assert own["machine"] == first["machine"] == second["machine"]
    assert first["place"] != second["place"]


def changed(own, **values):
    record = own.record.copy()
    for key, value in values.items():
        record[key] = value
    return Identity(record, own.config, own.table)


def test_other_programs_are_named(crowd, config, monkeypatch):
    with pytest.raises(
        ValueError, match=r"different sources of pangu_alpha: rank 1 \(node07\) against rank 0"
    ):
        met(crowd, config, lambda rank, own: changed(own, source=1, host=b"node07") if rank == 1 else own)
    with pytest.raises(
        ValueError, match=r"different versions: ranks 1-2 \(.*\) against rank 0 .*mindspore .* against pangu"
    ):
        met(crowd, config, lambda rank, own: changed(own, versions=1) if rank in (1, 2) else own)


def test_two_ranks_on_one_device_are_named(crowd, config):
    with pytest.raises(
        ValueError, match="ranks 1 and 3 both run on device 1 of .*; give each its own DEVICE"
    ):
        met(crowd, config, lambda rank, own: changed(own, device=rank % 2 if rank != 2 else 7))
    # two containers of one machine may each have a device 1
    met(crowd, config, lambda rank, own: changed(own, device=rank % 2, place=rank // 2))


def test_ranks_where_the_table_has_them_pass():
    for servers in ([(0, 1), (2, 3)], [(3, 1), (0, 2)]):
        table = from_document(table_of(servers))
        assert list(misplacements(records_of(table), table, PLAN)) == []


def said(change, table=TABLE):
    records = records_of(table)
    change(records)
    return next(misplacements(records, table, PLAN), "")


def exchange(records, names, one, two):
    for name in names:
        records[name][[one, two]] = records[name][[two, one]]


def test_ranks_of_one_server_on_two_machines_are_named_with_their_group():
    assert said(lambda records: exchange(records, ("host", "machine", "place"), 1, 3)).startswith(
        "the rank table has ranks 0 and 1 (one tp group) on one server, 10.0.0.0, but they run on node00 and "
        "node01; start every node with the ranks that the table gives it (--node-rank)"
    )


def test_servers_of_the_table_on_one_machine_are_named():
    def together(records):
        records["place"] = records["machine"] = 5
        records["device"] = records["table_device"] = range(4)

    assert said(together).startswith(
        "ranks 0 and 2 run on one machine, node01, but the rank table has them on 10.0.0.0 and 10.0.0.1; "
    )


def test_exchanged_nodes_are_known_by_their_addresses():
    """All ranks of two servers exchanged: the groups are whole, but the table's names are not."""

    def exchanged(records):
        records["host_server"] = [1, 1, 0, 0]

    assert said(exchanged).startswith(
        "rank 0 (node00): runs on the host that the rank table calls 10.0.0.1, but has this rank on 10.0.0.0"
    )


def test_another_device_or_number_than_the_tables_is_named():
    def device(records):
        records["device"][3] = 6

    assert "rank 3 (node01): runs on device 6, the rank table has it on device 1 of 10.0.0.1" in said(device)

    def number(records):
        records["rank"] = [0, 1, 3, 2]

    assert said(number).startswith("rank 2 (node01): RANK_ID in its environment is 3; start by run_scripts/")


def test_the_rank_table_of_the_environment_is_read(config, tmp_path, monkeypatch):
    path, host = tmp_path / "table.json", socket.gethostname()
    path.write_text(json.dumps(table_of([(2, 3), (0, 1)], ids=["node-other", host])), "utf-8")
    environment = {"RANK_TABLE_FILE": str(path), "RANK_ID": "3", "RANK_SIZE": "4"}
    own = identify(3, config, 1, environment)
    names = ("rank", "device", "table_device", "server", "host_server")
    assert [own.record[name] for name in names] == [3, 1, 1, 0, 1]
    assert own.record["table"] and own.table.size == 4
    contained = identify(3, config, 1, environment | {"ASCEND_VISIBLE_DEVICES": "4-5"}).record
    assert [contained[name] for name in names] == [3, 1, -1, 0, 1]  # not known by the table's number
    path.write_text("{}", "utf-8")
    assert identify(3, config, 1, environment).record["server"] == process_identity.UNREADABLE


def test_tables_that_differ_or_cannot_be_used_stop_all(crowd, config):
    def change(rank, own):
        return changed(own, table=5 if rank == 3 else 4)

    with pytest.raises(ValueError, match="not the same rank table on all ranks: rank 3 .* against rank 0"):
        met(crowd, config, change)
    with pytest.raises(ValueError, match=r"RANK_TABLE_FILE: ranks 2 \(.*\) cannot use it; `python src/rank_"):
        met(crowd, config, lambda rank, own: changed(own, server=-2) if rank == 2 else own)


def test_the_first_and_last_groups_of_a_permuted_table():
    table = from_document(table_of([(0, 4), (1, 5), (2, 6), (3, 7)]))
    lines = list(group_lines(records_of(table), table, ParallelPlan(dp=2, tp=2, pp=2, micro_batches=2)))
    assert lines == [
        "tp: 4 groups of 2; first: rank 0 10.0.0.0 device 0, rank 1 10.0.0.1 device 0",
        "tp: last: rank 6 10.0.0.2 device 1, rank 7 10.0.0.3 device 1",
        "dp: 4 groups of 2; first: rank 0 10.0.0.0 device 0, rank 2 10.0.0.2 device 0",
        "dp: last: rank 5 10.0.0.1 device 1, rank 7 10.0.0.3 device 1",
        "pp: 4 groups of 2; first: rank 0 10.0.0.0 device 0, rank 4 10.0.0.0 device 1",
        "pp: last: rank 3 10.0.0.3 device 0, rank 7 10.0.0.3 device 1",
    ]


def test_a_long_group_is_cut():
    table = from_document(table_of([tuple(range(place * 8, place * 8 + 8)) for place in range(4)]))
    (line,) = group_lines(records_of(table), table, ParallelPlan(dp=32))
    assert line.startswith("dp: 1 group of 32; first: rank 0 10.0.0.0 device 0, ")
    assert line.endswith("rank 6 10.0.0.0 device 6, (24 more), rank 31 10.0.0.3 device 7")


def test_groups_spread_over_machines_for_nothing_are_noted():
    records = records_of(TABLE)
    assert world_check._spread_note(records, PLAN) is None
    records["machine"] = [1, 2, 1, 2]
    note = world_check._spread_note(records, PLAN)
    assert note.startswith(
        "2 tensor parallel groups are spread over machines, though each would fit into one"
    )
    assert "(the first: stage 0, data 0)" in note
    assert world_check._spread_note(records, ParallelPlan(tp=4)) is None  # no machine has room for it
