"""HCCL rank tables, which give ranks to the devices of servers: read, written, checked and merged.

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
        device_ip: Address of its network card; None for a job that stays in one server.
        super_device_id: Number in its super pod (version 1.2).
        other: Optional keys and values, kept unchanged: device_port, backup_device_ip, ...
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
        server_id: Its name in the table, by convention its IP address.
        super_pod: Id of its super pod (version 1.2).
        other: Optional keys and values, kept unchanged: host_ip, container_ip, ...
    """

    server_id: str
    devices: tuple[Device, ...]
    super_pod: str | None = None
    other: tuple[tuple[str, str], ...] = ()

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of its devices, in the order of the table."""
        return tuple(device.rank_id for device in self.devices)


@dataclass(frozen=True)
class RankTable:
    """A rank table, whose servers are listed rack by rack (see `placement`).

    Args:
        version: "1.0", or "1.2" with super pods.
    """

    servers: tuple[Server, ...]
    version: str = "1.0"

    @property
    def size(self) -> int:
        """Number of ranks."""
        return sum(len(server.devices) for server in self.servers)

    def find(self, rank: int) -> tuple[Server, Device]:
        """Returns the server and the device of a rank.

        Raises:
            ValueError: No device has this rank.
        """
        for server in self.servers:
            for device in server.devices:
                if device.rank_id == rank:
                    return server, device
        raise ValueError(f"rank {rank}: no device of the table's {self.size} has it")

    def with_ranks(self, ranks: Sequence[int]) -> RankTable:
        """Returns a table of the same devices with new ranks.

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
        """Returns the table in the form that HCCL reads: a JSON object whose values are strings."""
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
    """Lists all that is wrong with a table; see `check.check_document`."""
    return check_document(table.to_document(), mesh, chip, partial)


def parse(text: str, name: str) -> Any:
    """Parses the text of a rank table as strict JSON.

    Args:
        name: What errors call the table.

    Returns:
        The document, unchecked.

    Raises:
        ReadError: The text is not JSON, or contains a comment or a key twice; the message gives the line.
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
    """Returns position and description of a comment or trailing comma where the parser stopped.

    Such mistakes come from editing by hand. None for any other error.
    """
    if found := _COMMENT.match(text, place):
        return found.start(1), f"a comment ({found[1]})"
    comma = place if text[place : place + 1] == "," else len(text[:place].rstrip()) - 1
    if text[comma : comma + 1] == "," and text[comma + 1 :].lstrip()[:1] in ("}", "]"):
        return comma, "a comma behind the last entry"
    return None


def from_document(document: Mapping[str, Any]) -> RankTable:
    """Returns the table of a document that has no problems."""
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
    """Reads a table and checks all rules.

    Args:
        mesh, chip, partial: See `check_document`.

    Raises:
        OSError: The file cannot be read.
        ReadError: The file is not UTF-8 or not strict JSON; a ValueError.
        RankTableError: The table breaks rules; a ValueError that lists them.
    """
    document = parse(read_text(path), str(path))
    if problems := check_document(document, mesh, chip, partial):
        raise RankTableError(path, problems)
    return from_document(document)


def write(table: RankTable, path: str | Path, chip: str | None = None, partial: bool = False) -> None:
    """Checks a table and writes it.

    Raises:
        OSError: The file cannot be written; its earlier content is still there.
        RankTableError: The table breaks rules; nothing is written.
    """
    if problems := check(table, chip=chip, partial=partial):
        raise RankTableError(path, problems)
    write_text(path, to_text(table.to_document()))


def to_text(document: Mapping[str, Any]) -> str:
    """Returns a document as JSON with one device a line."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    flat = re.compile(r"\{\s+((?:\"[^{}\[\]]*?)\s*)\}")  # innermost objects: devices, or servers of a pod
    return flat.sub(lambda found: "{" + re.sub(r"\s*\n\s*", " ", found.group(1)).strip() + "}", text) + "\n"


def merge(tables: Sequence[tuple[str, RankTable]], renumber: bool = False) -> RankTable:
    """Merges tables of different servers into one; every device keeps its rank.

    Args:
        tables: Names, for errors, and tables.
        renumber: Give new ranks instead, in the order of the tables and of their devices.

    Returns:
        The table of all servers: those of the lowest ranks first, or in the given order if renumbered.

    Raises:
        ValueError: There is no table, or versions differ.
        RankTableError: A rank or a server occurs in two tables. Other problems of the merged table, such as
            missing ranks or repeated addresses, are found by `check` and refused by `write`.
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
    """Refuses clashes and names the files concerned, which a check of the merged table could no longer do."""
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
