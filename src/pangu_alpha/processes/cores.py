"""How many processors this process may use, by its affinity and by the CPU quotas of its control groups.

A container with `--cpus 2` sees all processors of its machine. Threads beyond the quota would spend it while
they wait for each other, and the system would then stop all of them for the rest of a period.
"""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Number of processors, a quota's fraction rounded up.

    Args:
        root: Folder of `proc` and `sys`.
    """
    allowed = [len(os.sched_getaffinity(0)), *map(math.ceil, _quotas(root))]
    return max(1, min(allowed))


def _quotas(root: Path) -> list[float]:
    """Processors of every quota that holds for this process: of its group, and of those around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:  # no Linux with control groups
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += [_second_version(each) for each in _around(root / "sys/fs/cgroup", path)]
        elif "cpu" in controllers.split(","):
            for mounted in {"cpu", controllers}:
                found += [_first_version(each) for each in _around(root / "sys/fs/cgroup" / mounted, path)]
    return [each for each in found if each is not None]


def _around(mounted: Path, path: str) -> list[Path]:
    """Folders of a group and of all groups around it.

    In a container the path may be that of the machine, of which only the container's own group is mounted:
    then it alone exists.
    """
    group = mounted / path.lstrip("/")
    return [group, *(each for each in group.parents if each == mounted or mounted in each.parents)]


def _second_version(group: Path) -> float | None:
    """Of `cpu.max`: "150000 100000" is one processor and a half, "max 100000" no quota."""
    words = _words(group / "cpu.max")
    return _ratio(words[0], words[1]) if len(words) == 2 else None


def _first_version(group: Path) -> float | None:
    quota, period = _words(group / "cpu.cfs_quota_us"), _words(group / "cpu.cfs_period_us")
    return _ratio(quota[0], period[0]) if quota and period else None


def _ratio(quota: str, period: str) -> float | None:
    """Processors; None for "max" and -1, which are no quota."""
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").split()
    except OSError:  # the root group has no such file
        return []
