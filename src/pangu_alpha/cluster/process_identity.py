"""Describes one process of a run in 80 bytes: program, configuration, machine and device.

Judges nothing; world_check compares the bytes of all ranks.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import platform
import socket
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import pangu_alpha
from pangu_alpha.cluster.tables import rank_table
from pangu_alpha.cluster.tables.rank_table import RankTable
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.config.schema import to_mapping

UNKNOWN = -1
UNREADABLE = -2  # value of `server` if this process cannot use the rank table

_OWN_NUMBERS = "ASCEND_VISIBLE_DEVICES"  # Ascend Docker Runtime's; its containers number NPUs from 0

# One rank's record. Its size must be even, since World.gather sends units of 16 bits.
RECORD = np.dtype(
    [
        ("host", "S32"),  # name of the host, truncated
        ("machine", "u8"),  # digest that differs between machines, whatever their containers are called
        ("place", "u8"),  # digest of machine, host name and namespaces: device numbers are unique within it
        ("rank", "i4"),  # from the environment, UNKNOWN if not set there
        ("device", "i2"),  # number of the NPU in the machine, UNKNOWN on CPU
        ("table_device", "i2"),  # number of the NPU in the rank table
        ("server", "i2"),  # index of this rank's server in the rank table
        ("host_server", "i2"),  # index of the table's server whose address or name this host has
        ("table", "u4"),  # digest of the rank table's file, 0 without one
        ("source", "u4"),  # digest of this package's source
        ("versions", "u4"),  # digest of `versions()`
        ("plan", "u4"),  # digest of the section parallel
        ("config", "u4"),  # digest of the rest of the configuration
    ]
)
assert RECORD.itemsize == 80

# Keys whose values are paths. They may differ between nodes: the output is compared by
# checkpoint.native.distributed.check_shared, the records and the place in them by the loop.
PATHS = (
    "run.output",
    "run.resume",
    "run.initial",
    "data.train.*.records",  # of every data source
    "data.validation",
    "data.vocabulary",
)


@dataclass(frozen=True)
class Identity:
    """The description of one process of a run.

    Args:
        record: What is sent to the other ranks, one element of the type RECORD.
        config: The configuration as this process has read it.
        table: The rank table; None if there is none or this process cannot use it.
    """

    record: np.ndarray
    config: TrainConfig
    table: RankTable | None = field(default=None, repr=False)


def identify(
    rank: int, config: TrainConfig, device: int | None, environment: Mapping[str, str] = os.environ
) -> Identity:
    """Describes this process.

    Args:
        rank: Global rank in MindSpore.
        device: MindSpore's number of the NPU in use; None on CPU.
        environment: Environment variables of the process.
    """
    record = np.zeros((), RECORD)
    host = socket.gethostname()
    record["host"] = host.encode("ascii", "replace")
    record["machine"], record["place"] = _digest(_boot()), _digest(_boot(), host, *_namespaces())
    record["device"] = _physical(device, environment)
    record["table_device"] = record["server"] = record["host_server"] = record["rank"] = UNKNOWN
    sections = to_mapping(config)
    record["plan"] = short_digest(sections.pop("parallel"))
    record["config"] = short_digest(without_paths(sections))
    record["source"], record["versions"] = source_digest(), zlib.crc32(versions().encode())
    table = None
    if path := environment.get("RANK_TABLE_FILE"):
        if "MS_ROLE" not in environment and environment.get("RANK_ID", "").isdecimal():
            record["rank"] = int(environment["RANK_ID"][:9])
        table = _place_in_table(record, Path(path), rank)
        if _OWN_NUMBERS in environment:
            record["table_device"] = UNKNOWN  # the table uses the host's numbers, not the container's
    return Identity(record, config, table)


def _place_in_table(record: np.ndarray, path: Path, rank: int) -> RankTable | None:
    """Reads the rank table, and records where it lists this rank and which of its servers this host is."""
    try:
        record["table"] = zlib.crc32(path.read_bytes()) or 1
        table = rank_table.read(path)
        server, device = table.find(rank)
    except (OSError, ValueError):  # reported to all ranks, which stop together
        record["server"] = UNREADABLE
        return None
    record["server"], record["table_device"] = table.servers.index(server), device.device_id
    own = _own_names()
    here = [place for place, each in enumerate(table.servers) if each.server_id in own]
    if len(here) == 1:
        record["host_server"] = here[0]
    return table


@cache
def versions() -> str:
    """Returns the versions of the software and the hardware that this process runs on, as one text."""
    python = ".".join(platform.python_version_tuple()[:2])
    libraries = ", ".join(f"{name} {version(name)}" for name in ("mindspore", "numpy"))
    return f"pangu_alpha {pangu_alpha.__version__}, {libraries}, Python {python}"


@cache
def source_digest() -> int:
    """Returns the crc32 of the names and contents of all modules of this package."""
    root, digest = Path(pangu_alpha.__file__).parent, 0
    for path in sorted(root.rglob("*.py")):
        digest = zlib.crc32(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes(), digest)
    return digest


def short_digest(value: Any) -> int:
    """Returns the crc32 of plain values."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def without_paths(value: Any, place: str = "") -> Any:
    """Returns a configuration as nested mappings, without the keys whose values are paths.

    Args:
        value: The configuration, or the part of it at `place`.
        place: Dotted key of that part, in which "*" stands for the name of any data source.
    """
    if not isinstance(value, Mapping):
        return value
    kept = {}
    for key, each in value.items():
        inner = "data.train.*" if place == "data.train" else f"{place}.{key}" if place else key
        if inner not in PATHS:
            kept[key] = without_paths(each, inner)
    return kept


def compared_keys(config: TrainConfig) -> dict[str, int]:
    """Returns a digest of every key that must be equal on all ranks; the keys are the same in all runs."""
    sections = without_paths(to_mapping(config))
    return {
        f"{section}.{key}": short_digest(value)
        for section, values in sections.items()
        for key, value in values.items()
    }


def _physical(device: int | None, environment: Mapping[str, str]) -> int:
    """Returns an NPU's number in its machine; MindSpore numbers only those in ASCEND_RT_VISIBLE_DEVICES."""
    if device is None:
        return UNKNOWN
    visible = environment.get("ASCEND_RT_VISIBLE_DEVICES", "").split(",")
    if device < len(visible) and visible[device].strip().isdecimal():
        return int(visible[device].strip()[:4])
    return device


def _boot() -> str:
    """Returns an identity that differs between machines and is the same in all containers of one machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return socket.gethostname()


def _namespaces() -> list[str]:
    """Returns identities of this process's namespaces.

    Containers never share the mount namespace, though they may share processes and host name.
    """
    found = []
    for kind in ("pid", "mnt"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/ns/{kind}"))
    return found


def _digest(*words: str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(words).encode()).digest()[:8], "little")


def _own_names() -> set[str]:
    """Returns names and addresses by which a rank table may mean this host, without those of every host."""
    host = socket.gethostname()
    names = {host, host.partition(".")[0]}
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            text = each.address.partition("%")[0]
            try:
                address = ipaddress.ip_address(text)
            except ValueError:  # the card's hardware address, not an IP address
                continue
            if not (address.is_loopback or address.is_link_local):
                names.add(text)
    return names
