"""The rule for placing tensor parallel groups, shared by planner, rank table check and launcher.

HCCL accepts any order of ranks, but a tensor parallel group exchanges data in every layer. So all groups
must lie alike: each in one server; or, where a plan wants that, each divided into equal runs of neighbours
on the same number of servers. Any other arrangement is a mistake in the table.
"""

from __future__ import annotations

import math

import numpy as np


def runs_of(homes: np.ndarray) -> tuple[int, np.ndarray]:
    """Examines where the members of tensor parallel groups lie.

    Args:
        homes: Index of the server (for super pods: of the pod) of every member; a row is a group, its members
            in the order of their tensor coordinates. Shape: (groups, tp).

    Returns:
        The number of runs, each on a server of its own, into which most groups are divided, 1 if they lie in
        one server; and which groups break the rule, of shape (groups,).
    """
    groups, size = homes.shape
    if not groups:
        return 1, np.zeros(0, bool)
    leaves = homes[:, 1:] != homes[:, :-1]  # neighbours between which a group moves to another server
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
    """Whether tensor parallel groups obey the rule if servers are filled one after the other.

    Args:
        tp: Ranks of a group.
        stride: Distance between neighbours in a group, counted in devices.
        devices: Number of devices of the job.
        server: Devices of a server (for super pods: of a pod).
    """
    period = min(devices, math.lcm(stride * tp, server))  # the pattern repeats after this many devices
    homes = np.arange(period).reshape(-1, tp, stride).swapaxes(1, 2).reshape(-1, tp) // server
    return not runs_of(homes)[1].any()
