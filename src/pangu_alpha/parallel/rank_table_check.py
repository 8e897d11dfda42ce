"""What makes a rank table wrong: every broken rule of an HCCL rank table at once, with place and remedy.

Works on the parsed JSON as it stands, so that a table too broken to read is still judged whole. The rules are
those of the rank table chapters of Huawei's HCCL guide, versions "1.0" and "1.2" (super pods).
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pangu_alpha.parallel.mesh import Mesh


@dataclass(frozen=True)
class Problem:
    """One broken rule.

    Args:
        where: "the table", or the server and, where it is one, the device.
        what: What stands there, and the rule it breaks.
        remedy: What to do about it.
    """

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


class RankTableError(ValueError):
    """A rank table that breaks rules.

    Args:
        path: The file, or what the table is called.
        problems: All of them.
    """

    def __init__(self, path: object, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        number = f"{len(self.problems)} problem{'s' * (len(self.problems) > 1)}"
        super().__init__("\n  - ".join([f"{path}: {number}:", *map(str, self.problems)]))


@dataclass(frozen=True)
class Chip:
    """What a server of this chip holds.

    Args:
        devices: NPUs (910C: dies) of a server.
        group: NPUs that are linked directly with each other; a job takes NPUs of one such group, or all.
    """

    devices: int
    group: int


# Atlas 800 (9000): two groups of four. Atlas 800T A2: one full mesh of eight. Atlas 900 A3: eight NPUs of two
# dies each.
CHIPS = {"910A": Chip(8, 4), "910B": Chip(8, 8), "910C": Chip(16, 16)}

VERSIONS = ("1.0", "1.2")

# Required keys, then optional ones, by version.
_TABLE = ({"status", "version", "server_count", "server_list"}, set())
_SERVER = ({"server_id", "device"}, {"host_ip", "container_ip", "server_ip", "host_nic_ip", "hardware_type"})
_DEVICE = (
    {"device_id", "rank_id"},
    {"device_ip", "device_port", "host_port", "device_logical_id", "backup_device_ip", "backup_device_port"},
)
_POD = ({"super_pod_id", "server_list"}, set())
_POD_SERVER = ({"server_id"}, set())

_LISTS = {"server_list", "device", "super_pod_list"}
_INTEGERS = {"server_count", "device_id", "rank_id", "super_device_id", "device_logical_id"}
_PORTS = {"device_port", "host_port", "backup_device_port"}
_ADDRESSES = {"device_ip", "backup_device_ip", "host_ip", "container_ip", "server_ip"}
_ID_LENGTH = 63  # the guide: fewer than 64 characters


@dataclass(frozen=True)
class _Device:
    """What a device says about itself; None where it says nothing or nothing usable."""

    server: int  # place in server_list: server ids may be missing or doubled
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
        document: The JSON document.
        mesh: The grid it is for: then the number of devices must be its size, and a tensor parallel group
            must lie in one server (version 1.2: one super pod).
        chip: One of `CHIPS`; by default "910A", the strictest, for version 1.0 and "910C" for 1.2.
        partial: The table is of some servers of a cluster: its ranks need not start at 0 or be whole.

    Returns:
        The problems, format first; empty for a good table.
    """
    if not isinstance(document, Mapping):
        return [Problem("the table", "is not a JSON object", "start it with { and give it server_list")]
    pods = document.get("version") == "1.2"
    chip = chip or ("910C" if pods else "910A")
    if chip not in CHIPS:
        raise ValueError(f"chip: {chip!r} is not one of {', '.join(CHIPS)}")
    problems = list(_format(document, pods))
    servers = [s for s in _list(document, "server_list") if isinstance(s, Mapping)]
    devices = list(_devices(servers))
    problems += _table(document, servers)
    problems += _server_devices(servers, devices, CHIPS[chip], chip)
    problems += _ranks(devices, partial)
    problems += _addresses(devices, len(servers))
    problems += _super_pods(document, servers, devices) if pods else []
    problems += _grid(document, servers, devices, mesh) if mesh else []
    return problems


def _format(document: Mapping, pods: bool) -> Iterator[Problem]:
    """Keys and types of every object of the table."""
    required, optional = _TABLE
    yield from _object(document, "the table", (required | ({"super_pod_list"} if pods else set()), optional))
    required, optional = _DEVICE
    device_keys = (required | ({"super_device_id"} if pods else set()), optional)
    for number, server in enumerate(_list(document, "server_list")):
        where = _server_name(server, number)
        yield from _object(server, where, _SERVER)
        for place, device in enumerate(_list(server, "device")):
            yield from _object(device, f"{where}, {_device_name(device, place)}", device_keys)
    for number, pod in enumerate(_list(document, "super_pod_list") if pods else ()):
        where = f"super pod number {number + 1}"
        yield from _object(pod, where, _POD)
        for server in _list(pod, "server_list"):
            yield from _object(server, where, _POD_SERVER)


def _object(value: Any, where: str, keys: tuple[set[str], set[str]]) -> Iterator[Problem]:
    required, optional = keys
    if not isinstance(value, Mapping):
        yield Problem(where, f"{value!r} is not a JSON object", "write { ... } with its keys")
        return
    for key in sorted(required - value.keys()):
        yield Problem(where, f"{key} is missing", f"add {key}")
    for key in value:
        if key not in required | optional:
            yield _unknown(key, where, required | optional)
        elif problem := _wrong_value(key, value[key]):
            yield Problem(where, *problem)


def _unknown(key: str, where: str, known: set[str]) -> Problem:
    if key in ("super_pod_list", "super_device_id"):
        return Problem(where, f'{key} belongs to version "1.2"', 'set version to "1.2", or remove it')
    nearest = difflib.get_close_matches(key, sorted(known), n=1)
    remedy = f"did you mean {nearest[0]}?" if nearest else f"known keys: {', '.join(sorted(known))}"
    return Problem(where, f"unknown key {key!r}", remedy)


def _wrong_value(key: str, value: Any) -> tuple[str, str] | None:
    """Rule and remedy for a value that is of the wrong type or form."""
    if key in _LISTS:
        if isinstance(value, list) and value:
            return None
        return f"{key} must be a list of at least one entry", "write [ ... ]"
    if not isinstance(value, str):
        kind = "number" if isinstance(value, int | float) and not isinstance(value, bool) else "value"
        return f"{key} is the {kind} {value!r}, but every value must be a string", f'write "{value}"'
    if not value:
        return f"{key} is empty", "give it a value or remove the key"
    if key in _INTEGERS and _integer(value) is None:
        return f"{key} {value!r} is not a whole number from 0", "write digits only, without leading zeros"
    if key in _PORTS and not 1 <= (_integer(value) or 0) <= 65535:
        return f"{key} {value!r} is not a port", "use 1 to 65535"
    if key in _ADDRESSES and not _usable(value):
        return f"{key} {value!r} is not an IP address of a device", "write one like 10.0.0.1"
    if key == "server_id" and len(value) > _ID_LENGTH:
        return f"server_id has {len(value)} characters", f"use at most {_ID_LENGTH}"
    return None


def _table(document: Mapping, servers: list[Mapping]) -> Iterator[Problem]:
    status, version, count = (document.get(key) for key in ("status", "version", "server_count"))
    if isinstance(status, str) and status != "completed":
        yield Problem("the table", f"status is {status!r}, HCCL waits until it is 'completed'",
                      'complete the table, then write "completed"')  # fmt: skip
    if isinstance(version, str) and version not in VERSIONS:
        yield Problem("the table", f"version {version!r} is unknown",
                      'write "1.0", or "1.2" for super pods of 910C')  # fmt: skip
    if isinstance(count, str) and _integer(count) not in (None, len(servers)):
        yield Problem("the table", f"server_count is {count}, server_list has {len(servers)}",
                      f'write "{len(servers)}", or add the missing servers')  # fmt: skip
    ids = [_name(server, "server_id") for server in servers]
    for name in _doubles(ids):
        places = [str(i + 1) for i, value in enumerate(ids) if value == name]
        yield Problem(f"server {name}", f"is listed {len(places)} times (entries {', '.join(places)})",
                      "give every server one entry with a server_id of its own")  # fmt: skip


def _server_devices(
    servers: list[Mapping], devices: list[_Device], chip: Chip, name: str
) -> Iterator[Problem]:
    for number, server in enumerate(servers):
        where = _server_name(server, number)
        ids = [d.device_id for d in devices if d.server == number and d.device_id is not None]
        for device in _doubles(ids):
            yield Problem(f"{where}, device {device}", f"is listed {ids.count(device)} times",
                          "give every device one entry")  # fmt: skip
        for device in sorted({i for i in ids if i >= chip.devices}):
            yield Problem(f"{where}, device {device}", f"a server of {name} has devices 0 to "
                          f"{chip.devices - 1}", "correct the id, or name the chip (--chip)")  # fmt: skip
        groups = {i // chip.group for i in ids if i < chip.devices}
        if len(groups) > 1 and len(set(ids)) < chip.devices:
            yield Problem(where, f"devices {ranges(ids)} straddle the groups of {chip.group} that a {name} "
                          "server links directly", "take devices of one group "
                          f"(0-{chip.group - 1} or {chip.group}-{chip.devices - 1}), or all "
                          f"{chip.devices}; other chips: --chip")  # fmt: skip


def _ranks(devices: list[_Device], partial: bool) -> Iterator[Problem]:
    owners = _by(devices, "rank")
    for rank, holders in sorted(owners.items()):
        if len(holders) > 1:
            yield Problem(holders[1].where, f"rank_id {rank} is already that of {holders[0].where}",
                          "give every device a rank_id of its own")  # fmt: skip
    missing = set(range(len(devices))) - owners.keys()
    told = any(device.rank is None for device in devices)  # a rank that cannot be read is a problem by itself
    if missing and not partial and not told:
        beyond = [rank for rank in owners if rank >= len(devices)]
        found = f", but there is {ranges(beyond)}" if beyond else ""
        yield Problem("the table", f"rank {ranges(missing)} missing{found}: the {len(devices)} devices must "
                      f"have the ranks 0 to {len(devices) - 1}", "add the devices of these ranks, or correct "
                      "rank_id")  # fmt: skip


def _addresses(devices: list[_Device], servers: int) -> Iterator[Problem]:
    for ip, holders in _by(devices, "ip").items():
        for holder in holders[1:]:
            yield Problem(holder.where, f"device_ip {ip} is already that of {holders[0].where}",
                          "ask each device for its own: hccn_tool -i N -ip -g")  # fmt: skip
    if servers > 1:
        for device in devices:
            if device.ip is None:
                yield Problem(device.where, "device_ip is missing, and servers reach each other by it",
                              "ask the device: hccn_tool -i N -ip -g")  # fmt: skip


def _super_pods(document: Mapping, servers: list[Mapping], devices: list[_Device]) -> Iterator[Problem]:
    pods = [pod for pod in _list(document, "super_pod_list") if isinstance(pod, Mapping)]
    for name in _doubles([_name(pod, "super_pod_id") for pod in pods]):
        yield Problem(f"super pod {name}", "is listed twice", "give every super pod one entry")
    known = {_name(server, "server_id") for server in servers}
    members = _members(pods)
    for server, names in members.items():
        if server is not None and server not in known:
            yield Problem(f"super pod {names[0]}", f"server {server} is not in server_list",
                          "correct its server_id, or add the server")  # fmt: skip
        if len(names) > 1:
            yield Problem(f"server {server}", f"is in super_pod_list {len(names)} times (super pods "
                          f"{', '.join(map(str, names))})", "name it in one super pod")  # fmt: skip
    for server in sorted(str(name) for name in known - members.keys() if name is not None):
        yield Problem(f"server {server}", "is in no super pod", "add it to super_pod_list")
    yield from _super_devices(servers, devices, members)


def _members(pods: list[Mapping]) -> dict[str | None, list[str | None]]:
    """Super pods that name each server."""
    members = defaultdict(list)
    for pod in pods:
        for server in _list(pod, "server_list"):
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
                              f"in super pod {pod}", "ask the device: npu-smi info -t spod-info")  # fmt: skip


def _grid(document: Mapping, servers: list[Mapping], devices: list[_Device], mesh: Mesh) -> Iterator[Problem]:
    if len(devices) != mesh.size:
        yield Problem("the table", f"has {len(devices)} devices, {mesh} has {mesh.size}",
                      "change a degree, or the list of servers")  # fmt: skip
        return
    pods = _members(_list(document, "super_pod_list"))
    domain = "super pod" if document.get("version") == "1.2" else "server"
    home = {}
    for device in devices:
        server = _name(servers[device.server], "server_id")
        home[device.rank] = pods.get(server, [None])[0] if domain == "super pod" else server
    for group in mesh.groups("tp"):
        places = list(dict.fromkeys(str(home[rank]) for rank in group if rank in home))
        if len(places) > 1:
            yield Problem(f"{domain} {places[1]}", f"tensor parallel group of ranks {ranges(group)} crosses "
                          f"from {domain} {places[0]}", "permute the table for the plan (rank_table.py "
                          "permute), or lower tp to the devices of a server")  # fmt: skip


def _devices(servers: list[Mapping]) -> Iterator[_Device]:
    for number, server in enumerate(servers):
        for place, device in enumerate(_list(server, "device")):
            if isinstance(device, Mapping):
                yield _Device(
                    server=number,
                    where=f"{_server_name(server, number)}, {_device_name(device, place)}",
                    device_id=_integer(device.get("device_id")),
                    rank=_integer(device.get("rank_id")),
                    ip=str(device["device_ip"]) if "device_ip" in device else None,
                    super_id=_integer(device.get("super_device_id")),
                )


def _by(devices: Sequence[_Device], field: str) -> dict[Any, list[_Device]]:
    found = defaultdict(list)
    for device in devices:
        if getattr(device, field) is not None:
            found[getattr(device, field)].append(device)
    return found


def _doubles(values: Sequence[Any]) -> list[Any]:
    return [v for v in dict.fromkeys(map(_hashable, values)) if v is not None and values.count(v) > 1]


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int) else None


def _name(value: Any, key: str) -> str | None:
    """The id of a server or super pod; None where it has no usable one."""
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, str) else None


def _list(value: Any, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, list) else []


def _server_name(server: Any, number: int) -> str:
    name = server.get("server_id") if isinstance(server, Mapping) else None
    return f"server {name}" if name else f"server number {number + 1}"


def _device_name(device: Any, place: int) -> str:
    name = device.get("device_id") if isinstance(device, Mapping) else None
    return f"device {name}" if name is not None else f"device number {place + 1}"


def _integer(text: Any) -> int | None:
    """The value of a number from 0 in its one spelling."""
    return int(text) if isinstance(text, str) and re.fullmatch(r"0|[1-9][0-9]{0,8}", text) else None


def _usable(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_loopback or address.is_multicast)


def ranges(numbers: Iterable[int]) -> str:
    """Numbers in short: "0-3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
