"""From the order of a plan's axes to a rank table, and from a rank table to a cluster."""

from __future__ import annotations

from dataclasses import replace

from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.placement import LEVELS, Placement, permute
from pangu_alpha.parallel.rank_table import RankTable
from pangu_alpha.parallel.rank_table_build import build, hosts_by_rule
from pangu_alpha.planner.hardware import Cluster, load_cluster
from pangu_alpha.planner.job import AXES, Job


def cluster_of(table: RankTable, levels: str) -> Cluster:
    """The cluster of a rank table's devices.

    Args:
        table: Servers rack by rack, all alike.
        levels: Family or YAML (as planner.hardware.load_cluster) that gives the device and its links.

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
    """The placement of a job: each axis on every level that it reaches into."""
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
    return Placement(**{level: tuple(names) for level, names in axes.items()})


def in_rank_order(job: Job) -> bool:
    """Whether MindSpore's own order of ranks places the job as it wants to be placed."""
    wanted, usual = ([axis for axis in order if getattr(job, axis) > 1] for order in (job.order, AXES))
    return wanted == usual


def table_of(cluster: Cluster, devices: int) -> RankTable:
    """A rank table of the first devices of a cluster, for pictures: servers by number, no addresses."""
    server = min(cluster.server, devices)
    return build(hosts_by_rule(devices // server, "server {server}", range(server)))


def placed(table: RankTable, job: Job, cluster: Cluster) -> RankTable:
    """The table with ranks given out so that the job's axes run where its order wants them.

    Raises:
        ValueError: the table's servers are not alike.
    """
    mesh = Mesh(dp=job.dp, tp=job.tp, pp=job.pp)
    return permute(table, mesh, placement_of(job, cluster), rack_servers(cluster, job.devices))
