"""What the links of each level give, and which group is slower than the others of its level."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from pangu_alpha.cluster.tables.problem import ranges
from pangu_alpha.cluster_check.check import Evidence, Finding, Record
from pangu_alpha.cluster_check.setup import Level


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields rates by level and collective, the slowest group of each level, and bounds for the slowest."""
    records = evidence.records["joined"]
    for collective, why in records[0]["absent"].items():
        yield Finding(collective, f"not measured: {why}")
    for name, collectives in records[0]["levels"].items():
        groups = _groups(records, name)
        for collective, seconds in collectives.items():
            times = {
                int(size): [max(_time(records[rank], name, collective, int(size)) for rank in group)
                            for group in groups]
                for size in sorted(seconds, key=int)
            }  # fmt: skip
            yield from _rates(name, collective, times)
            yield from _bounded(evidence, f"{name}: {collective}", times, groups)


def _groups(records: Sequence[Record], level: str) -> list[tuple[int, ...]]:
    """The groups of a level, by rank; each rank has recorded its own."""
    of_rank = [tuple(each["groups"][level]) for each in records]
    found = sorted(set(of_rank))
    own = all(rank in group for rank, group in enumerate(of_rank))
    if not own or sorted(rank for group in found for rank in group) != list(range(len(records))):
        raise ValueError(f"the groups of level {level} do not hold every rank once: {found}")
    return found


def _time(record: Record, level: str, collective: str, size: int) -> float:
    return record["levels"][level][collective][str(size)]


def _rates(level: str, collective: str, times: Mapping[int, Sequence[float]]) -> Iterator[Finding]:
    for size, seconds in times.items():
        rate = size / max(seconds) / 1e9
        yield Finding(f"{level}: {collective} of {size} bytes in the slowest group, s", max(seconds))
        yield Finding(f"{level}: {collective} of {size} bytes, GB/s", round(rate, 4))


def _bounded(
    evidence: Evidence, what: str, times: Mapping[int, Sequence[float]], groups: Sequence[tuple[int, ...]]
) -> Iterator[Finding]:
    """Bounds for the slowest group, and where there are several, for how it compares with its like.

    It is compared with the lower one of the two in the middle, so that of two groups the slower one is seen.
    """
    smallest, largest = min(times), max(times)
    yield evidence.at_most(f"{what} of {smallest} bytes, s", max(times[smallest]), "latency_seconds")
    rate = largest / max(times[largest]) / 1e9
    yield evidence.at_least(f"{what} of {largest} bytes, GB/s", rate, "gigabytes")
    if len(groups) > 1:
        slowest = max(range(len(groups)), key=lambda place: times[largest][place])
        ratio = times[largest][slowest] / statistics.median_low(times[largest])
        who = f"ranks {ranges(groups[slowest])}"
        yield evidence.at_most(f"{what}: slowest group ({who}) against the median, times", ratio, "uneven")


def level_times(records: Sequence[Record], level: Level) -> dict[int, float]:
    """By bytes on a rank, the median over all ranks of an AllReduce's seconds, for calibration."""
    seconds = records[0]["levels"][level.name]["AllReduce"]
    return {
        int(size): statistics.median(_time(each, level.name, "AllReduce", int(size)) for each in records)
        for size in seconds
    }
