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


NPU_SMI_HEAD = """\
| npu-smi {version}                 Version: {version}                                             |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
"""
NPU_SMI_DEVICE = """\
| {number:<5} {name:<20}| {health:<14}| 90.2        39                0    / 0             |
| 0                         | 0000:C{number}:00.0  | 0           0    / 0         {used:5}/ {memory}         |
+===========================+===============+====================================================+
"""
NPU_SMI_PROCESSES = """\
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
| 0       0                 | 123456        | python                   | 2048                    |
"""


def npu_smi(health="OK", used=3340, memory=65536, name="910B2", version="24.1.rc1", count=8):
    """What npu-smi prints on an Atlas A2; health and memory are those of its last device."""
    good = {"health": "OK", "used": 3340, "memory": 65536, "name": name}
    last = {"health": health, "used": used, "memory": memory, "name": name}
    rows = [NPU_SMI_DEVICE.format(number=n, **(last if n == count - 1 else good)) for n in range(count)]
    return "".join([NPU_SMI_HEAD.format(version=version), *rows, NPU_SMI_PROCESSES])


def machine(**changes):
    """A machine's record of the check "environment"."""
    good = {
        "host": "node01",
        "boot": "a",
        "processor": "aarch64",
        "python": "3.11.7",
        "packages": {"mindspore": {"version": "2.9.0", "required": "~=2.9.0", "met": True}},
        "ascend": {"driver": "24.1", "CANN": "8.2.0.1.201:9.0.0"},
        "devices": list(range(8)),
        "device_addresses": {},
        "rank_table": "",
        "place": {"device": 0},
        "npu_smi": npu_smi(),
        "limits": {"open files": 65536, "processes": -1, "address space": -1},
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
