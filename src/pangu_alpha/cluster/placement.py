"""Places each axis of the grid on a level of the cluster: racks, servers of a rack, devices of a server.

MindSpore fixes the order of ranks along the axes, so a placement is realised by the rank table, which gives
ranks to devices.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pangu_alpha.cluster.tables.rank_table import RankTable
from pangu_alpha.parallel.mesh import AXES, COORDINATE_OF, RANK_ORDER, Mesh

LEVELS = ("rack", "server", "device")
_WORDS = {word: axis for axis, word in COORDINATE_OF.items()} | {"pipeline": "pp"}


@dataclass(frozen=True)
class Placement:
    """Assigns the axes of the grid to the levels of a cluster; on each level the outermost axis comes first.

    PanGu-alpha's own (Zeng et al., 2021, figure 5) is rack=dp, server=pp, device=tp: tensor parallel groups
    inside a server, pipelines inside a rack, data parallel groups across racks. An axis on two neighbouring
    levels, as dp in rack=dp server=dp,pp device=tp, is divided between them as their sizes require.

    Args:
        rack: Axes across racks.
        server: Axes across the servers of a rack.
        device: Axes across the devices of a server.
    """

    rack: tuple[str, ...] = ()
    server: tuple[str, ...] = ("pp", "dp")
    device: tuple[str, ...] = ("tp",)

    def __post_init__(self) -> None:
        for level in LEVELS:
            for axis in getattr(self, level):
                if axis not in AXES:
                    raise ValueError(f"placement: {level}={axis} is none of the axes {', '.join(AXES)}")
        if len(set(self.order)) != len(self.order):
            raise ValueError(
                f"placement {self}: an axis stands at two places that are not neighbours; name it once"
            )

    @classmethod
    def parse(cls, text: str) -> Placement:
        """Parses "rack=dp server=pp device=tp"; data, stage and tensor are synonyms of dp, pp and tp.

        Raises:
            ValueError: A level or an axis is unknown.
        """
        levels: dict[str, tuple[str, ...]] = dict.fromkeys(LEVELS, ())
        for part in text.split():
            found = re.fullmatch(r"(\w+)=(\w+(?:,\w+)*)?", part)
            if not found or found[1] not in levels:
                raise ValueError(
                    f"placement: {part!r} must be one of {', '.join(f'{level}=AXES' for level in LEVELS)}, "
                    f"such as rack=dp server=pp device=tp"
                )
            levels[found[1]] = tuple(_WORDS.get(word, word) for word in (found[2] or "").split(",") if word)
        return cls(**levels)

    @property
    def order(self) -> tuple[str, ...]:
        """The axes from the outermost to the innermost."""
        axes = [axis for level in LEVELS for axis in getattr(self, level)]
        return tuple(axis for i, axis in enumerate(axes) if i == 0 or axis != axes[i - 1])

    def __str__(self) -> str:
        return " ".join(f"{level}={','.join(getattr(self, level))}" for level in LEVELS)

    def rank_at(self, mesh: Mesh, position: int) -> int:
        """Returns the rank of the device at a position, counted by rack, then server, then device."""
        return _rank_at(mesh, self.order[::-1], position)


def permute(table: RankTable, mesh: Mesh, placement: Placement, servers_per_rack: int) -> RankTable:
    """Gives ranks to the devices of a table so that the grid's axes lie where a placement puts them.

    Args:
        table: A table that lists servers rack by rack; its present ranks do not matter.
        servers_per_rack: Servers of every rack; the last rack must be full as well.

    Returns:
        The table in the same order, with new ranks.

    Raises:
        ValueError: The sizes of the grid and of the cluster do not fit.
    """
    per_server = _fits(table, mesh, servers_per_rack)
    if problem := misplacement(placement, mesh, per_server, servers_per_rack):
        raise ValueError(problem)
    return table.with_ranks([placement.rank_at(mesh, position) for position in range(table.size)])


def in_order(table: RankTable, mesh: Mesh, order: Sequence[str]) -> RankTable:
    """Gives ranks to devices so that the axes follow one another, regardless of servers and racks.

    Args:
        table: A table that lists servers rack by rack; its present ranks do not matter.
        order: All axes, the one along neighbouring devices first.

    Returns:
        The table in the same order, with new ranks.

    Raises:
        ValueError: The sizes of table and grid differ, or the order does not name every axis once.
    """
    if sorted(order) != sorted(AXES):
        raise ValueError(f"order: {','.join(order)} must name {', '.join(RANK_ORDER)} once each")
    if table.size != mesh.size:
        raise ValueError(_other_size(table, mesh))
    return table.with_ranks([_rank_at(mesh, order, position) for position in range(table.size)])


def _rank_at(mesh: Mesh, order: Sequence[str], position: int) -> int:
    """Returns the rank of the device at a position in the table; `order` begins with the innermost axis."""
    place = dict.fromkeys(AXES, 0)
    for axis in order:
        position, place[axis] = divmod(position, mesh.degree(axis))
    return mesh.rank(**{COORDINATE_OF[axis]: number for axis, number in place.items()})


def _other_size(table: RankTable, mesh: Mesh) -> str:
    return f"the table has {table.size} devices, {mesh} has {mesh.size}; change a degree"


def misplacement(placement: Placement, mesh: Mesh, per_server: int, servers_per_rack: int) -> str | None:
    """Returns why a placement is impossible on racks of equal servers, or None if it is possible.

    Args:
        per_server: Devices of a server.
    """
    for axis in AXES:
        if axis not in placement.order and mesh.degree(axis) > 1:
            return f"placement {placement}: {axis} = {mesh.degree(axis)} has no level; name it on one"
    return _boundary(placement, mesh, "device", per_server) or _boundary(
        placement, mesh, "server", per_server * servers_per_rack
    )


def _fits(table: RankTable, mesh: Mesh, servers_per_rack: int) -> int:
    """Returns the number of devices of a server, if the cluster is regular and as large as the grid."""
    if table.size != mesh.size:
        raise ValueError(_other_size(table, mesh))
    counts = {len(server.devices): server.server_id for server in table.servers}
    if len(counts) > 1:
        shown = ", ".join(f"{count} on {server}" for count, server in counts.items())
        raise ValueError(f"servers have different numbers of devices ({shown}); a placement needs the same")
    if servers_per_rack < 1 or len(table.servers) % servers_per_rack:
        raise ValueError(f"{len(table.servers)} servers do not fill racks of {servers_per_rack}")
    return table.size // len(table.servers)


def _boundary(placement: Placement, mesh: Mesh, level: str, size: int) -> str | None:
    """Returns what is wrong if the axes of `level` and inside it do not make up `size` devices, or None."""
    inner = LEVELS[LEVELS.index(level) :]
    outer = [axis for name in LEVELS[: LEVELS.index(level)] for axis in getattr(placement, name)]
    axes = dict.fromkeys(axis for name in inner for axis in getattr(placement, name))
    whole, split = 1, 1
    for axis in axes:
        if axis in outer:
            split = mesh.degree(axis)
        else:
            whole *= mesh.degree(axis)
    if split == 1 and whole == size or split > 1 and size % whole == 0 and split % (size // whole) == 0:
        return None
    shown = ", ".join(f"{axis} {mesh.degree(axis)}" for axis in axes) or "no axis"
    holder = "server" if level == "device" else "rack"
    return (
        f"placement {placement}: a {holder} has {size} devices, but the axes inside it are {shown}; "
        f"change degrees, servers per rack or the placement"
    )
