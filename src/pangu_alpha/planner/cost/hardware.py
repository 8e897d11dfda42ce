"""Devices, links in levels, clusters and software stacks, read from YAML; every number with its source.

Knows no plan and no model. Units: FLOP/s, bytes, bytes/s, seconds.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pangu_alpha.config.schema import ConfigError, build, nearest, read_yaml, validate
from pangu_alpha.files.shown import quoted

MOST_DEVICES = 1 << 20  # of a cluster

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Constants:
    """What calibration fits for a device type; all that is not in a data sheet.

    Args:
        matmul: Share of the peak that an endlessly large matrix product reaches.
        attention: Efficiency of fused attention, as a share of a matrix product's.
        memory: Share of the memory bandwidth that operators without reuse reach.
        kernel: Time a kernel takes with nothing to do. Unit: seconds.
        host: Time the host needs to start one operator, where a stack starts them one by one. Unit: seconds.
        link_inner: Share of the links' bandwidth that collectives reach inside a server.
        link_outer: The same between servers.
        latency: Factor on the latencies of the links between servers.
        overlap: Share of a computation behind which traffic hides, where a stack overlaps the two.
    """

    matmul: float = 0.7
    attention: float = 0.6
    memory: float = 0.75
    kernel: float = 5e-6
    host: float = 2e-5
    link_inner: float = 0.75
    link_outer: float = 0.75
    latency: float = 1.0
    overlap: float = 0.8

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every constant outside its bounds."""
        for name, (low, high) in BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                yield f"{name}: {getattr(self, name)} must lie in [{low}, {high}]"


BOUNDS = {
    "matmul": (0.2, 1.0),
    "attention": (0.2, 1.0),
    "memory": (0.3, 0.95),
    "kernel": (0.0, 3e-5),
    "host": (0.0, 1e-4),
    "link_inner": (0.1, 1.0),
    "link_outer": (0.1, 1.0),
    "latency": (0.3, 10.0),
    "overlap": (0.0, 1.0),
}


@dataclass(frozen=True)
class Device:
    """One accelerator.

    Args:
        name: As in devices.yaml.
        peak: Dense 16-bit matrix products. Unit: FLOP/s.
        memory: Size of its memory. Unit: bytes.
        usable: Share of the memory that a run may fill; the rest is the runtime's and fragmentation's.
        bandwidth: Of its memory. Unit: bytes/s.
        constants: Fitted, or assumed; `sources` says which.
        sources: Where each number comes from, by field.
        family: Of Ascend chips, as config.families names them; "" for other devices.
    """

    name: str
    peak: float
    memory: float
    usable: float
    bandwidth: float
    constants: Constants = Constants()
    sources: dict[str, str] = field(default_factory=dict, hash=False)
    family: Literal["", "910A", "910B", "910C"] = ""

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every figure that no device can have."""
        yield from _not_positive(self, "peak", "memory", "usable", "bandwidth")
        if self.usable > 1.0:
            yield f"usable: {self.usable} must be a share of at most 1"

    def with_constants(self, **changes: float) -> Device:
        """The same device with other constants."""
        return dataclasses.replace(self, constants=dataclasses.replace(self.constants, **changes))


@dataclass(frozen=True)
class Level:
    """Links that join the devices of one unit: a group of four, a server, a super-pod, a rack, the spine.

    Args:
        name: Of the unit.
        size: Devices in one unit; 0 is all of the cluster.
        bandwidth: What a device sends over these links, one direction. Unit: bytes/s.
        latency: Of one message. Unit: seconds.
        oversubscription: Factor by which the links are fewer than the devices below could fill.
        inner: Whether the links stay inside a server.
        sources: Where each number comes from, by field.
    """

    name: str
    size: int
    bandwidth: float
    latency: float
    oversubscription: float = 1.0
    inner: bool = False
    sources: dict[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every figure that no link can have."""
        yield from _not_positive(self, "bandwidth", "oversubscription")
        if self.size < 0:
            yield f"size: {self.size} must not be negative; 0 is all of the cluster"
        if not 0.0 <= self.latency < math.inf:
            yield f"latency: {self.latency} must be a number of at least 0"


@dataclass(frozen=True)
class Cluster:
    """Devices of one type, joined by levels, the innermost first.

    Args:
        name: Of the cluster.
        device: Its device type.
        levels: Units inside units; each size is a multiple of the one before, the last may be 0.
        count: Devices.
    """

    name: str
    device: Device
    levels: tuple[Level, ...]
    count: int

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.count <= MOST_DEVICES:
            problems.append(f"count: {quoted(self.count)} devices; give at least 1, at most {MOST_DEVICES:,}")
        if not self.levels:
            problems.append("levels: none; give at least one, such as the server")
        for small, large in zip(self.levels, self.levels[1:], strict=False):
            if not small.size or (large.size and large.size % small.size):
                problems.append(
                    f"levels: {large.size} devices of a {large.name} are no multiple of {small.size} "
                    f"of a {small.name}; name the levels from the inside out"
                )
        if problems:
            raise ConfigError([f"cluster {self.name}: {problem}" for problem in problems])

    @property
    def server(self) -> int:
        """Devices of a server: the largest inner unit, or 1."""
        return max((level.size for level in self.levels if level.inner), default=1)


@dataclass(frozen=True)
class Stack:
    """What a training software does, as far as time depends on it.

    Args:
        name: As in devices.yaml.
        eager: The host starts operators one by one; a compiled graph has no such cost.
        fused_attention: Scores stay on the chip (flash attention); None where the model and the device decide
            (planner.cost.software).
        overlap: Gradient and weight traffic runs beside the computation.
        rings: Collectives are rings only, as most of NCCL's are; HCCL also works level by level.
        split_transfers: Tensor parallel ranks each send their share of a stage's output and gather it behind.
        paired_transfers: A stage sends and receives at once; else one after the other.
        repeats_last_sum: Full recompute repeats a layer's last sum, too, whose result no derivative needs.
        gradient_bytes: Bytes of a gradient in the data parallel sum.
        gather_share: Share of the links' reachable bandwidth that gathers of sharded weights see.
        gathers: Messages a layer's weights take when they are gathered: one a layer, or one a parameter.
        partitioned: Collectives are those that MindSpore's partitioner places for this project's network, and
            activations those that its graphs keep; else the usual terms hold.
        source: Where this comes from.
    """

    name: str
    eager: bool
    fused_attention: bool | None
    overlap: bool
    rings: bool
    split_transfers: bool
    paired_transfers: bool = True
    repeats_last_sum: bool = True
    gradient_bytes: int = 2
    gather_share: float = 1.0
    gathers: Literal["layer", "parameter"] = "parameter"
    partitioned: bool = False
    source: str = "assumed"


def _not_positive(config: Device | Level, *names: str) -> Iterator[str]:
    for name in names:
        if not 0.0 < getattr(config, name) < math.inf:
            yield f"{name}: {getattr(config, name)} must be a number above 0"


def _split(values: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Splits {field: {value, source}} into values and sources; plain values have the source "none given"."""
    if not isinstance(values, Mapping):
        raise ConfigError([f"{where}: {quoted(values)} must be a mapping of fields, such as bandwidth: 25e9"])
    plain, sources = {}, {}
    for key, item in values.items():
        sourced = isinstance(item, Mapping) and set(item) == {"value", "source"}
        if isinstance(item, Mapping) and "value" in item and not sourced:
            raise ConfigError([f"{where}.{key}: give the two keys value and source"])
        plain[key] = item["value"] if sourced else item
        sources[key] = item["source"] if sourced else "none given"
    return plain, sources


def _build(cls: type, name: str, values: Mapping[str, Any], where: str) -> Any:
    plain, sources = _split(values, where)
    return build(cls, {"name": name, **plain, "sources": sources}, where)


@cache
def _shipped(file: str) -> dict[str, Any]:
    return read_yaml(_FOLDER / file)


def _entry(table: Mapping[str, Any], name: str, kind: str) -> Any:
    if name not in table:
        raise ValueError(f"{kind} {name!r} is unknown; {nearest(name, table)}")
    return table[name]


def device_names() -> tuple[str, ...]:
    """Names of the shipped devices."""
    return tuple(_shipped("devices.yaml")["devices"])


def load_device(name: str) -> Device:
    """A shipped device.

    Raises:
        ValueError: there is none of that name.
    """
    values = _entry(_shipped("devices.yaml")["devices"], name, "device")
    return _build(Device, name, values, f"devices.{name}")


def load_stack(name: str) -> Stack:
    """A shipped software stack.

    Raises:
        ValueError: there is none of that name.
    """
    values = _entry(_shipped("devices.yaml")["stacks"], name, "stack")
    return build(Stack, {"name": name, **values}, f"stacks.{name}")


def other_constants(name: str) -> Constants:
    """Constants that another public planner would have us use for a device; for comparison only."""
    return build(Constants, _entry(_shipped("devices.yaml")["other_planners"], name, "device")["constants"])


def load_cluster(name: str, count: int | None = None) -> Cluster:
    """A cluster by the name of a built-in one, FAMILY-COUNT such as "910a-2048", or from a YAML file.

    Args:
        name: FAMILY-COUNT, FAMILY with `count`, or the path of a YAML (keys device, levels, count).
        count: Devices, in place of the count of the name or the file.

    Raises:
        ValueError: no such family, no count, or a broken file.
    """
    if name.endswith((".yaml", ".yml")):
        values = read_yaml(name)
        try:
            return _cluster(name, values, count)
        except ConfigError as error:
            own = [problem if name in problem else f"{name}: {problem}" for problem in error.problems]
            raise ConfigError(own) from error
    family, dash, number = name.rpartition("-")
    families = _shipped("clusters.yaml")
    if dash and re.fullmatch("[0-9]{1,4000}", number) and family in families:
        return _cluster(name, families[family], int(number) if count is None else count)
    if count is None:
        raise ValueError(
            f"cluster {name!r}: write FAMILY-COUNT, as in 910a-2048 (families: {', '.join(families)}), "
            "or give the path of a YAML file"
        )
    return _cluster(f"{name}-{count}", _entry(families, name, "cluster family"), count)


def _cluster(name: str, values: Mapping[str, Any], count: int | None) -> Cluster:
    count = count if count is not None else values.get("count")
    unknown = set(values) - {"device", "levels", "count"}
    if unknown or not isinstance(values.get("levels"), Mapping) or type(count) is not int:
        raise ConfigError(
            [f"cluster {name}: give the keys device (a name), levels (a mapping by name), count (a number)"]
        )
    levels = tuple(_build(Level, key, level, f"levels.{key}") for key, level in values["levels"].items())
    device = values.get("device", "")
    if isinstance(device, Mapping):
        return Cluster(name, _build(Device, name, device, "device"), levels, count)
    if not isinstance(device, str):
        raise ConfigError([f"cluster {name}: device: {quoted(device)} must be a name or a mapping of fields"])
    return Cluster(name, load_device(device), levels, count)
