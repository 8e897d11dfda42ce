"""Devices, levels of links, clusters and software stacks, read from YAML; every number names its source.

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

MOST_DEVICES = 1 << 20  # in a cluster

_FOLDER = Path(__file__).parent
_FILE = re.compile(r"(?P<path>.+\.ya?ml)(?::(?P<family>[^/]+))?")


@dataclass(frozen=True)
class Constants:
    """The constants of a device type that no data sheet gives and that calibration fits.

    Args:
        matmul: Share of the peak that an infinitely large matrix product reaches.
        attention: Efficiency of fused attention relative to a matrix product.
        memory: Share of the memory bandwidth that operators without reuse reach.
        kernel: Time of a kernel that has nothing to do. Unit: seconds.
        host: Time that the host needs to start one operator, where a stack starts them one by one. Unit:
            seconds.
        link_inner: Share of the links' bandwidth that collectives reach inside a server.
        link_outer: Share of the links' bandwidth that collectives reach between servers.
        latency: Factor on the latencies of the links between servers.
        overlap: Share of a computation behind which traffic can hide, where a stack overlaps the two.
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
    """One type of accelerator.

    Args:
        name: Name, as in devices.yaml.
        peak: Rate of dense 16-bit matrix products. Unit: FLOP/s.
        memory: Size of the memory. Unit: bytes.
        usable: Share of the memory that a run may fill; the runtime and fragmentation take the rest.
        bandwidth: Bandwidth of the memory. Unit: bytes/s.
        constants: Fitted or assumed constants; `sources` says which.
        sources: Where each number comes from, by field.
        family: Family of an Ascend chip, as in config.families; "" for other devices.
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
        """Returns the same device with some constants changed."""
        return dataclasses.replace(self, constants=dataclasses.replace(self.constants, **changes))


@dataclass(frozen=True)
class Level:
    """The links that join the devices of one unit: a group of four, a server, a super-pod, a rack, the spine.

    Args:
        size: Devices in one unit; 0 means all devices of the cluster.
        bandwidth: What one device can send over these links, in one direction. Unit: bytes/s.
        latency: Latency of one message. Unit: seconds.
        oversubscription: Factor by which the bandwidth is short of what all devices together could send.
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
    """Devices of one type, joined by nested levels of links.

    Args:
        levels: The levels, innermost first. Each size is a multiple of the one before; only the last may be
            0.

    Raises:
        ConfigError: If a rule is broken; it lists all problems.
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
        """Number of devices of a server: the size of the largest inner unit, or 1 if there is none."""
        return max((level.size for level in self.levels if level.inner), default=1)


@dataclass(frozen=True)
class Stack:
    """What a training software does, as far as time and memory depend on it.

    Args:
        name: Name, as in devices.yaml.
        eager: Whether the host starts operators one by one; a compiled graph has no such cost.
        fused_attention: Whether scores stay on the chip (flash attention); None where the model and the
            device decide (planner.cost.software).
        overlap: Whether gradient and weight traffic runs at the same time as the computation.
        rings: Whether collectives are rings only, as most of NCCL's are; HCCL also works level by level.
        split_transfers: Whether each tensor parallel rank sends its share of a stage's output, which the next
            stage gathers.
        paired_transfers: Whether a stage sends and receives at the same time, or one after the other.
        repeats_last: Whether full recompute also repeats a layer's last product, its sum over tensor parallel
            ranks and the last residual, whose results no derivative needs.
        fused_sums: Whether the products of weight gradients add to the sums of gradients themselves, so that
            no operator of its own reads and writes the sums.
        hides_sums: Whether the backward pass's tensor parallel sums run at the same time as the products of
            weight gradients.
        softmax_rows: Scale, mask and softmax are one kernel if a rank's heads x sequences are a multiple of
            this; otherwise they are separate kernels.
        fused_pointwise: Whether rotary positions and the gate of a feed-forward are one kernel each.
        gradient_bytes: Bytes of one gradient in the data parallel sum.
        gather_share: Share of the links' reachable bandwidth that gathers of sharded weights get.
        gathers: Whether a layer's weights are gathered in one message, or in one for each parameter.
        partitioned: Whether collectives and kept activations are those of MindSpore's partitioner and graphs
            for this project's network; otherwise the usual terms hold.
    """

    name: str
    eager: bool
    fused_attention: bool | None
    overlap: bool
    rings: bool
    split_transfers: bool
    paired_transfers: bool = True
    repeats_last: bool = True
    fused_sums: bool = False
    hides_sums: bool = False
    softmax_rows: int = 1
    fused_pointwise: bool = True
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
    """Names of the devices that the package ships."""
    return tuple(_shipped("devices.yaml")["devices"])


def load_device(name: str) -> Device:
    """Loads a device that the package ships.

    Raises:
        ValueError: If there is no device of that name.
    """
    values = _entry(_shipped("devices.yaml")["devices"], name, "device")
    return _build(Device, name, values, f"devices.{name}")


def load_stack(name: str) -> Stack:
    """Loads a software stack that the package ships.

    Raises:
        ValueError: If there is no stack of that name.
    """
    values = _entry(_shipped("devices.yaml")["stacks"], name, "stack")
    return build(Stack, {"name": name, **values}, f"stacks.{name}")


def other_constants(name: str) -> Constants:
    """The constants that another public planner uses for a device; for comparison only."""
    return build(Constants, _entry(_shipped("devices.yaml")["other_planners"], name, "device")["constants"])


def load_cluster(name: str, count: int | None = None) -> Cluster:
    """Loads a cluster: a built-in one by its name FAMILY-COUNT, such as "910a-2048", or one from a YAML file.

    A file describes one cluster (keys device, levels, count), or has such descriptions by family, as the
    shipped clusters.yaml. Devices that it names are looked up in the devices.yaml beside it, then in the
    shipped one.

    Args:
        name: FAMILY-COUNT, FAMILY with `count`, or the path of a YAML file. Of a file with several families,
            one is chosen by PATH:FAMILY or PATH:FAMILY-COUNT.
        count: Number of devices; replaces the count of the name or the file.

    Raises:
        ValueError: If the family is unknown, the count is missing, or the file is broken.
    """
    if found := _FILE.fullmatch(name):
        try:
            return _from_file(Path(found["path"]), found["family"] or "", count)
        except ConfigError as error:
            own = [
                problem if found["path"] in problem else f"{name}: {problem}" for problem in error.problems
            ]
            raise ConfigError(own) from error
    families = _shipped("clusters.yaml")
    family, number = _family_and_count(name, families)
    if number is not None:
        return _cluster(name, families[family], number if count is None else count)
    if count is None:
        raise ValueError(
            f"cluster {name!r}: write FAMILY-COUNT, as in 910a-2048 (families: {', '.join(families)}), "
            "or give the path of a YAML file"
        )
    return _cluster(f"{name}-{count}", _entry(families, name, "cluster family"), count)


def _family_and_count(name: str, families: Mapping[str, Any]) -> tuple[str, int | None]:
    """Splits FAMILY-COUNT; the count is None if the name does not end with one of a known family."""
    family, dash, number = name.rpartition("-")
    known = dash and name not in families and family in families and re.fullmatch("[0-9]{1,4000}", number)
    return (family, int(number)) if known else (name, None)


def _from_file(path: Path, name: str, count: int | None) -> Cluster:
    values, devices = read_yaml(str(path)), _devices_beside(path)
    families = bool(values) and all(
        isinstance(each, Mapping) and "levels" in each for each in values.values()
    )
    if not families:
        if name:
            raise ConfigError([f"{path}: describes one cluster and no families; leave out :{name}"])
        return _cluster(str(path), values, count, devices)
    if not name and len(values) > 1:
        raise ConfigError(
            [f"{path}: describes {', '.join(values)}; choose one, as in {path}:{next(iter(values))}"]
        )
    family, number = _family_and_count(name or next(iter(values)), values)
    described = _entry(values, family, f"{path}: cluster family")
    shown_name = f"{path}:{name}" if name else str(path)
    return _cluster(shown_name, described, number if count is None else count, devices)


def _devices_beside(path: Path) -> Mapping[str, Any]:
    """The devices that a user describes beside a file of clusters, by name."""
    file = path.with_name("devices.yaml")
    if not file.is_file() or file == path:
        return {}
    devices = read_yaml(str(file)).get("devices", {})
    if not isinstance(devices, Mapping):
        raise ConfigError([f"{file}: devices: {quoted(devices)} must be a mapping by name"])
    return devices


def _cluster(
    name: str, values: Mapping[str, Any], count: int | None, devices: Mapping[str, Any] | None = None
) -> Cluster:
    """Builds a cluster; `devices` are the user's own, by name."""
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
    known = {**_shipped("devices.yaml")["devices"], **(devices or {})}
    described = _entry(known, device, "device")
    return Cluster(name, _build(Device, device, described, f"devices.{device}"), levels, count)
