"""What one process of a run knows of itself: program, configuration, machine and device, in 80 bytes.

The bytes of all ranks are compared by world_check; here nothing is judged.
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
UNREADABLE = -2  # in `server`: there is a rank table, but this process cannot use it

_OWN_NUMBERS = "ASCEND_VISIBLE_DEVICES"  # Ascend Docker Runtime's; such a container numbers its NPUs from 0

# One rank; even in size, since World.gather sends pieces of 16 bits.
RECORD = np.dtype(
    [
        ("host", "S32"),  # name of the host, cut
        ("machine", "u8"),  # digest that no other machine has, whatever its containers are called
        ("place", "u8"),  # of machine, host name and namespaces: device numbers are unique in it
        ("rank", "i4"),  # as the environment says, UNKNOWN if nothing
        ("device", "i2"),  # number of the NPU in the machine, UNKNOWN on CPU
        ("table_device", "i2"),  # what the rank table says of it
        ("server", "i2"),  # place of this rank's server in the rank table
        ("host_server", "i2"),  # the server of the table whose address or name this host has
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
    "data.train.*.records",  # of every source
    "data.validation",
    "data.vocabulary",
)


@dataclass(frozen=True)
class Identity:
    """One process of a run.

    Args:
        record: What is sent, one element of the type RECORD.
        config: The run as this process was told.
        table: Its rank table, if it has one that can be used.
    """

    record: np.ndarray
    config: TrainConfig
    table: RankTable | None = field(default=None, repr=False)


def identify(
    rank: int, config: TrainConfig, device: int | None, environment: Mapping[str, str] = os.environ
) -> Identity:
    """The identity of this process.

    Args:
        rank: As MindSpore numbers it.
        config: The run.
        device: The NPU in use as MindSpore numbers it; None on CPU.
        environment: Of the process.
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
            record["table_device"] = UNKNOWN  # the table has the host's numbers
    return Identity(record, config, table)


def _place_in_table(record: np.ndarray, path: Path, rank: int) -> RankTable | None:
    """Reads the rank table and notes where it has this rank, and which of its servers this host is."""
    try:
        record["table"] = zlib.crc32(path.read_bytes()) or 1
        table = rank_table.read(path)
        server, device = table.find(rank)
    except (OSError, ValueError):  # all ranks are told, and stop; this one must not stop alone
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
    """What this process runs on."""
    python = ".".join(platform.python_version_tuple()[:2])
    libraries = ", ".join(f"{name} {version(name)}" for name in ("mindspore", "numpy"))
    return f"pangu_alpha {pangu_alpha.__version__}, {libraries}, Python {python}"


@cache
def source_digest() -> int:
    """crc32 of all modules of this package, names and contents."""
    root, digest = Path(pangu_alpha.__file__).parent, 0
    for path in sorted(root.rglob("*.py")):
        digest = zlib.crc32(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes(), digest)
    return digest


def short_digest(value: Any) -> int:
    """crc32 of plain values."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def without_paths(value: Any, place: str = "") -> Any:
    """A configuration as nested mappings, without the keys whose values are paths.

    Args:
        value: The whole, or what stands at
        place: this dotted key of it, in which "*" is the name of any source.
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
    """Digest of every key that must be equal on all ranks, "section.key"; the same keys in all runs."""
    sections = without_paths(to_mapping(config))
    return {
        f"{section}.{key}": short_digest(value)
        for section, values in sections.items()
        for key, value in values.items()
    }


def _physical(device: int | None, environment: Mapping[str, str]) -> int:
    """Number of an NPU in its machine; MindSpore counts those that ASCEND_RT_VISIBLE_DEVICES leaves."""
    if device is None:
        return UNKNOWN
    visible = environment.get("ASCEND_RT_VISIBLE_DEVICES", "").split(",")
    if device < len(visible) and visible[device].strip().isdecimal():
        return int(visible[device].strip()[:4])
    return device


def _boot() -> str:
    """Differs between machines, is the same in all containers of one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return socket.gethostname()


def _namespaces() -> list[str]:
    """Differ between containers: no two share the mounts, though they may share processes and host name."""
    found = []
    for kind in ("pid", "mnt"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/ns/{kind}"))
    return found


def _digest(*words: str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(words).encode()).digest()[:8], "little")


def _own_names() -> set[str]:
    """Names and addresses by which a rank table may mean this host; not those that every host has."""
    host = socket.gethostname()
    names = {host, host.partition(".")[0]}
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            text = each.address.partition("%")[0]
            try:
                address = ipaddress.ip_address(text)
            except ValueError:  # of the network card itself
                continue
            if not (address.is_loopback or address.is_link_local):
                names.add(text)
    return names
