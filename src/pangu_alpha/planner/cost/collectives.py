"""Time of collective operations on nested levels of links. Knows only numbers: seconds and bytes, no plan.

A group is described by its *fan*: for each level, how many units of the level below one unit joins (a mean
where the group does not fill its units evenly). A ring runs through all ranks at the pace of its slowest
link; the hierarchical algorithm runs a ring on each level in turn (Thakur, Rabenseifner and Gropp, 2005).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from pangu_alpha.planner.cost.hardware import Cluster


class Links:
    """The links of a cluster, with the fitted constants of its device applied.

    Args:
        rings: True restricts collectives to rings. By default the faster of ring and hierarchical is taken.
    """

    def __init__(self, cluster: Cluster, rings: bool = False) -> None:
        fitted = cluster.device.constants
        self.rings = rings
        self.sizes = [level.size or max(cluster.count, 1) for level in cluster.levels]
        self.rates = [
            level.bandwidth
            / level.oversubscription
            * (fitted.link_inner if level.inner else fitted.link_outer)
            for level in cluster.levels
        ]
        self.latencies = [
            level.latency * (1.0 if level.inner else fitted.latency) for level in cluster.levels
        ]

    def fan(self, members: int, stride: int) -> tuple[float, ...]:
        """Spreads a group over the levels of links.

        Args:
            members: Number of ranks in the group.
            stride: Distance between neighbouring members, in devices.

        Returns:
            For each level, how many units of the level below one unit joins; their product is `members`.
        """
        return self.fan_of(((members, stride),))

    def fan_of(self, axes: Sequence[tuple[int, int]]) -> tuple[float, ...]:
        """Like `fan`, for a group that spreads along several axes.

        Args:
            axes: Pairs of (members, stride), one for each axis, in any order.
        """
        members = math.prod(members for members, _ in axes)
        touched = (_touched(axes, size) for size in self.sizes[:-1])
        units = itertools.accumulate((members, *touched, 1), min)
        return tuple(below / above for below, above in itertools.pairwise(units))

    def gather(self, size: float, fan: Sequence[float]) -> float:
        """AllGather of `size` bytes in all, or ReduceScatter of `size` bytes on each rank. Unit: seconds."""
        ring_rate, ring_latency, levels = float("inf"), 0.0, 0.0
        members: float = 1
        for units, rate, latency in zip(fan, self.rates, self.latencies, strict=True):
            if units > 1:
                rate *= members  # each of a unit's members brings its own link out of the unit
                ring_rate = min(ring_rate, rate)
                ring_latency = ring_latency * units + (units - 1) * latency
                levels += (units - 1) * (size / units / rate + latency)
                members *= units
        if members == 1:
            return 0.0
        ring = (members - 1) / members * size / ring_rate + ring_latency
        return ring if self.rings else min(ring, levels)

    def reduce(self, size: float, fan: Sequence[float]) -> float:
        """AllReduce of `size` bytes on each rank, as a ReduceScatter and an AllGather. Unit: seconds."""
        return 2.0 * self.gather(size, fan)

    def send(self, size: float, stride: int) -> float:
        """A message of `size` bytes to the rank `stride` devices on, while all ranks send. Unit: seconds."""
        level = next((i for i, unit in enumerate(self.sizes) if stride < unit), len(self.sizes) - 1)
        return size / self.rates[level] + self.latencies[level]


def _touched(axes: Sequence[tuple[int, int]], size: int) -> int:
    """Number of units of `size` devices that hold at least one member of a group."""
    # A stride shorter than a unit skips no unit; with a longer one, each member lies in a unit of its own.
    span = sum((members - 1) * stride for members, stride in axes if stride < size)
    return (span // size + 1) * math.prod(members for members, stride in axes if stride >= size)
