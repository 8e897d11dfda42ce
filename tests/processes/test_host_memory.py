"""Freed memory goes back to the system, also from below what is still held; available memory is known."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pangu_alpha.processes.host_memory import available_bytes, give_back

ZEROS = """
import re, sys
import numpy as np
from pangu_alpha.processes.host_memory import keep_arrays_apart

def resident():
    return int(re.search("VmRSS:[^0-9]*([0-9]+) kB", open("/proc/self/status").read())[1]) * 1024

if sys.argv[1] == "apart":
    keep_arrays_apart()
np.ones(30 << 20, np.uint8)  # freed at once: from now on glibc puts smaller arrays between others
before = resident()
full = [np.ones(200_000, np.uint8) for _ in range(500)]
del full[:-1]
zeros = [np.zeros(200_000, np.uint8) for _ in range(500)]
print(resident() - before)
"""

C = ctypes.CDLL(None)
C.malloc.restype, C.malloc.argtypes, C.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]


def resident():
    """Bytes of this process that lie in memory."""
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


@pytest.mark.skipif(not hasattr(C, "malloc_trim"), reason="the C library is not glibc")
def test_freed_memory_goes_back_to_the_system():
    size, count = 10_000, 10_000
    blocks = [C.malloc(size) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    held = resident()
    for block in blocks[:-1]:  # the last one keeps the heap from shrinking
        C.free(block)
    assert resident() > held - size * count / 10
    give_back()
    assert resident() < held - size * count * 9 / 10
    C.free(blocks[-1])


@pytest.mark.skipif(not hasattr(C, "mallopt"), reason="the C library is not glibc")
@pytest.mark.parametrize(("way", "takes"), [("as it is", True), ("apart", False)])
def test_zeros_take_no_memory_until_they_are_written(way, takes):
    done = subprocess.run([sys.executable, "-c", ZEROS, way], capture_output=True, text=True, check=True)
    assert (int(done.stdout) > 50e6) == takes


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:      2000 kB\n"}, 2048000),
        ({"proc/meminfo": "MemAvailable: 2000 kB\n", "sys/fs/cgroup/memory.max": "max\n"}, 2048000),
        (
            {
                "proc/meminfo": "MemAvailable: 2000 kB\n",
                "sys/fs/cgroup/memory.max": "1000000\n",
                "sys/fs/cgroup/memory.current": "900000\n",
                "sys/fs/cgroup/memory.stat": "anon 5\ninactive_file 300000\n",
            },
            400000,
        ),
        ({"sys/fs/cgroup/memory.max": "100\n", "sys/fs/cgroup/memory.current": "900\n"}, 0),
    ],
)
def test_available_memory_is_what_the_machine_and_the_control_group_leave(tmp_path, files, expected):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert available_bytes(tmp_path) == expected


def test_this_machine_has_some_memory_left():
    assert available_bytes() is None or available_bytes() > 10**6
