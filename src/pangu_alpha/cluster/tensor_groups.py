"""Which rank may stand on which device: the one rule of planner, rank table check and launcher.

HCCL takes any order of ranks, but a tensor parallel group sums up its parts in every layer. So all of these
groups must lie alike: each in one server; or, where a plan wants that, each in equal runs of neighbours on
several servers, as many runs for every group. Whatever else they do is a mistake in the table.
"""

from __future__ import annotations

import math

import numpy as np


def runs_of(homes: np.ndarray) -> tuple[int, np.ndarray]:
    """Looks at where the members of tensor parallel groups are.

    Args:
        homes: Number of the server (of super pods: the pod) of every member; a row is a group, its members in
            the order of their tensor coordinates. Shape: (groups, tp).

    Returns:
        Into how many runs on servers of their own most groups fall, 1 if they lie in one server; and which
        groups break the rule. Shape of the latter: (groups,).
    """
    groups, size = homes.shape
    if not groups:
        return 1, np.zeros(0, bool)
    leaves = homes[:, 1:] != homes[:, :-1]  # the neighbours between which a group changes the server
    runs = leaves.sum(axis=1) + 1
    several = np.sort(homes, axis=1)
    servers = (several[:, 1:] != several[:, :-1]).sum(axis=1) + 1
    places = np.arange(1, size)
    lengths = np.maximum(size // runs, 1)
    even = (size % runs == 0) & (leaves == (places % lengths[:, None] == 0)).all(axis=1)
    regular = even & (servers == runs)
    if not regular.any():
        return 1, np.ones(groups, bool)
    usual = int(np.bincount(runs[regular]).argmax())
    return usual, ~(regular & (runs == usual))


def lie_alike(tp: int, stride: int, devices: int, server: int) -> bool:
    """Whether tensor parallel groups keep the rule on servers that are filled one after the other.

    Args:
        tp: Ranks of a group.
        stride: Distance of neighbours in a group, counted in devices.
        devices: All devices.
        server: Devices of a server (of super pods: of a pod).
    """
    period = min(devices, math.lcm(stride * tp, server))  # beyond it everything repeats
    homes = np.arange(period).reshape(-1, tp, stride).swapaxes(1, 2).reshape(-1, tp) // server
    return not runs_of(homes)[1].any()
