"""How long a training takes to its first step: once with nothing compiled before, and once again."""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

import psutil

from pangu_alpha.cluster_check.measure.timed_run import cases, logged_seconds, run_case
from pangu_alpha.cluster_check.place import Place

_CACHE = {"MS_COMPILER_CACHE_ENABLE": "1", "MS_COMPILER_CACHE_PATH": ""}


def measure(place: Place) -> dict[str, Any]:
    """Returns seconds from the start of this process: to the device in use, and of the first and later steps.

    Both measurements keep MindSpore's compiled graphs in one folder, which is empty before the first one.
    """
    started = time.time() - psutil.Process().create_time()
    os.environ.update(_CACHE | {"MS_COMPILER_CACHE_PATH": str(place.folder.parent / "graphs")})
    began = time.perf_counter()
    output = run_case(cases(place.device, 1)[0], place)
    whole = time.perf_counter() - began
    first, *others = logged_seconds(output)
    return {"started": started, "first": first, "usual": statistics.median(others), "training": whole}
