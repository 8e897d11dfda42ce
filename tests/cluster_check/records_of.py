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


def links(level, seconds_by_rank):
    """Records of the check "links" with one level: for each rank, seconds by bytes."""
    return [
        {"levels": {level: {"AllReduce": {str(size): each for size, each in seconds.items()}}}}
        for seconds in seconds_by_rank
    ]
