"""Makes the cluster's own devices.yaml and clusters.yaml for the planner; see planner.cost.hardware.

The measured rates are what collectives and operators reached, so the shares of them that the planner assumes
for other clusters are 1 here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from pangu_alpha.cluster_check.check import Record
from pangu_alpha.cluster_check.judge.links import level_times
from pangu_alpha.cluster_check.judge.speed import memory_rates, product_rates
from pangu_alpha.cluster_check.setup import Level, Setup, levels
from pangu_alpha.planner.cost.collectives import Links
from pangu_alpha.planner.cost.hardware import BOUNDS, Cluster, Device, load_cluster
from pangu_alpha.planner.cost.hardware import Level as LinkLevel

SOURCE = "measured by check-cluster"
DEVICES, CLUSTERS = "devices.yaml", "clusters.yaml"
FAMILY = "measured"  # name of the cluster in clusters.yaml
_INNER = ("pair", "group", "server")
_LEAST_BANDWIDTH, _MOST_BANDWIDTH = 1e3, 1e13  # bytes/s
_LEAST_LATENCY, _MOST_LATENCY = 1e-9, 10.0  # seconds


@dataclass(frozen=True)
class Measured:
    """What the description of a cluster is made of.

    Args:
        speed: Record of the check "speed".
        links: Records of all ranks of the check "links".
        memory: Bytes of a device, which counts where the set-up names no family.
        hidden: Share of a computation behind which traffic was hidden; None if that was not measured.
    """

    speed: Record
    links: Sequence[Record]
    memory: float
    hidden: float | None = None


def planner_files(setup: Setup, measured: Measured) -> dict[str, dict[str, Any]]:
    """Describes the cluster as two YAMLs in the form of those that the planner ships.

    Returns:
        By file name, its content. `plan.py search --cluster clusters.yaml` takes both.
    """
    found: list[LinkLevel] = []
    for level in levels(setup):
        found.append(fitted_level(level, found, level_times(measured.links, level), setup.size))
    name, device = _device(setup, measured)
    described = {
        each.name: {
            "size": each.size,
            "bandwidth": {"value": each.bandwidth, "source": SOURCE},
            "latency": {"value": each.latency, "source": SOURCE},
            "inner": each.inner,
        }
        for each in found
    }
    cluster = {"device": name, "levels": described, "count": setup.size}
    return {DEVICES: {"devices": {name: device}}, CLUSTERS: {FAMILY: cluster}}


def _device(setup: Setup, measured: Measured) -> tuple[str, dict[str, Any]]:
    """The device's name and fields: the rated peak of a known family, else the best product as the peak."""
    best = max(product_rates(measured.speed).values())
    rates = memory_rates(measured.speed)
    share = BOUNDS["memory"][1]
    constants = {"matmul": 1.0, "memory": share, "link_inner": 1.0, "link_outer": 1.0, "latency": 1.0,
                 "kernel": _within("kernel", measured.speed["nothing"])}  # fmt: skip
    if measured.hidden is not None:
        constants["overlap"] = _within("overlap", measured.hidden)
    bandwidth = rates[max(rates)] / share
    if not setup.cluster:
        values = {"peak": best, "memory": measured.memory, "usable": 0.9, "bandwidth": bandwidth}
        return f"measured-{setup.device}", {
            **_sourced(values),
            "constants": {"value": constants, "source": SOURCE},
        }
    rated = load_cluster(setup.cluster, setup.size).device
    constants["matmul"] = _within("matmul", best / rated.peak)
    kept = [name for name in ("attention", "host", "overlap") if name not in constants]
    constants |= {name: getattr(rated.constants, name) for name in kept}
    return f"measured-{rated.name}", {
        "family": {"value": rated.family, "source": rated.name},
        "peak": {"value": rated.peak, "source": f"as {rated.name}"},
        "memory": {"value": rated.memory, "source": f"as {rated.name}"},
        "usable": {"value": rated.usable, "source": f"as {rated.name}"},
        **_sourced({"bandwidth": bandwidth}),
        "constants": {"value": constants, "source": f"{SOURCE}; {', '.join(kept)} as {rated.name}"},
    }


def _sourced(values: Mapping[str, float]) -> dict[str, Any]:
    return {name: {"value": float(value), "source": SOURCE} for name, value in values.items()}


def _within(name: str, value: float) -> float:
    low, high = BOUNDS[name]
    return float(min(max(value, low), high))


def fitted_level(
    level: Level, inner: Sequence[LinkLevel], times: Mapping[int, float], count: int
) -> LinkLevel:
    """Fits bandwidth and latency of a level so that the planner's own formula gives the measured times.

    Args:
        inner: The levels inside it, which are known already.
        times: By bytes on each rank, seconds of an AllReduce over a unit of the level.
        count: Devices of the cluster.
    """
    sizes = np.array(sorted(times), float)
    measured = np.log([times[int(size)] for size in sizes])

    def made(logarithms: Sequence[float]) -> LinkLevel:
        bandwidth, latency = np.exp(logarithms)
        bandwidth = float(np.clip(bandwidth, _LEAST_BANDWIDTH, _MOST_BANDWIDTH))
        latency = float(np.clip(latency, _LEAST_LATENCY, _MOST_LATENCY))
        return LinkLevel(level.name, level.size, bandwidth, latency, inner=level.name in _INNER)

    def off(logarithms: Sequence[float]) -> float:
        links = Links(Cluster("measured", _MEASURED, (*inner, made(logarithms)), count))
        fan = links.fan(level.size, 1)
        predicted = np.log([links.reduce(size, fan) for size in sizes])
        return float(np.square(predicted - measured).sum())

    start = [math.log(sizes[-1] / times[int(sizes[-1])]), math.log(times[int(sizes[0])] / (2 * level.size))]
    return made(minimize(off, start, method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-6}).x)


def _measured_device() -> Device:
    """A device whose collectives reach all of the links' rates: only links matter where a level is fitted."""
    values = {"link_inner": 1.0, "link_outer": 1.0, "latency": 1.0}
    return Device("any", 1.0, 1.0, 1.0, 1.0).with_constants(**values)


_MEASURED = _measured_device()
