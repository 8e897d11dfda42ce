"""Builds rank tables from a list of hosts, hccn.conf files, or rules for addresses.

Ranks follow the order of the list: first server first, and within it first device first.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pangu_alpha.cluster.host_names import MOST_SERVERS, server_ids
from pangu_alpha.cluster.tables.rank_table import Device, RankTable, Server
from pangu_alpha.config.schema import parse_yaml
from pangu_alpha.files.paths import expand_path
from pangu_alpha.files.reading import read_text
from pangu_alpha.files.shown import quoted, shown

_HOST_KEYS = ("server", "devices", "device_ips", "hccn_conf", "super_pod", "super_device_ids")
_HOST_NAMES = ("server", "super_pod")  # must be texts: YAML reads an unquoted 1.10 as the number 1.1
_PLACEHOLDER = re.compile(r"\{(server|device)((?:(?:\+|//|%)[0-9]{1,9})*)\}")
_MOST_DEVICES = 1024  # of a server; a larger number is a typing error that would fill the memory


@dataclass(frozen=True)
class Host:
    """A server as the cluster's operator describes it.

    Args:
        server: Its id, by convention its IP address.
        devices: Ids of the NPUs that take part.
        device_ips: Addresses of the NPUs in the same order; empty for a job on one server.
        super_pod: Id of its super pod (910C).
        super_device_ids: Numbers of the NPUs in the super pod, in the same order.
    """

    server: str
    devices: tuple[int, ...]
    device_ips: tuple[str, ...] = ()
    super_pod: str | None = None
    super_device_ids: tuple[int, ...] = ()


def build(
    hosts: Sequence[Host], version: str = "1.0", first_rank: int = 0, ip_rule: str | None = None
) -> RankTable:
    """Builds a table of hosts, whose ranks follow the order of the hosts.

    Args:
        version: "1.0" or "1.2".
        first_rank: Rank of the first device; more than 0 for a part that is merged later.
        ip_rule: Rule for the device addresses of hosts that give none; see `by_rule`.

    Raises:
        ValueError: A host's number of addresses or super device ids differs from its number of devices.
    """
    servers, rank = [], first_rank
    for number, host in enumerate(hosts):
        ips: Sequence[str | None] = host.device_ips
        if not ips:
            ips = [by_rule(ip_rule, number, i) if ip_rule else None for i in host.devices]
        super_ids: Sequence[int | None] = host.super_device_ids or [None] * len(host.devices)
        for what, values in (("device addresses", ips), ("super device ids", super_ids)):
            if len(values) != len(host.devices):
                counts = f"{len(values)} {what} for {len(host.devices)} devices"
                raise ValueError(f"server {host.server}: {counts}; give one each")
        devices = tuple(
            Device(device, rank + place, ips[place], super_ids[place])
            for place, device in enumerate(host.devices)
        )
        rank += len(devices)
        servers.append(Server(host.server, devices, host.super_pod))
    return RankTable(tuple(servers), version)


def by_rule(rule: str, server: int, device: int = 0) -> str:
    """Returns the address that a rule gives for a server and a device, both numbered from 0.

    Args:
        rule: An address with {server} and {device} in it, each optionally followed by +, // and % with whole
            numbers, applied from left to right: "10.{device%4}.{server}.{device+1}".

    Raises:
        ValueError: A placeholder has another form.
    """

    def value(found: re.Match[str]) -> str:
        number = {"server": server, "device": device}[found[1]]
        for sign, operand in re.findall(r"(\+|//|%)(\d+)", found[2]):
            if sign != "+" and not int(operand):
                raise ValueError(f"address rule {rule!r}: division by 0 in {found[0]}")
            number = {"+": int.__add__, "//": int.__floordiv__, "%": int.__mod__}[sign](number, int(operand))
        return str(number)

    address = _PLACEHOLDER.sub(value, rule)
    if "{" in address or "}" in address:
        raise ValueError(
            f"address rule {rule!r}: placeholders are {{server}} and {{device}}, "
            "with +N, //N, %N after the name"
        )
    return address


def hosts_by_rule(count: int, server_rule: str, devices: Sequence[int]) -> list[Host]:
    """Returns servers 0 to count - 1 with the same devices and with addresses that follow a rule.

    Raises:
        ValueError: There are more servers than any cluster has, or the rule is invalid.
    """
    if count > MOST_SERVERS:
        raise ValueError(f"{count:,} servers are more than the {MOST_SERVERS:,} that a table may have")
    return [Host(by_rule(server_rule, number), tuple(devices)) for number in range(count)]


def read_hosts(path: str | Path) -> list[Host]:
    """Reads a list of hosts.

    Args:
        path: A text file with one server a line: its id (see host_names for other spellings), then its
            devices (a number of them, slots=8, or ids such as 0-3 or 0,2; by default 8), then their addresses
            separated by commas, or the path of its hccn.conf; # starts a comment. Or a YAML file with
            `hosts:`, a list of mappings with the keys server, devices, device_ips, hccn_conf, super_pod,
            super_device_ids. Paths are relative to the file.

    Raises:
        ValueError: An entry is invalid; the message names the file, the entry and the rule.
    """
    path = Path(path)
    read_entries = _yaml_entries if path.suffix in (".yaml", ".yml") else _text_entries
    hosts: list[Host] = []
    for where, entry in read_entries(path):
        hosts += _entry_hosts(where, entry, path.parent)
        if len(hosts) > MOST_SERVERS:
            raise ValueError(f"{where}: more than {MOST_SERVERS:,} servers; no table may have so many")
    if not hosts:
        raise ValueError(f"{shown(path)}: names no server; write one a line")
    return hosts


def _text_entries(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = [word for word in line.split("#", 1)[0].split() if not re.match(r"max[-_]slots=", word)]
        if len(words) > 3:
            raise ValueError(
                f"{shown(path)}, line {number}: {len(words)} columns; use server, devices, addresses "
                "(commas between addresses, no blanks)"
            )
        if words:
            entry: dict[str, Any] = dict(zip(("server", "devices"), words, strict=False))
            if len(words) > 1:
                entry["devices"] = words[1].removeprefix("slots=")
            if len(words) == 3:
                is_address = "," in words[2] or re.fullmatch(r"[0-9.]+|[0-9a-fA-F]*:[0-9a-fA-F:]+", words[2])
                entry |= {"device_ips": words[2].split(",")} if is_address else {"hccn_conf": words[2]}
            yield f"{shown(path)}, line {number}", entry


def _yaml_entries(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    document = parse_yaml(read_text(path), str(path))
    if not isinstance(document, Mapping) or list(document) != ["hosts"] or not _is_list(document["hosts"]):
        raise ValueError(f"{shown(path)}: must be `hosts:` and a list of mappings, nothing else")
    for number, entry in enumerate(document["hosts"], 1):
        where = f"{shown(path)}, host {number}"
        if not isinstance(entry, Mapping) or "server" not in entry:
            raise ValueError(f"{where}: must be a mapping with the key server, a name or an address")
        for key in entry:
            if key not in _HOST_KEYS:
                nearest = difflib.get_close_matches(str(key)[:64], _HOST_KEYS, n=1)
                hint = f"did you mean {nearest[0]}?" if nearest else f"keys: {', '.join(_HOST_KEYS)}"
                raise ValueError(f"{where}: unknown key {quoted(key)}; {hint}")
        for key in _HOST_NAMES:
            if key in entry and not isinstance(entry[key], str) and type(entry[key]) is not int:
                raise ValueError(
                    f"{where}: {key} is read as {quoted(entry[key])}, which is no name; put it in quotes as "
                    f'it is meant, such as {key}: "1.10"'
                )
        for key in ("device_ips", "super_device_ids"):
            if not _is_list(entry.get(key, [])):
                raise ValueError(f"{where}: {key} must be a list")
        if not isinstance(entry.get("hccn_conf", ""), str):
            raise ValueError(f"{where}: hccn_conf must be the path of a file")
        if not all(type(number) is int and number >= 0 for number in entry.get("super_device_ids", [])):
            raise ValueError(f"{where}: super_device_ids must be whole numbers from 0")
        yield where, dict(entry)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _entry_hosts(where: str, entry: Mapping[str, Any], folder: Path) -> Iterator[Host]:
    try:
        names = server_ids(str(entry["server"]))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    own = {"device_ips", "hccn_conf", "super_device_ids"} & entry.keys()
    if len(names) > 1 and own:
        raise ValueError(
            f"{where}: {quoted(entry['server'])} names {len(names)} servers, which cannot share "
            f"{' and '.join(sorted(own))}; give each an entry of its own"
        )
    yield from (_host(where, {**entry, "server": name}, folder) for name in names)


def _host(where: str, entry: Mapping[str, Any], folder: Path) -> Host:
    try:
        ips = tuple(map(str, entry.get("device_ips", ())))
        conf = read_hccn_conf(folder / expand_path(str(entry["hccn_conf"]))) if "hccn_conf" in entry else None
        if conf and ips:
            raise ValueError("device_ips and hccn_conf exclude each other")
        devices = device_ids(entry.get("devices", tuple(conf) if conf else 8))
        if conf and set(devices) - set(conf):
            absent = min(set(devices) - set(conf))
            raise ValueError(f"{entry['hccn_conf']} has no address_{absent}; correct devices or the file")
        return Host(
            server=entry["server"],
            devices=devices,
            device_ips=tuple(conf[i] for i in devices) if conf else ips,
            super_pod=str(entry["super_pod"]) if "super_pod" in entry else None,
            super_device_ids=tuple(entry.get("super_device_ids", ())),
        )
    except ValueError as error:
        raise ValueError(f"{where}, server {entry['server']}: {error}") from error


def device_ids(value: Any) -> tuple[int, ...]:
    """Returns device ids from a number (8 or "8": the first 8), a list of ids, or a text ("0-3", "0,2").

    Raises:
        ValueError: The value has none of these forms.
    """
    if isinstance(value, list | tuple) and value and all(type(i) is int and i >= 0 for i in value):
        return tuple(value)
    text = str(value).replace(" ", "") if isinstance(value, str | int) else ""
    if not re.fullmatch(r"[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*,?", text):
        raise ValueError(f"devices: {quoted(value)} must be a number of devices, or ids such as 0-3 or 0,2")
    if text.isdigit() and not text.startswith("0"):
        text = f"0-{int(text) - 1}"
    ids: list[int] = []
    for part in text.rstrip(",").split(","):
        first, _, last = part.partition("-")
        if not 0 <= int(last or first) - int(first) < _MOST_DEVICES or len(ids) > _MOST_DEVICES:
            raise ValueError(f"devices: {quoted(value)}: write at most {_MOST_DEVICES}, from low to high")
        ids += range(int(first), int(last or first) + 1)
    return tuple(ids)


def read_hccn_conf(path: str | Path) -> dict[int, str]:
    """Reads the address_N= lines of an hccn.conf into device ids and addresses; other settings are ignored.

    Raises:
        ValueError: There is no such line, one is given twice, or one is misspelt.
    """
    addresses: dict[int, str] = {}
    text, path = read_text(path), shown(path)
    for number, line in enumerate(text.splitlines(), 1):
        key, equals, value = (part.strip() for part in line.split("#", 1)[0].partition("="))
        found = re.fullmatch(r"address_([0-9]{1,9})", key)
        stem = re.sub(r"_?\d+$", "", key[:64])
        if not found and equals and difflib.get_close_matches(stem, ["address"], cutoff=0.85):
            raise ValueError(f"{path}, line {number}: unknown key {quoted(key)}; write address_N=IP")
        if found:
            device = int(found[1])
            if device in addresses:
                raise ValueError(f"{path}, line {number}: address_{device} is given twice; remove one")
            addresses[device] = value
    if not addresses:
        raise ValueError(f"{path}: no address_N= line; is it an hccn.conf?")
    return dict(sorted(addresses.items()))
