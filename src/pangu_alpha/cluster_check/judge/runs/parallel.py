"""Whether all ranks together train what one rank trains."""

from __future__ import annotations

from collections.abc import Iterator

from pangu_alpha.cluster_check.check import Evidence, Finding
from pangu_alpha.cluster_check.judge.runs.training import largest_difference
from pangu_alpha.cluster_check.training_run import STEPS


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields the findings about the loss curve; training itself compares rows and copies of weights."""
    one, together = evidence.one("one"), evidence.one("together")
    complete = together["steps"] == list(range(1, STEPS + 1))
    yield Finding("steps of all ranks together", len(together["steps"]), f"1 to {STEPS}, each once", complete)
    difference = largest_difference(together["losses"], one["losses"])
    what = f"loss of {STEPS} steps on {len(evidence.records['together'])} ranks against one, relative"
    yield evidence.at_most(what, difference, f"{together['dtype']} loss")
