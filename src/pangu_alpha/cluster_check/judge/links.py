"""What the links of each level give, and which group is slower than the others of its level."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from pangu_alpha.cluster_check.check import Evidence, Finding, Record
from pangu_alpha.cluster_check.setup import Level


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields rates by level and collective, the slowest group of each level, and bounds for the slowest."""
    records = evidence.records["joined"]
    for name, collectives in records[0]["levels"].items():
        for collective, seconds in collectives.items():
            sizes = sorted(map(int, seconds))
            times = {size: _times(records, name, collective, size) for size in sizes}
            yield from _rates(name, collective, times)
            yield from _bounded(evidence, f"{name}: {collective}", times)


def _times(records: Sequence[Record], level: str, collective: str, size: int) -> list[float]:
    return [each["levels"][level][collective][str(size)] for each in records]


def _rates(level: str, collective: str, times: Mapping[int, Sequence[float]]) -> Iterator[Finding]:
    for size, seconds in times.items():
        rate = size / max(seconds) / 1e9
        yield Finding(f"{level}: {collective} of {size} bytes on the slowest rank, s", max(seconds))
        yield Finding(f"{level}: {collective} of {size} bytes, GB/s", round(rate, 4))


def _bounded(evidence: Evidence, what: str, times: Mapping[int, Sequence[float]]) -> Iterator[Finding]:
    smallest, largest = min(times), max(times)
    yield evidence.at_most(f"{what} of {smallest} bytes, s", max(times[smallest]), "latency_seconds")
    rate = largest / max(times[largest]) / 1e9
    yield evidence.at_least(f"{what} of {largest} bytes, GB/s", rate, "gigabytes")
    usual = statistics.median(times[largest])
    slowest = max(range(len(times[largest])), key=lambda rank: times[largest][rank])
    ratio = times[largest][slowest] / usual
    yield evidence.at_most(f"{what}: slowest rank ({slowest}) against the median, times", ratio, "uneven")


def level_times(records: Sequence[Record], level: Level) -> dict[int, float]:
    """By bytes on a rank, the median over all ranks of an AllReduce's seconds, for calibration."""
    seconds = records[0]["levels"][level.name]["AllReduce"]
    return {
        int(size): statistics.median(_times(records, level.name, "AllReduce", int(size))) for size in seconds
    }
