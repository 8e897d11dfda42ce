"""Ascend servers: how many NPUs each kind has, and which of them a job may take. Knows no rank table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """A kind of Ascend server, named after its chip.

    Args:
        devices: NPUs of a server; for 910C, dies.
        group: NPUs that are directly linked with each other; a job takes NPUs of one such group, or all NPUs.
        mirrored: A job may also take more NPUs than a group has: the same ones of every group.
        package: Dies that a job must take together, unless it takes a single one.
        powers: The number of NPUs that a job takes must be a power of two.
    """

    devices: int
    group: int
    mirrored: bool = False
    package: int = 1
    powers: bool = False


# 910A, Atlas 800 (9000): two groups of four; a job takes 1, 2, 4 or 8 NPUs. 910B, Atlas 800T A2: a full mesh
# of eight. Atlas 200T A2 Box16: two such rings; up to 8 NPUs of one, or 10, 12, 14 or 16 of both alike. 910C,
# Atlas 900 A3: eight NPUs of two dies each.
CHIPS = {
    "910A": Chip(8, 4, powers=True),
    "910B": Chip(8, 8),
    "910B-Box16": Chip(16, 8, mirrored=True),
    "910C": Chip(16, 16, package=2),
}


def likely_chip(servers: Iterable[set[int]], super_pods: bool = False) -> str:
    """Returns the name of a chip that fits a cluster's servers; the strictest one if several fit.

    Args:
        servers: Ids of each server's devices.
        super_pods: Whether the cluster has super pods, as only 910C has.
    """
    if super_pods:
        return "910C"
    second = set(range(8, 16))
    return "910B-Box16" if any(len(own) > 8 or (own and own <= second) for own in servers) else "910A"


def wrong_devices(ids: set[int], name: str) -> tuple[str, str] | None:
    """Returns what is wrong with the devices that a job takes of a server and what it may take, or None.

    Args:
        ids: Devices that the job takes of the server.
        name: A key of CHIPS.
    """
    chip = CHIPS[name]
    groups = {i // chip.group for i in ids}
    if len(groups) > 1 and len(ids) < chip.devices:
        one = f"take devices of one group (0-{chip.group - 1} or {chip.group}-{chip.devices - 1})"
        straddle = f"straddle the groups of {chip.group} that a {name} server links directly"
        if not chip.mirrored:
            return straddle, f"{one}, or all {chip.devices}"
        places = [{i % chip.group for i in ids if i // chip.group == group} for group in groups]
        if len(ids) <= chip.group or len(places[0] ^ places[1]):
            return straddle, f"{one}, or 10, 12, 14 or 16 devices: the same of both, such as 0-4 and 8-12"
    if chip.powers and len(ids) & (len(ids) - 1):
        few = f"are {len(ids)}, but a job takes 1, 2, 4 or 8 of a {name} server"
        return few, "leave some out, or add some"
    split = [i for i in ids if len(ids) > 1 and any(j not in ids for j in _package(i, chip.package))]
    if split:
        return (
            f"take parts of packages, but a {name} has {chip.package} dies in each",
            f"take both dies of a package ({_words(_package(min(split), chip.package))}), or a single one",
        )
    return None


def _package(device: int, size: int) -> range:
    first = device // size * size
    return range(first, first + size)


def _words(ids: Iterable[int]) -> str:
    return " and ".join(map(str, ids))
