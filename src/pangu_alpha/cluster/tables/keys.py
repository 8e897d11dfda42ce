"""Checks the keys and value types of a rank table's objects, each value by itself."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pangu_alpha.cluster.tables.problem import Problem, device_name, server_name
from pangu_alpha.files.shown import quoted

_Keys = tuple[set[str], set[str]]  # required, and optional ones
_TABLE: _Keys = ({"status", "version", "server_count", "server_list"}, set())
_SERVER = (
    {"server_id", "device"},
    {"host_ip", "container_ip", "server_ip", "server_name", "host_nic_ip", "hardware_type"},
)
_DEVICE = (
    {"device_id", "rank_id"},
    {"device_ip", "device_port", "host_port", "device_logical_id", "backup_device_ip", "backup_device_port"},
)
_POD: _Keys = ({"super_pod_id", "server_list"}, set())
_POD_SERVER: _Keys = ({"server_id"}, set())

_LISTS = {"server_list", "device", "super_pod_list"}
_INTEGERS = {"server_count", "device_id", "rank_id", "super_device_id", "device_logical_id"}
_PORTS = {"device_port", "host_port", "backup_device_port"}
_ADDRESSES = {"device_ip", "backup_device_ip", "host_ip", "container_ip", "server_ip"}
_UNKNOWN = 10  # unknown keys of an object that are listed
_ID_LENGTH = 63  # the guide: fewer than 64 characters


def wrong_format(document: Mapping, pods: bool) -> Iterator[Problem]:
    """Yields the problems with keys and types of every object of the table."""
    required, optional = _TABLE
    yield from _object(document, "the table", (required | ({"super_pod_list"} if pods else set()), optional))
    required, optional = _DEVICE
    device_keys = (required | ({"super_device_id"} if pods else set()), optional)
    for number, server in enumerate(list_of(document, "server_list")):
        where = server_name(server, number)
        yield from _object(server, where, _SERVER)
        for place, device in enumerate(list_of(server, "device")):
            yield from _object(device, f"{where}, {device_name(device, place)}", device_keys)
    for number, pod in enumerate(list_of(document, "super_pod_list") if pods else ()):
        where = f"super pod number {number + 1}"
        yield from _object(pod, where, _POD)
        for server in list_of(pod, "server_list"):
            yield from _object(server, where, _POD_SERVER)


def _object(value: Any, where: str, keys: _Keys) -> Iterator[Problem]:
    required, optional = keys
    if not isinstance(value, Mapping):
        yield Problem(where, f"{quoted(value)} is not a JSON object", "write { ... } with its keys")
        return
    for key in sorted(required - value.keys()):
        yield Problem(where, f"{key} is missing", f"add {key}")
    known = required | optional
    unknown = [key for key in value if key not in known]
    for key in unknown[:_UNKNOWN]:  # the search for similar known keys is slow
        yield _unknown(key, where, known)
    if len(unknown) > _UNKNOWN:
        yield Problem(where, f"{len(unknown) - _UNKNOWN} more unknown keys", "is this a rank table?")
    for key in value:
        if key in known and (problem := _wrong_value(key, value[key])):
            yield Problem(where, *problem)


def _unknown(key: str, where: str, known: set[str]) -> Problem:
    if key in ("super_pod_list", "super_device_id"):
        return Problem(where, f'{key} belongs to version "1.2"', 'set version to "1.2", or remove it')
    nearest = difflib.get_close_matches(key[:64], sorted(known), n=1)
    remedy = f"did you mean {nearest[0]}?" if nearest else f"known keys: {', '.join(sorted(known))}"
    return Problem(where, f"unknown key {quoted(key)}", remedy)


def _wrong_value(key: str, value: Any) -> tuple[str, str] | None:
    """Returns the rule that a value's type or form breaks and the remedy, or None."""
    if key in _LISTS:
        if isinstance(value, list) and value:
            return None
        return f"{key} must be a list of at least one entry", "write [ ... ]"
    if not isinstance(value, str):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        remedy = f'write "{quoted(value)}"' if number else "write a text in quotes"
        kind = "number" if number else "value"
        return f"{key} is the {kind} {quoted(value)}, but every value must be a string", remedy
    if not value:
        return f"{key} is empty", "give it a value or remove the key"
    if key in _INTEGERS and whole_number(value) is None:
        what = f"{key} {quoted(value)} is not a whole number from 0"
        return what, "write digits only, without leading zeros"
    if key in _PORTS and not 1 <= (whole_number(value) or 0) <= 65535:
        return f"{key} {quoted(value)} is not a port", "use 1 to 65535"
    if key in _ADDRESSES and not usable_address(value):
        remedy = "write one like 10.0.0.1" + (", or leave it out in a single server" * (key == "device_ip"))
        return f"{key} {quoted(value)} is not an IP address of a device", remedy
    if key == "server_id" and len(value) > _ID_LENGTH:
        return f"server_id has {len(value)} characters", f"use at most {_ID_LENGTH}"
    return None


def list_of(value: Any, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, list) else []


def whole_number(text: Any) -> int | None:
    """Returns the value of a whole number from 0 in its canonical spelling; None for any other text."""
    return int(text) if isinstance(text, str) and re.fullmatch(r"0|[1-9][0-9]{0,8}", text) else None


def usable_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_loopback or address.is_multicast)
