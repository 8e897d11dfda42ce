"""Recognises rank tables of other forms than HCCL's 1.0 and 1.2, and converts them where that is possible.

ModelArts and CANN's template 2 list instances (pods) in groups, and imply the ranks by the order of the
devices. Version 2.0, of chips after the 910C, lists ranks without their servers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pangu_alpha.files.shown import quoted, shown


def other_form(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """Returns which other form a table has and what to do about it, or None for HCCL's own forms."""
    if "server_list" in document:
        return None
    if "group_list" in document:
        return (
            "has the form of ModelArts and of CANN's template 2 (group_list), which MindSpore does not read",
            "convert it: rank_table.py build --from FILE --output TABLE",
        )
    if "rank_list" in document or document.get("version") == "2.0":
        return (
            'has the form of version "2.0" (rank_list), of chips after the 910C, without the servers of the '
            "ranks; this project reads 1.0 and 1.2",
            "start by msrun, which needs no table, or build one from a host list",
        )
    if document.get("status") == "initializing":
        return (
            "status is 'initializing' and no server is listed: the scheduler that writes it is not done yet",
            "wait until status is 'completed'",
        )
    return None


def converted(document: Any, where: object) -> dict[str, Any]:
    """Converts a table with group_list to version 1.0, unchecked; ranks follow the order of the devices.

    Args:
        document: The parsed JSON.
        where: File that the table comes from, for errors.

    Raises:
        ValueError: The form cannot be converted, or the table contradicts itself or is incomplete.
    """
    where = shown(where)
    if isinstance(document, Mapping) and "server_list" in document:
        raise ValueError(f"{where}: is of HCCL's own form already; use it as it is (rank_table.py check)")
    if not isinstance(document, Mapping) or "group_list" not in document:
        form = other_form(document) if isinstance(document, Mapping) else None
        what, remedy = form or ("has neither group_list nor server_list", "is it a rank table?")
        raise ValueError(f"{where}: {what}; {remedy}")
    servers: dict[str, list[dict[str, str]]] = {}
    for rank, (server, device) in enumerate(_members(_only_group(document, where), where)):
        known = {key: str(device[key]) for key in ("device_id", "device_ip") if key in device}
        servers.setdefault(server, []).append(known | {"rank_id": str(rank)})
    return {
        "version": "1.0",
        "server_count": str(len(servers)),
        "server_list": [{"server_id": server, "device": devices} for server, devices in servers.items()],
        "status": document.get("status", "completed"),
    }


def _only_group(document: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    groups = _entries(document, "group_list", where)
    if len(groups) != 1:
        names = ", ".join(quoted(group.get("group_name"), 40) for group in groups[:10])
        raise ValueError(
            f"{where}: group_list has {len(groups)} groups ({names}), and nothing says whose ranks come "
            "first; leave one group in a copy of the file"
        )
    return groups[0]


def _members(group: Mapping[str, Any], where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the server id and the device entry of every rank."""
    instances = _entries(group, "instance_list", where)
    _same_number(group, "instance_count", len(instances), where)
    total = 0
    for number, instance in enumerate(instances, 1):
        place = f"{where}, instance {number}"
        server = instance.get("server_id")
        if not isinstance(server, str) or not server:
            raise ValueError(f"{place}: server_id is missing; without it nobody knows which server it is")
        devices = _entries(instance, "devices", place)
        total += len(devices)
        yield from ((server, device) for device in devices)
    _same_number(group, "device_count", total, where)


def _entries(value: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    entries = value.get(key)
    if not isinstance(entries, list) or not entries or not all(isinstance(each, Mapping) for each in entries):
        raise ValueError(f"{where}: {key} must be a list of at least one object; is the file whole?")
    return entries


def _same_number(group: Mapping[str, Any], key: str, number: int, where: str) -> None:
    if key in group and str(group[key]) != str(number):
        raise ValueError(
            f"{where}: {key} is {quoted(group[key])}, but the file lists {number}; is the file whole?"
        )
