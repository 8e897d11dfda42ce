"""Whether the device trains as the CPU does, and a killed run ends as if it had not been killed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pangu_alpha.cluster_check.check import Evidence, Finding, Record
from pangu_alpha.cluster_check.training_run import STEPS


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields the findings about loss curves."""
    cpu, device, killed = (evidence.one(name) for name in ("cpu", "device", "killed"))
    dtype = device["dtype"]
    yield from _whole(device, "the device's run")
    difference = largest_difference(device["losses"], cpu["losses"])
    yield evidence.at_most(
        f"loss of {STEPS} steps against the CPU's, relative, {dtype}", difference, f"{dtype} loss"
    )
    first, last = cpu["losses"][0], device["losses"][-1]
    yield evidence.at_most("last loss over the first one", last / first, "learnt")
    after, saved = killed["killed_after"], killed["saved"]
    yield Finding("killed after step", after, "before the last step", 0 < after < STEPS)
    yield Finding("its newest checkpoint, of step", saved, "at least 1", saved > 0)
    yield from _whole(killed, "the killed run")
    difference = largest_difference(killed["losses"], device["losses"])
    yield evidence.at_most("loss of the killed and resumed run against the whole one", difference, "resumed")


def _whole(record: Record, whose: str) -> Iterator[Finding]:
    complete = record["steps"] == list(range(1, STEPS + 1))
    yield Finding(f"steps of {whose}", len(record["steps"]), f"1 to {STEPS}, each once", complete)


def largest_difference(found: Sequence[float], expected: Sequence[float]) -> float:
    """Largest relative difference of two curves; NaN if a number is missing or the lengths differ."""
    if len(found) != len(expected) or None in (*found, *expected):
        return float("nan")
    return max(abs(one - other) / abs(other) for one, other in zip(found, expected, strict=True))
