"""Whether generation token by token gives what one pass over the text gives."""

from __future__ import annotations

from collections.abc import Iterator

from pangu_alpha.cluster_check.check import Evidence, Finding


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields the difference of logits for every type, and how often both choose the same token."""
    for dtype, found in evidence.one("device")["types"].items():
        value = float("nan") if found["difference"] is None else found["difference"]
        yield evidence.at_most(f"{dtype}: logits, in units of the largest", value, f"{dtype} logits")
        yield Finding(
            f"{dtype}: places where both choose the same token", f"{100 * found['same choice']:.0f} %"
        )
