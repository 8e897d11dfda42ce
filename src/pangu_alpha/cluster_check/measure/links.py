"""Time of collectives by size, on the groups of each level of links; all groups of a level work at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from mindspore.communication import create_group

from pangu_alpha.cluster_check.place import Place, World
from pangu_alpha.cluster_check.setup import levels

SIZES = {  # bytes on each rank
    "CPU": (1 << 10, 1 << 16, 1 << 20, 1 << 22),
    "Ascend": (1 << 10, 1 << 16, 1 << 20, 1 << 24, 1 << 28),
}
_REPEATS = 7


def collectives(device: str, group: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """The collectives that a device has for any group (MindSpore 2.9 on CPU: sums alone)."""
    found: dict[str, Callable[[Tensor], Tensor]] = {"AllReduce": ops.AllReduce(ops.ReduceOp.SUM, group)}
    if device == "Ascend":
        found["AllGather"] = ops.AllGather(group)
        found["ReduceScatter"] = ops.ReduceScatter(ops.ReduceOp.SUM, group)
    return found


def measure(place: Place) -> dict[str, Any]:
    """Returns, by level, collective and bytes, the seconds of this rank's group.

    Bytes are those of an AllReduce on a rank, of an AllGather in all, and of a ReduceScatter on a rank.
    """
    world = place.world
    assert world is not None
    found = {}
    for level in levels(place.setup):
        for group in level.groups(world.size):
            name = f"check_{level.name}_{group[0]}"
            if place.rank in group:
                create_group(name, list(group))
                own = name
        world.gather(np.zeros(1, np.float32))
        found[level.name] = {
            name: {
                str(size): _seconds(world, each, _sent(name, size, level.size))
                for size in SIZES[place.device]
            }
            for name, each in collectives(place.device, own).items()
        }
    return {"levels": found}


def _sent(name: str, size: int, ranks: int) -> Tensor:
    elements = size // 4 // (ranks if name == "AllGather" else 1)
    return Tensor(np.ones(max(elements - elements % ranks, ranks), np.float32))


def _seconds(world: World, collective: Callable[[Tensor], Tensor], sent: Tensor) -> float:
    """Median time of a call that all ranks begin together."""
    collective(sent)
    ms.runtime.synchronize()
    found = []
    for _ in range(_REPEATS):
        world.gather(np.zeros(1, np.float32))
        began = time.perf_counter()
        collective(sent)
        ms.runtime.synchronize()
        found.append(time.perf_counter() - began)
    return float(np.median(found))
