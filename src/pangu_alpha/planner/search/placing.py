"""From the order of a plan's axes to a rank table, and from a rank table to a cluster.

Also says which orders can be launched at all, by the rule of cluster.tensor_groups that checked rank tables
keep, too: the search considers no others.
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
    """The cluster of a rank table's devices.

    Args:
        table: Servers rack by rack, all alike.
        levels: Family or YAML (as planner.cost.hardware.load_cluster) that gives the device and its links.

    Raises:
        ValueError: servers have different numbers of devices, or more than the levels say.
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
    """Servers of a rack, the unit outside a server; all of them if there is none that divides `devices`."""
    server = min(cluster.server, devices)
    outer = [level.size for level in cluster.levels if not level.inner and level.size]
    size = outer[0] if outer and devices % outer[0] == 0 else devices
    return max(1, size // server)


def placement_of(job: Job, cluster: Cluster) -> Placement:
    """The placement of a job: each axis on every level that it reaches into.

    Raises:
        ValueError: sizes do not nest, so that no words for levels say it; the order alone does.
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
    """Whether the rank table in which axes run in an order passes its check.

    Args:
        grid: What has the degrees.
        order: Axes from neighbouring devices outwards.
        cluster: Where.
    """
    degrees = {axis: getattr(grid, axis) for axis in order}
    devices = math.prod(degrees.values())
    stride = math.prod(degrees[axis] for axis in order[: order.index("tp")])
    return lie_alike(degrees["tp"], stride, devices, min(_domain(cluster), devices))


class Degrees(Protocol):
    """What has the three degrees: a job, a grid, a plan."""

    @property
    def dp(self) -> int: ...

    @property
    def tp(self) -> int: ...

    @property
    def pp(self) -> int: ...


def _domain(cluster: Cluster) -> int:
    """Devices of the unit in which tensor parallel groups belong: a server, or a super pod."""
    return next((level.size for level in cluster.levels if level.name == SUPER_POD), 0) or cluster.server


def chip_of(cluster: Cluster) -> str | None:
    """The chip by whose rules a rank table of a cluster is checked; None for what is not Ascend's."""
    return cluster.device.family or None


def in_rank_order(job: Job) -> bool:
    """Whether MindSpore's own order of ranks places the job as it wants to be placed."""
    wanted, usual = ([axis for axis in order if getattr(job, axis) > 1] for order in (job.order, RANK_ORDER))
    return wanted == usual


def table_of(cluster: Cluster, devices: int) -> RankTable:
    """A rank table of the first devices of a cluster, for pictures: servers by number, no addresses."""
    server = min(cluster.server, devices)
    hosts = hosts_by_rule(math.ceil(devices / server), "server {server}", range(server))
    if rest := devices % server:  # the last server is not full
        hosts[-1] = replace(hosts[-1], devices=tuple(range(rest)))
    return build(hosts)


def placed(table: RankTable, job: Job) -> RankTable:
    """The table with ranks given out so that the job's axes run where its order wants them.

    Raises:
        ValueError: the table is of another size.
    """
    return in_order(table, Mesh(dp=job.dp, tp=job.tp, pp=job.pp), job.order)
