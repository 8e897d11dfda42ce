"""Translates the order of a plan's axes into a rank table, and a rank table into a cluster.

Also decides which orders can be launched at all, by the same rule that rank tables are checked against
(cluster.tensor_groups); the search considers no others.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

from pangu_alpha.cluster.placement import LEVELS, Placement, in_order, misplacement
from pangu_alpha.cluster.tables.build import build, hosts_by_rule
from pangu_alpha.cluster.tables.rank_table import RankTable
from pangu_alpha.cluster.tensor_groups import lie_alike
from pangu_alpha.parallel.mesh import RANK_ORDER, Mesh
from pangu_alpha.planner.cost.hardware import Cluster, load_cluster
from pangu_alpha.planner.cost.job import Job

SUPER_POD = "super-pod"  # name of that level in clusters.yaml


def cluster_of(table: RankTable, levels: str) -> Cluster:
    """Builds the cluster of a rank table's devices.

    Args:
        table: The rank table; servers are listed rack by rack and all have the same number of devices.
        levels: Family or YAML file (as in planner.cost.hardware.load_cluster) with the device and its links.

    Raises:
        ValueError: If servers have different numbers of devices, or more than `levels` allows.
    """
    cluster = load_cluster(levels, table.size)
    sizes = {len(server.devices) for server in table.servers}
    if len(sizes) > 1:
        raise ValueError(
            f"the rank table's servers have {', '.join(map(str, sorted(sizes)))} devices; planning needs all "
            "alike, so make tables of one kind of server"
        )
    (devices,) = sizes
    if devices > cluster.server and len(table.servers) > 1:
        raise ValueError(
            f"the rank table's servers have {devices} devices, those of {levels} {cluster.server}; name the "
            "levels that fit it"
        )
    return replace(cluster, name=f"{levels}, {len(table.servers)} servers")


def rack_servers(cluster: Cluster, devices: int) -> int:
    """Servers in a rack, the first unit outside a server; all if no such unit divides `devices`."""
    server = min(cluster.server, devices)
    outer = [level.size for level in cluster.levels if not level.inner and level.size]
    size = outer[0] if outer and devices % outer[0] == 0 else devices
    return max(1, size // server)


def placement_of(job: Job, cluster: Cluster) -> Placement:
    """Returns the placement of a job: each axis on every level that it spans.

    Raises:
        ValueError: If the sizes do not nest, so that only the order of axes can describe the placement.
    """
    server = min(cluster.server, job.devices)
    bounds = {"device": (1, server), "server": (server, server * rack_servers(cluster, job.devices))}
    bounds["rack"] = (bounds["server"][1], job.devices)
    axes: dict[str, list[str]] = {level: [] for level in LEVELS}
    for axis in reversed(job.order):
        inner = job.stride(axis)
        outer = inner * getattr(job, axis)
        for level, (low, high) in bounds.items():
            if max(inner, low) < min(outer, high):
                axes[level].append(axis)
    placement = Placement(**{level: tuple(names) for level, names in axes.items()})
    mesh = Mesh(dp=job.dp, tp=job.tp, pp=job.pp)
    if problem := misplacement(placement, mesh, server, rack_servers(cluster, job.devices)):
        raise ValueError(problem)
    return placement


def launchable(grid: Degrees, order: tuple[str, ...], cluster: Cluster) -> bool:
    """Whether the rank table that results from an order of axes passes its check.

    Args:
        order: Axes from neighbouring devices outwards.
    """
    degrees = {axis: getattr(grid, axis) for axis in order}
    devices = math.prod(degrees.values())
    stride = math.prod(degrees[axis] for axis in order[: order.index("tp")])
    return lie_alike(degrees["tp"], stride, devices, min(_domain(cluster), devices))


class Degrees(Protocol):
    """Anything with the three degrees: a job, a grid, a plan."""

    @property
    def dp(self) -> int: ...

    @property
    def tp(self) -> int: ...

    @property
    def pp(self) -> int: ...


def _domain(cluster: Cluster) -> int:
    """Devices of the unit in which a tensor parallel group must lie: a server, or a super-pod."""
    return next((level.size for level in cluster.levels if level.name == SUPER_POD), 0) or cluster.server


def chip_of(cluster: Cluster) -> str | None:
    """The chip whose rules apply to a cluster's rank tables; None if the devices are not Ascend's."""
    return cluster.device.family or None


def in_rank_order(job: Job) -> bool:
    """Whether MindSpore's own order of ranks already places the job as its `order` demands."""
    wanted, usual = ([axis for axis in order if getattr(job, axis) > 1] for order in (job.order, RANK_ORDER))
    return wanted == usual


def table_of(cluster: Cluster, devices: int) -> RankTable:
    """A rank table of a cluster's first devices, for pictures: servers are numbered and have no addresses."""
    server = min(cluster.server, devices)
    hosts = hosts_by_rule(math.ceil(devices / server), "server {server}", range(server))
    if rest := devices % server:  # the last server is not full
        hosts[-1] = replace(hosts[-1], devices=tuple(range(rest)))
    return build(hosts)


def placed(table: RankTable, job: Job) -> RankTable:
    """Returns the table with its ranks reassigned so that the job's axes run as its `order` demands.

    Raises:
        ValueError: If the table has another number of devices than the job.
    """
    return in_order(table, Mesh(dp=job.dp, tp=job.tp, pp=job.pp), job.order)
