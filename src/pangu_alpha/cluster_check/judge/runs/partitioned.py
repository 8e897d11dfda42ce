"""Whether each plan computes on all ranks what one device computes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pangu_alpha.cluster_check.cases.plans import GRAPHS, ONE
from pangu_alpha.cluster_check.check import Evidence, Finding, Record

KINDS = ("loss", "norm", "skip", "gradient", "weight", "moment", "key_bias", "replica", "padding")
_RAN = {
    "PartitionedEngine": "training's graph, split over the devices",
    "ReplayedEngine": "the devices' graphs, rewritten for CPU",
    "Engine": "training's data-parallel graph",
}


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields for each plan the difference that is largest in units of its bound, and how the plan was run."""
    plans = {name: records[0] for name, records in evidence.records.items() if name not in (GRAPHS, ONE)}
    yield Finding("plans that were measured", len(plans), "at least 1", len(plans) > 0)
    for name, record in plans.items():
        yield _worst(evidence, name, record)
    for name, record in plans.items():
        yield from _places(evidence, name, record)
        losses = " ".join("none" if each is None else f"{each:.5f}" for each in record["losses"])
        yield Finding(f"{name}: {record['plan']}", f"{_RAN[record['by']]}; losses of one device {losses}")


def _worst(evidence: Evidence, name: str, record: Record) -> Finding:
    if missing := [kind for kind in KINDS if kind not in record["differences"]]:
        text = f"nothing compared of {', '.join(missing)}"
        return Finding(name, text, "is compared with one device", False)
    units = {kind: _units(evidence, record, kind) for kind in KINDS}
    worst = max(units, key=lambda kind: units[kind])
    value: float | str = units[worst]
    if value == math.inf:  # which JSON has no word for
        found = record["differences"][worst]["value"]
        value = f"{worst}: not finite" if found is None else f"{worst}: {found:.3g}, must be 0"
    what = f"{name}: largest difference from one device, in units of its bound"
    return Finding(what, value, "at most 1", units[worst] <= 1.0)


def _places(evidence: Evidence, name: str, record: Record) -> Iterator[Finding]:
    """Yields the differences above their bounds, and where they are largest."""
    for kind, found in record["differences"].items():
        if _units(evidence, record, kind) > 1.0:
            bound = evidence.bounds[f"{record['dtype']} {kind}"]
            yield Finding(f"{name}: {kind}, most in {found['where']} (bound {bound:g})", found["value"])


def _units(evidence: Evidence, record: Record, kind: str) -> float:
    """A difference over its bound; infinite for what is not finite, and for anything above a bound of 0."""
    value, bound = record["differences"][kind]["value"], evidence.bounds[f"{record['dtype']} {kind}"]
    if value is None or not math.isfinite(value):
        return math.inf
    if bound == 0.0:
        return math.inf if value > 0.0 else 0.0
    return value / bound
