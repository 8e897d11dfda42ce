"""Whether a run that went on under another plan ends as the run that was not interrupted."""

from __future__ import annotations

from collections.abc import Iterator

from pangu_alpha.cluster_check.cases.reshard import ALONE, OTHER, SAVED, SAVED_AFTER, STEPS, WHOLE
from pangu_alpha.cluster_check.check import Evidence, Finding
from pangu_alpha.cluster_check.judge.runs.training import largest_difference


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields the findings about the steps, losses and last weights of the runs that went on."""
    expected = evidence.one(WHOLE)
    for name, last in ((WHOLE, STEPS), (SAVED, SAVED_AFTER)):
        steps = evidence.one(name)["steps"]
        complete = steps == list(range(1, last + 1))
        yield Finding(f"steps of the run {name}", len(steps), f"1 to {last}, each once", complete)
    for name in (OTHER, ALONE):
        record, words = evidence.one(name), name.replace("_", " ")
        resumed = record["steps"] == list(range(SAVED_AFTER + 1, STEPS + 1))
        rule = f"{SAVED_AFTER + 1} to {STEPS}, each once"
        yield Finding(f"{words}: steps after the change", len(record["steps"]), rule, resumed)
        losses = largest_difference(record["losses"], expected["losses"][SAVED_AFTER:])
        dtype = record["dtype"]
        yield evidence.at_most(f"{words}: loss against the whole run, relative", losses, f"{dtype} loss")
        weights = float("nan") if record["weights"] is None else record["weights"]
        what = f"{words}: last weights, in units of their movement"
        yield evidence.at_most(what, weights, f"{dtype} weights")
        yield Finding(f"{words}: tensor that differs most", record["tensor"])
