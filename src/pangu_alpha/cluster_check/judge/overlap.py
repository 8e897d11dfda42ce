"""How much of the communication a device hides behind products."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from pangu_alpha.cluster_check.check import Evidence, Finding, Record


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields the three times, the share that is hidden, and a bound for the two at the same time."""
    records = evidence.records["joined"]
    product, reduce, both = (_usual(records, name) for name in ("product", "reduce", "both"))
    yield Finding(f"{records[0]['products']} products alone, s", product)
    yield Finding("AllReduce over all ranks alone, s", reduce)
    yield Finding("both at the same time, s", both)
    yield Finding("share of the shorter one that the other hides", round(hidden_share(records), 3))
    ratio = both / (product + reduce)
    yield evidence.at_most("both at the same time against one after the other, times", ratio, "together")


def hidden_share(records: Sequence[Record]) -> float:
    """The time that working at the same time saves, as a share of the shorter of the two; at least 0."""
    product, reduce, both = (_usual(records, name) for name in ("product", "reduce", "both"))
    return max(product + reduce - both, 0.0) / min(product, reduce)


def _usual(records: Sequence[Record], name: str) -> float:
    """The median over all ranks, which begin together."""
    return statistics.median(each[name] for each in records)
