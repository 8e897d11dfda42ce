"""HCCL rank tables: which device of which server has which rank; read, written, checked, merged.

Versions "1.0" and "1.2" (super pods). A table that breaks a rule is never returned and never written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pangu_alpha.cluster.tables.check import check_document
from pangu_alpha.cluster.tables.problem import Problem, RankTableError, ranges
from pangu_alpha.files.reading import ReadError, parse_json, read_text
from pangu_alpha.files.shown import quoted, shown
from pangu_alpha.files.writing import write_text
from pangu_alpha.parallel.mesh import Mesh

_COMMENT = re.compile(r"\s*(//|/\*|#)")


@dataclass(frozen=True)
class Device:
    """An NPU of the job.

    Args:
        device_id: Number of the NPU in its server.
        rank_id: Its rank.
        device_ip: Address of its network card; None where the job stays in one server.
        super_device_id: Number in its super pod (version 1.2).
        other: Optional keys and values, kept as they are: device_port, backup_device_ip, ...
    """

    device_id: int
    rank_id: int
    device_ip: str | None = None
    super_device_id: int | None = None
    other: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Server:
    """A server and those of its NPUs that take part.

    Args:
        server_id: Its name in the table, by custom its IP address.
        devices: Its devices.
        super_pod: The super pod it is in (version 1.2).
        other: Optional keys and values, kept as they are: host_ip, container_ip, ...
    """

    server_id: str
    devices: tuple[Device, ...]
    super_pod: str | None = None
    other: tuple[tuple[str, str], ...] = ()

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of its devices, as listed."""
        return tuple(device.rank_id for device in self.devices)


@dataclass(frozen=True)
class RankTable:
    """A rank table. The order of its servers is where they stand: rack by rack (see `placement`).

    Args:
        servers: The servers.
        version: "1.0", or "1.2" with super pods.
    """

    servers: tuple[Server, ...]
    version: str = "1.0"

    @property
    def size(self) -> int:
        """Number of ranks."""
        return sum(len(server.devices) for server in self.servers)

    def find(self, rank: int) -> tuple[Server, Device]:
        """Server and device of a rank.

        Raises:
            ValueError: no device has this rank.
        """
        for server in self.servers:
            for device in server.devices:
                if device.rank_id == rank:
                    return server, device
        raise ValueError(f"rank {rank}: no device of the table's {self.size} has it")

    def with_ranks(self, ranks: Sequence[int]) -> RankTable:
        """The same devices with new ranks.

        Args:
            ranks: The new rank of every device, in the order of the table.
        """
        new = iter(ranks)
        servers = tuple(
            replace(server, devices=tuple(replace(device, rank_id=next(new)) for device in server.devices))
            for server in self.servers
        )
        return replace(self, servers=servers)

    def to_document(self) -> dict[str, Any]:
        """The table as HCCL reads it: a JSON object whose values are strings."""
        document = {
            "version": self.version,
            "server_count": str(len(self.servers)),
            "server_list": [_server_document(server) for server in self.servers],
            "status": "completed",
        }
        if self.version == "1.2":
            pods: dict[str, list[dict[str, str]]] = {}
            for server in self.servers:
                if server.super_pod is not None:
                    pods.setdefault(server.super_pod, []).append({"server_id": server.server_id})
            document["super_pod_list"] = [
                {"super_pod_id": pod, "server_list": servers} for pod, servers in pods.items()
            ]
        return document


def _server_document(server: Server) -> dict[str, Any]:
    devices = []
    for device in server.devices:
        values = {"device_id": device.device_id, "super_device_id": device.super_device_id,
                  "device_ip": device.device_ip, **dict(device.other), "rank_id": device.rank_id}  # fmt: skip
        devices.append({key: str(value) for key, value in values.items() if value is not None})
    return {"server_id": server.server_id, **dict(server.other), "device": devices}


def check(
    table: RankTable, mesh: Mesh | None = None, chip: str | None = None, partial: bool = False
) -> list[Problem]:
    """Lists all that is wrong with a table; see `rank_table_check.check_document`."""
    return check_document(table.to_document(), mesh, chip, partial)


def parse(text: str, name: str) -> Any:
    """Parses the text of a rank table as strict JSON.

    Args:
        text: The text.
        name: What to call it in errors.

    Returns:
        The document, unchecked.

    Raises:
        ReadError: it holds a comment or a key twice, or is no JSON; gives the line.
    """
    try:
        return parse_json(text, name)
    except ReadError as error:
        cause = error.__cause__
        if not isinstance(cause, json.JSONDecodeError):
            raise
        fault = _fault_of_hand(text, cause.pos)
        if fault is None:
            raise
        place, what = fault
        line = text.count("\n", 0, place) + 1
        raise ReadError(f"{shown(name)}, line {line}: {what}, which JSON does not have; remove it") from error


def _fault_of_hand(text: str, place: int) -> tuple[int, str] | None:
    """A comment, or a comma behind the last entry, where a parser stops at a place."""
    if found := _COMMENT.match(text, place):
        return found.start(1), f"a comment ({found[1]})"
    comma = place if text[place : place + 1] == "," else len(text[:place].rstrip()) - 1
    if text[comma : comma + 1] == "," and text[comma + 1 :].lstrip()[:1] in ("}", "]"):
        return comma, "a comma behind the last entry"
    return None


def from_document(document: Mapping[str, Any]) -> RankTable:
    """The table of a document without problems."""
    pods = {
        server["server_id"]: pod["super_pod_id"]
        for pod in document.get("super_pod_list", ())
        for server in pod["server_list"]
    }
    servers = tuple(_server(server, pods.get(server["server_id"])) for server in document["server_list"])
    return RankTable(servers, document["version"])


def _server(document: Mapping[str, Any], pod: str | None) -> Server:
    own = ("device_id", "rank_id", "device_ip", "super_device_id")
    devices = tuple(
        Device(
            device_id=int(device["device_id"]),
            rank_id=int(device["rank_id"]),
            device_ip=device.get("device_ip"),
            super_device_id=int(device["super_device_id"]) if "super_device_id" in device else None,
            other=tuple((key, value) for key, value in device.items() if key not in own),
        )
        for device in document["device"]
    )
    other = tuple((key, value) for key, value in document.items() if key not in ("server_id", "device"))
    return Server(document["server_id"], devices, pod, other)


def read(
    path: str | Path, mesh: Mesh | None = None, chip: str | None = None, partial: bool = False
) -> RankTable:
    """Reads a table and checks all of it.

    Args:
        path: The JSON file.
        mesh: The grid it is for; see `check_document`, also for the others.
        chip: Chip of the servers.
        partial: The file is of some servers of a cluster.

    Raises:
        OSError: the file cannot be read.
        ReadError: it is not UTF-8 or not strict JSON; a ValueError.
        RankTableError: the table breaks rules; a ValueError that lists them.
    """
    document = parse(read_text(path), str(path))
    if problems := check_document(document, mesh, chip, partial):
        raise RankTableError(path, problems)
    return from_document(document)


def write(table: RankTable, path: str | Path, chip: str | None = None, partial: bool = False) -> None:
    """Checks a table and writes it.

    Raises:
        OSError: the disk does not take it; what the file held before is still there.
        RankTableError: the table breaks rules; nothing is written.
    """
    if problems := check(table, chip=chip, partial=partial):
        raise RankTableError(path, problems)
    write_text(path, to_text(table.to_document()))


def to_text(document: Mapping[str, Any]) -> str:
    """A document as JSON, one device a line."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    flat = re.compile(r"\{\s+((?:\"[^{}\[\]]*?)\s*)\}")  # the innermost objects: devices, servers of a pod
    return flat.sub(lambda found: "{" + re.sub(r"\s*\n\s*", " ", found.group(1)).strip() + "}", text) + "\n"


def merge(tables: Sequence[tuple[str, RankTable]], renumber: bool = False) -> RankTable:
    """One table of several, each of other servers; every device keeps its rank.

    Args:
        tables: Names (for errors) and tables.
        renumber: Give out ranks anew instead, in the order of the tables and of their devices.

    Returns:
        The table of all servers: those of the lowest ranks first, or in the order given when renumbered.

    Raises:
        ValueError: there is none, or versions differ.
        RankTableError: a rank or a server is in two of them. What else may be wrong with the whole, ranks
            missing or addresses doubled, is for `check`, and `write` refuses it.
    """
    if len({table.version for _, table in tables}) != 1:
        found = ", ".join(f"{name} {table.version}" for name, table in tables) or "none"
        raise ValueError(f"tables to merge must be of one version, there are: {found}")
    _refuse_clashes(tables, renumber)
    servers = [server for _, table in tables for server in table.servers]
    if not renumber:
        servers.sort(key=lambda server: min(server.ranks))
    merged = RankTable(tuple(servers), tables[0][1].version)
    return merged.with_ranks(range(merged.size)) if renumber else merged


def _refuse_clashes(tables: Iterable[tuple[str, RankTable]], renumber: bool) -> None:
    """Names the files that clash, which the check of the merged table no longer could."""
    tables = list(tables)
    owners: dict[tuple[str, Any], int] = {}
    clashes: dict[tuple[str, int, int], list[Any]] = {}
    for number, (_, table) in enumerate(tables):
        claims: list[tuple[str, Any]] = [("server", server.server_id) for server in table.servers]
        claims += [("rank", rank) for server in table.servers for rank in server.ranks if not renumber]
        for claim in claims:
            first = owners.setdefault(claim, number)
            if first != number:
                clashes.setdefault((claim[0], first, number), []).append(claim[1])
    problems = []
    for (kind, first, second), values in clashes.items():
        which = ranges(values) if kind == "rank" else ", ".join(quoted(value)[1:-1] for value in values)
        remedy = "write both with ranks of their own (build --first-rank), or ask for new ranks (--renumber)"
        remedy = remedy if kind == "rank" else "merge each server once"
        problems.append(
            Problem(tables[second][0], f"{kind} {which} is already that of {tables[first][0]}", remedy)
        )
    if problems:
        raise RankTableError("merge", problems)
