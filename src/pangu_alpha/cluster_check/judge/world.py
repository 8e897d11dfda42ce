"""Whether the ranks came together as they were told to."""

from __future__ import annotations

from collections.abc import Iterator

from pangu_alpha.cluster_check.check import Evidence, Finding


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields the findings about the ranks' places and about the bits that they exchanged."""
    records = evidence.records["joined"]
    fault = next((each["fault"] for each in records if each["fault"]), "")
    yield Finding("places", fault or "as started", "every rank is where it was started, once", not fault)
    sizes = sorted({each["size"] for each in records})
    yield Finding(
        "ranks that met", str(sizes)[1:-1], f"{len(records)} on every rank", sizes == [len(records)]
    )
    wrong = max(each["wrong_words"] for each in records)
    yield evidence.at_most("wrong 64-bit words among those that all ranks sent", wrong, "wrong_words")
    for line in records[0]["groups"]:
        yield Finding("groups", line)
