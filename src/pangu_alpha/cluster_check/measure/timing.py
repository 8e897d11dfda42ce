"""Times of work on a device, from its start to the moment when the device has finished."""

from __future__ import annotations

import time
from collections.abc import Callable

import mindspore as ms
import numpy as np


def seconds_of(work: Callable[[], object], repeats: int, least: float = 0.0) -> list[float]:
    """Times some calls of `work` one by one, after two that are not counted.

    Args:
        repeats: Number of calls.
        least: Seconds that a timing must last: as many calls as that takes are timed together.

    Returns:
        Seconds of one call each.
    """
    work()
    ms.runtime.synchronize()
    began = time.perf_counter()
    work()
    ms.runtime.synchronize()
    calls = max(1, int(np.ceil(least / max(time.perf_counter() - began, 1e-7))))
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(calls):
            work()
        ms.runtime.synchronize()
        found.append((time.perf_counter() - began) / calls)
    return found
