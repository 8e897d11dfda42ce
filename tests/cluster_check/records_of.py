"""Records as good ranks write them, small enough to be changed by a test."""

from __future__ import annotations

import copy

from pangu_alpha.cluster_check.check import Evidence, judged
from pangu_alpha.cluster_check.table import CHECKS

BY_NAME = {check.name: check for check in CHECKS}


def failed(name, records, device="CPU"):
    """What does not pass when a check is judged by these records."""
    check = BY_NAME[name]
    return [
        each for each in judged(check, Evidence(device, check.bounds[device], records)) if not each.passed
    ]


def machine(**changes):
    """A machine's record of the check "environment"."""
    good = {
        "host": "node01",
        "boot": "a",
        "python": "3.11.7",
        "packages": {"mindspore": {"version": "2.9.0", "required": "~=2.9.0", "met": True}},
        "ascend": {"driver": "24.1", "CANN": "9.0"},
        "devices": list(range(8)),
        "device_addresses": {},
        "rank_table": "",
        "place": None,
        "limits": {"open files": 65536},
        "memory": 64e9,
        "storage": {
            "fault": "",
            "bytes_per_second": 1e9,
            "clock_offset": 0.01,
            "rename": True,
            "lock": True,
            "free": 500e9,
        },
    }
    return copy.deepcopy(good) | changes


def storage(**changes):
    return machine()["storage"] | changes


def speed(**changes):
    """A record of the check "speed": 100 GFLOP/s for the largest product, and 10 GB/s."""
    return {
        "dtype": "float32",
        "first_call": 0.1,
        "products": {"256": 2.0 * 256**3 / 50e9, "1024": 2.0 * 1024**3 / 100e9},
        "copies": {str(1 << 20): 3 * 2**20 / 40e9, str(1 << 25): 3 * 2**25 / 10e9},
        "nothing": 1e-5,
        "host_memory": 64e9,
    } | changes


def links(level, seconds_by_rank, size=2):
    """Records of the check "links" with one level of groups of `size`: for each rank, seconds by bytes."""
    return [
        {
            "levels": {level: {"AllReduce": {str(bytes_): each for bytes_, each in seconds.items()}}},
            "groups": {level: [*range(rank - rank % size, rank - rank % size + size)]},
            "absent": {"AlltoAll": "no such kernel"},
        }
        for rank, seconds in enumerate(seconds_by_rank)
    ]


def overlap(**changes):
    """A record of the check "overlap": half of the shorter one is hidden."""
    return {"products": 8, "product": 0.02, "reduce": 0.04, "both": 0.05} | changes


def startup(**changes):
    """A record of the check "startup"."""
    return {"started": 3.0, "first": 5.0, "usual": 0.25, "training": 8.0} | changes


def plans(**changes):
    """A record of what the check "plans" predicts of three plans, in their order."""
    return {
        "cases": ["small", "middle", "large"],
        "measured": [0.1, 0.2, 0.4],
        "spread": [0.01, 0.01, 0.01],
        "predicted": {"parts": [0.08, 0.15, 0.3], "left out": [0.1, 0.21, 0.39], "steps": [0.1, 0.2, 0.4]},
        "fitted": ["matmul"],
    } | changes
