"""Time of collectives by size, on the groups of each level of links; all groups of a level work at once."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.communication import create_group

from pangu_alpha.cluster_check.measure.timing import seconds_together
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.setup import levels

SIZES = {  # bytes on each rank
    "CPU": (1 << 10, 1 << 16, 1 << 20, 1 << 22),
    "Ascend": (1 << 10, 1 << 16, 1 << 20, 1 << 24, 1 << 28),
}
_REPEATS = 7
NAMES = ("AllReduce", "AllGather", "ReduceScatter", "AlltoAll", "SendReceive")
# What MindSpore 2.9 has no kernel for; a record repeats it, so that it is not missed in silence.
ABSENT = {
    "CPU": {
        "AllGather": "on CPU MindSpore 2.9 gathers in the group of all ranks alone",
        **dict.fromkeys(
            ("ReduceScatter", "AlltoAll", "SendReceive"), "MindSpore 2.9 has no such kernel on CPU"
        ),
    },
    "Ascend": {},
}


class Collective(nn.Cell):
    """One call of a collective of a group; `sent` has one dimension, of a multiple of the group's ranks."""

    def __init__(self, name: str, ranks: int, group: str) -> None:
        super().__init__()
        self.operator = {
            "AllReduce": lambda: ops.AllReduce(ops.ReduceOp.SUM, group),
            "AllGather": lambda: ops.AllGather(group),
            "ReduceScatter": lambda: ops.ReduceScatter(ops.ReduceOp.SUM, group),
            "AlltoAll": lambda: ops.AlltoAll(ranks, 0, 0, group),
        }[name]()

    def construct(self, sent: Tensor) -> Tensor:
        return self.operator(sent)


class Exchange(nn.Cell):
    """Sends a tensor to the partner in the other half of the group, and receives one of it.

    The first half sends first and the second half receives first, so that none waits for another that also
    waits.

    Args:
        place: This rank's place in its group.
        ranks: Size of the group; the last rank of an odd one has no partner.
        elements: Number of float32 that are sent.
    """

    def __init__(self, place: int, ranks: int, group: str, elements: int) -> None:
        super().__init__()
        half = ranks // 2
        self.first = place < half
        self.alone = place >= 2 * half
        partner = place + half if self.first else place - half
        if not self.alone:
            there, back = (0, 1) if self.first else (1, 0)
            self.send = ops.Send(there, partner, group)
            self.receive = ops.Receive(back, partner, [elements], ms.float32, group)

    def construct(self, sent: Tensor) -> Tensor:
        if self.alone:
            return sent
        if self.first:
            return self.receive(ops.depend(sent, self.send(sent)))
        received = self.receive(sent)
        return ops.depend(received, self.send(ops.depend(sent, received)))


def cell_of(name: str, group: str, members: tuple[int, ...], rank: int, elements: int) -> nn.Cell:
    """The cell that a rank times.

    Args:
        name: One of the keys of a record.
        elements: Number of float32 that the rank sends.
    """
    if name == "SendReceive":
        return Exchange(members.index(rank), len(members), group, elements)
    return Collective(name, len(members), group)


def measure(place: Place) -> dict[str, Any]:
    """Returns, by level, collective and bytes, the seconds of this rank's group.

    Bytes are those of an AllReduce, a ReduceScatter, an AlltoAll or a message on a rank, and of an AllGather
    in all. A message and the one back are timed together and count half.
    """
    world = place.world
    assert world is not None
    names = [name for name in NAMES if name not in ABSENT[place.device]]
    found: dict[str, Any] = {}
    groups: dict[str, list[int]] = {}
    for level in levels(place.setup):
        own = next(group for group in level.groups(world.size) if place.rank in group)
        handle = f"check_{level.name}_{own[0]}"
        create_group(handle, list(own))
        groups[level.name] = list(own)
        world.gather(np.zeros(1, np.float32))
        found[level.name] = {
            name: {str(size): _seconds(place, name, handle, own, size) for size in SIZES[place.device]}
            for name in names
        }
    return {"levels": found, "groups": groups, "absent": ABSENT[place.device]}


def _seconds(place: Place, name: str, handle: str, members: tuple[int, ...], size: int) -> float:
    assert place.world is not None
    elements = elements_of(name, size, len(members))
    sent = Tensor(np.ones(elements, np.float32))
    cell = cell_of(name, handle, members, place.rank, elements)
    seconds = seconds_together(place.world, lambda: cell(sent), _REPEATS)
    return seconds / 2 if name == "SendReceive" else seconds


def elements_of(name: str, size: int, ranks: int) -> int:
    """Number of float32 on a rank, a multiple of the group's ranks."""
    elements = size // 4 // (ranks if name == "AllGather" else 1)
    return max(elements - elements % ranks, ranks)
