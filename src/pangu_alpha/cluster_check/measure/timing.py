"""Times of work on a device, from its start to the moment when the device has finished."""

from __future__ import annotations

import time
from collections.abc import Callable

import mindspore as ms
import numpy as np

from pangu_alpha.cluster_check.place import World


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


def seconds_together(world: World, work: Callable[[], object], repeats: int) -> float:
    """The median time of a call that all ranks begin together, after one that is not counted.

    Returns:
        Seconds on this rank, from the common beginning to the moment when its device has finished.
    """
    work()
    ms.runtime.synchronize()
    found = []
    for _ in range(repeats):
        world.gather(np.zeros(1, np.float32))
        began = time.perf_counter()
        work()
        ms.runtime.synchronize()
        found.append(time.perf_counter() - began)
    return float(np.median(found))
