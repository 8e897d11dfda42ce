"""The kind of link that a group of ranks crosses: inside a server, inside a rack, or across racks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pangu_alpha.cluster.tables.rank_table import RankTable

Link = Literal["in server", "in rack", "across"]
LINKS: tuple[Link, ...] = ("in server", "in rack", "across")
_DEVICES_PER_SERVER = 8


@dataclass(frozen=True)
class Cluster:
    """The servers and racks in which ranks lie.

    Args:
        servers: Number of the server of every rank; servers are numbered rack by rack.
        servers_per_rack: None means that one rack holds all servers.

    Raises:
        ValueError: If servers_per_rack is less than 1.
    """

    servers: tuple[int, ...]
    servers_per_rack: int | None = None

    def __post_init__(self) -> None:
        if self.servers_per_rack is not None and self.servers_per_rack < 1:
            raise ValueError(f"servers per rack: {self.servers_per_rack} must be at least 1")

    @classmethod
    def in_order(cls, devices: int, servers_per_rack: int | None = None) -> Cluster:
        """Servers of 8 devices that are filled in the order of the ranks."""
        return cls(tuple(rank // _DEVICES_PER_SERVER for rank in range(devices)), servers_per_rack)

    @classmethod
    def of(cls, table: RankTable, servers_per_rack: int | None = None) -> Cluster:
        """The servers of a rank table."""
        places = {rank: number for number, server in enumerate(table.servers) for rank in server.ranks}
        return cls(tuple(places[rank] for rank in range(table.size)), servers_per_rack)

    def link(self, ranks: Iterable[int]) -> Link:
        """The farthest link between any of the ranks."""
        servers = {self.servers[rank] for rank in ranks}
        if len(servers) == 1:
            return "in server"
        racks = {server // self.servers_per_rack for server in servers} if self.servers_per_rack else {0}
        return "in rack" if len(racks) == 1 else "across"
