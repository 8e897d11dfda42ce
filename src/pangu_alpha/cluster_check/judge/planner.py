"""Whether the planner takes the measured numbers, and what they change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pangu_alpha.cluster_check.check import Evidence, Finding

_SHOWN = ("dp", "tp", "pp", "micro_batches")


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields the best plans by the measured numbers, and where they stood by the shipped ones."""
    record = evidence.one("search")
    measured = record["plans"]["measured"]
    for name, verdict in record["verdicts"].items():
        yield Finding(f"verdict of {name}, whose numbers are used", verdict)
    yield Finding(f"plans found for {record['model']}", len(measured), "at least one", bool(measured))
    for each in measured:
        yield Finding(f"measured numbers: {_words(each['plan'])}, predicted s a step", each["seconds"])
    if (shipped := record["plans"].get("shipped")) is not None:
        yield from _against(measured, shipped)


def _against(
    measured: Sequence[Mapping[str, Any]], shipped: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    for each in shipped:
        yield Finding(f"shipped numbers: {_words(each['plan'])}, predicted s a step", each["seconds"])
    same = bool(measured and shipped) and measured[0]["plan"] == shipped[0]["plan"]
    yield Finding("best plan", "kept" if same else "changed")


def _words(plan: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {plan[name]}" for name in _SHOWN)
