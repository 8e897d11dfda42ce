"""Lists all rules that an HCCL rank table breaks, each with its place and a remedy.

Works on the parsed JSON, so that a table that is too broken to be loaded is still checked completely. The
rules are those of the rank table chapters of Huawei's HCCL guide, versions "1.0" and "1.2" (super pods).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pangu_alpha.cluster.chips import CHIPS, likely_chip, wrong_devices
from pangu_alpha.cluster.tables.keys import list_of, usable_address, whole_number, wrong_format
from pangu_alpha.cluster.tables.other_forms import other_form
from pangu_alpha.cluster.tables.problem import Problem, device_name, plain_id, ranges, server_name
from pangu_alpha.cluster.tensor_groups import runs_of
from pangu_alpha.files.shown import quoted, shown
from pangu_alpha.parallel.mesh import Mesh

VERSIONS = ("1.0", "1.2")
_LISTED = 10  # entries that a problem lists at most


@dataclass(frozen=True)
class _Device:
    """The usable values of a device's entry; None for a value that is missing or unusable."""

    server: int  # index in server_list, because server ids may be missing or repeated
    where: str
    device_id: int | None
    rank: int | None
    ip: str | None
    super_id: int | None


def check_document(
    document: Any, mesh: Mesh | None = None, chip: str | None = None, partial: bool = False
) -> list[Problem]:
    """Lists all that is wrong with a parsed rank table.

    Args:
        document: The parsed JSON.
        mesh: The grid that the table is for: the number of devices must then be its size, and each tensor
            parallel group must lie in one server (version 1.2: one super pod), or all of them must be divided
            alike between several.
        chip: One of `CHIPS`; by default "910C" for version 1.2. For 1.0, "910B-Box16" where a server has more
            than 8 devices or those of its second ring (then also for "910B"), otherwise "910A", the
            strictest.
        partial: Whether the table covers only some servers of a cluster, so that its ranks need not start at
            0 and may have gaps.

    Returns:
        The problems, those of the format first; empty for a valid table.
    """
    if not isinstance(document, Mapping):
        return [Problem("the table", "is not a JSON object", "start it with { and give it server_list")]
    if chip is not None and chip not in CHIPS:
        raise ValueError(f"chip: {chip!r} is not one of {', '.join(CHIPS)}")
    if (form := other_form(document)) is not None:
        return [Problem("the table", *form)]
    pods = document.get("version") == "1.2"
    problems = list(wrong_format(document, pods))
    servers = [s for s in list_of(document, "server_list") if isinstance(s, Mapping)]
    devices = list(_devices(servers))
    problems += _table(document, servers)
    problems += _server_devices(servers, devices, _chip(devices, pods, chip))
    problems += _ranks(devices, partial)
    problems += _addresses(devices, len(servers))
    problems += _super_pods(document, servers, devices) if pods else []
    problems += _grid(document, servers, devices, mesh) if mesh else []
    return _together(problems)


def spread(document: Mapping, mesh: Mesh) -> str | None:
    """Returns a note on tensor parallel groups that cross servers, or None if there are none.

    Args:
        document: The parsed JSON of a table without problems for this grid.
        mesh: The grid that the table is for.

    Returns:
        A sentence; None if every group lies in one server (version 1.2: super pod).
    """
    servers = document["server_list"]
    homes, _ = _homes(document, servers, list(_devices(servers)))
    runs, _ = runs_of(_members_at(homes, mesh))
    if runs == 1:
        return None
    return (
        f"every tensor parallel group of {mesh.tp} lies on {runs} {_units(document)}, {mesh.tp // runs} "
        "neighbours on each; that is slow unless the plan was searched for it"
    )


def _chip(devices: Sequence[_Device], pods: bool, named: str | None) -> str:
    """Returns the chip whose rules apply; 910B servers have one or two rings."""
    ids: dict[int, set[int]] = defaultdict(set)
    for device in devices:
        if device.device_id is not None:
            ids[device.server].add(device.device_id)
    likely = likely_chip(ids.values(), pods)
    return likely if named is None or (named, likely) == ("910B", "910B-Box16") else named


def _together(problems: Iterable[Problem]) -> list[Problem]:
    """Merges equal problems of all devices of a server into one."""
    places: dict[tuple[str, str, str], list[int]] = {}
    for number, problem in enumerate(problems := list(problems)):
        head, device, place = problem.where.rpartition(", device ")
        if device and place.isdigit():
            places.setdefault((head, problem.what, problem.remedy), []).append(number)
    merged: dict[int, Problem | None] = {}
    for (head, what, remedy), numbers in places.items():
        if len(numbers) > 1:
            merged |= dict.fromkeys(numbers[1:])
            ids = ranges(int(problems[number].where.rpartition(" ")[2]) for number in numbers)
            merged[numbers[0]] = Problem(f"{head}, devices {ids}", what, remedy)
    return [p for n, one in enumerate(problems) if (p := merged.get(n, one)) is not None]


def _table(document: Mapping, servers: list[Mapping]) -> Iterator[Problem]:
    status, version, count = (document.get(key) for key in ("status", "version", "server_count"))
    if isinstance(status, str) and status != "completed":
        yield Problem("the table", f"status is {quoted(status)}, HCCL waits until it is 'completed'",
                      'complete the table, then write "completed"')  # fmt: skip
    if isinstance(version, str) and version not in VERSIONS:
        yield Problem("the table", f"version {quoted(version)} is unknown",
                      'write "1.0", or "1.2" for super pods of 910C')  # fmt: skip
    if isinstance(count, str) and whole_number(count) not in (None, len(servers)):
        yield Problem("the table", f"server_count is {shown(count, 20)}, server_list has {len(servers)}",
                      f'write "{len(servers)}", or add the missing servers')  # fmt: skip
    entries: dict[str, list[int]] = defaultdict(list)
    for number, server in enumerate(servers):
        if (name := _name(server, "server_id")) is not None:
            entries[name].append(number)
    for numbers in entries.values():
        if len(numbers) > 1:
            which = ", ".join(str(number + 1) for number in numbers[:_LISTED])
            places = f"{len(numbers)} times (entries {which}{', ...' * (len(numbers) > _LISTED)})"
            yield Problem(server_name(servers[numbers[0]], numbers[0]), f"is listed {places}",
                          "give every server one entry with a server_id of its own")  # fmt: skip


def _server_devices(servers: list[Mapping], devices: list[_Device], name: str) -> Iterator[Problem]:
    chip = CHIPS[name]
    own: dict[int, list[int]] = defaultdict(list)
    for device in devices:
        if device.device_id is not None:
            own[device.server].append(device.device_id)
    for number, server in enumerate(servers):
        where, ids = server_name(server, number), own[number]
        for number_of_device, times in Counter(ids).items():
            if times > 1:
                yield Problem(f"{where}, device {number_of_device}", f"is listed {times} times",
                              "give every device one entry")  # fmt: skip
        for beyond in sorted({i for i in ids if i >= chip.devices}):
            yield Problem(f"{where}, device {beyond}", f"a server of {name} has devices 0 to "
                          f"{chip.devices - 1}", "correct the id, or name the chip (--chip)")  # fmt: skip
        inside = {i for i in ids if i < chip.devices}
        if (fault := wrong_devices(inside, name)) is not None:
            yield Problem(where, f"devices {ranges(inside)} {fault[0]}", f"{fault[1]}; other chips: --chip")


def _ranks(devices: list[_Device], partial: bool) -> Iterator[Problem]:
    owners = _by(devices, "rank")
    for rank, holders in sorted(owners.items()):
        if len(holders) > 1:
            yield Problem(holders[1].where, f"rank_id {rank} is already that of {holders[0].where}",
                          "give every device a rank_id of its own")  # fmt: skip
    missing = set(range(len(devices))) - owners.keys()
    told = any(device.rank is None for device in devices)  # an unreadable rank is a problem of its own
    if missing and not partial and not told:
        beyond = [rank for rank in owners if rank >= len(devices)]
        found = f", but there is {ranges(beyond)}" if beyond else ""
        yield Problem("the table", f"rank {ranges(missing)} missing{found}: the {len(devices)} devices must "
                      f"have the ranks 0 to {len(devices) - 1}", "add the devices of these ranks, or correct "
                      "rank_id")  # fmt: skip


def _addresses(devices: list[_Device], servers: int) -> Iterator[Problem]:
    for ip, holders in _by(devices, "ip").items():
        if len(holders) == 1 or not usable_address(ip):  # an invalid address is reported as such
            continue
        for holder in holders[1:]:
            yield Problem(holder.where, f"device_ip {ip} is already that of {holders[0].where}",
                          "ask each device for its own: hccn_tool -i N -ip -g")  # fmt: skip
    if servers > 1:
        for device in devices:
            if device.ip is None:
                yield Problem(device.where, "device_ip is missing, and servers reach each other by it",
                              "ask the device: hccn_tool -i N -ip -g")  # fmt: skip


def _super_pods(document: Mapping, servers: list[Mapping], devices: list[_Device]) -> Iterator[Problem]:
    pods = [pod for pod in list_of(document, "super_pod_list") if isinstance(pod, Mapping)]
    for name, times in Counter(_name(pod, "super_pod_id") for pod in pods).items():
        if times > 1 and name is not None:
            yield Problem(f"super pod {plain_id(name)}", f"is listed {_times(times)}",
                          "give every super pod one entry")  # fmt: skip
    known = {_name(server, "server_id") for server in servers}
    members = _members(pods)
    for server, names in members.items():
        if server is not None and server not in known:
            pod = f"super pod {plain_id(names[0])}"
            yield Problem(pod, f"server {plain_id(server)} is not in server_list",
                          "correct its server_id, or add the server")  # fmt: skip
        if len(names) > 1:
            which = ", ".join(map(plain_id, names[:_LISTED]))
            what = f"is in super_pod_list {len(names)} times (super pods {which})"
            yield Problem(f"server {plain_id(server)}", what, "name it in one super pod")
    for server in sorted(str(name) for name in known - members.keys() if name is not None):
        yield Problem(f"server {plain_id(server)}", "is in no super pod", "add it to super_pod_list")
    yield from _super_devices(servers, devices, members)


def _members(pods: list[Mapping]) -> dict[str | None, list[str | None]]:
    """Returns, for each server, the super pods that list it."""
    members = defaultdict(list)
    for pod in pods:
        for server in list_of(pod, "server_list"):
            members[_name(server, "server_id")].append(_name(pod, "super_pod_id"))
    return members


def _super_devices(
    servers: list[Mapping], devices: list[_Device], members: Mapping[str | None, list[str | None]]
) -> Iterator[Problem]:
    taken: dict[tuple[Any, int], str] = {}
    for device in devices:
        pod = (members.get(_name(servers[device.server], "server_id")) or [None])[0]
        if device.super_id is not None and pod is not None:
            first = taken.setdefault((pod, device.super_id), device.where)
            if first != device.where:
                yield Problem(device.where, f"super_device_id {device.super_id} is already that of {first} "
                              f"in super pod {plain_id(pod)}",
                              "ask the device: npu-smi info -t spod-info")  # fmt: skip


def _grid(document: Mapping, servers: list[Mapping], devices: list[_Device], mesh: Mesh) -> Iterator[Problem]:
    if len(devices) != mesh.size:
        yield Problem("the table", f"has {len(devices)} devices, {mesh} has {mesh.size}",
                      "change a degree, or the list of servers")  # fmt: skip
        return
    homes, names = _homes(document, servers, devices)
    if len(homes) != mesh.size or set(homes) != set(range(mesh.size)):
        return  # missing or repeated ranks are problems of their own
    _, broken = runs_of(_members_at(homes, mesh))
    for number in np.flatnonzero(broken):
        group = range(int(number) * mesh.tp, (int(number) + 1) * mesh.tp)  # tp is the innermost axis
        places = [names[home] for home in dict.fromkeys(homes[rank] for rank in group)]
        if len(places) == 1:
            what = f"lies in it whole, unlike the most, which are spread over several {_units(document)}"
        else:
            what = f"crosses from {places[0]} unlike the others, or not in equal runs of neighbours"
        yield Problem(places[-1], f"tensor parallel group of ranks {ranges(group)} {what}",
                      "permute the table for the plan (rank_table.py permute), or lower tp to the devices "
                      "of a server")  # fmt: skip


def _units(document: Mapping) -> str:
    """Returns the word for what a tensor parallel group should lie in: server or super pod."""
    return "super pods" if document.get("version") == "1.2" else "servers"


def _homes(
    document: Mapping, servers: Sequence[Mapping], devices: Sequence[_Device]
) -> tuple[dict[int, int], list[str]]:
    """Returns the index of the server (version 1.2: super pod) of each rank, and the names of these."""
    if document.get("version") != "1.2":
        names = [server_name(server, number) for number, server in enumerate(servers)]
        return {d.rank: d.server for d in devices if d.rank is not None}, names
    members = _members(list_of(document, "super_pod_list"))
    pods = [(members.get(_name(server, "server_id")) or [None])[0] for server in servers]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(pods))}
    homes = {d.rank: numbers[pods[d.server]] for d in devices if d.rank is not None}
    return homes, [f"super pod {plain_id(name)}" for name in numbers]


def _members_at(homes: Mapping[int, int], mesh: Mesh) -> np.ndarray:
    """Returns the indices, as in `_homes`, of all tensor parallel groups' members. Shape: (groups, tp)."""
    return np.array([homes[rank] for rank in range(mesh.size)]).reshape(-1, mesh.tp)


def _devices(servers: list[Mapping]) -> Iterator[_Device]:
    for number, server in enumerate(servers):
        name = server_name(server, number)
        for place, device in enumerate(list_of(server, "device")):
            if isinstance(device, Mapping):
                yield _Device(
                    server=number,
                    where=f"{name}, {device_name(device, place)}",
                    device_id=whole_number(device.get("device_id")),
                    rank=whole_number(device.get("rank_id")),
                    ip=str(device["device_ip"]) if "device_ip" in device else None,
                    super_id=whole_number(device.get("super_device_id")),
                )


def _by(devices: Sequence[_Device], field: str) -> dict[Any, list[_Device]]:
    found = defaultdict(list)
    for device in devices:
        if getattr(device, field) is not None:
            found[getattr(device, field)].append(device)
    return found


def _times(number: int) -> str:
    return "twice" if number == 2 else f"{number} times"


def _name(value: Any, key: str) -> str | None:
    """Returns the id of a server or super pod, or None if it has no usable one."""
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, str) else None
