"""How long a run takes to its first step, and what a second start saves."""

from __future__ import annotations

from collections.abc import Iterator

from pangu_alpha.cluster_check.check import Evidence, Finding


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields the times of a cold and a warm start; the first step and the start have bounds."""
    for name in ("cold", "warm"):
        record = evidence.one(name)
        yield evidence.at_most(f"{name}: until the device is in use, s", record["started"], "started")
        yield evidence.at_most(f"{name}: first step, s", record["first"], "first_step")
        yield Finding(f"{name}: later steps, s", record["usual"])
        compiling = record["first"] - record["usual"]
        yield Finding(f"{name}: first step beyond a later one, which is mostly compiling, s", compiling)
