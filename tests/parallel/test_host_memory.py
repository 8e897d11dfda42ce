"""What a process has freed goes back to the system, also from below what it still holds."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from pangu_alpha.parallel.host_memory import give_back

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
