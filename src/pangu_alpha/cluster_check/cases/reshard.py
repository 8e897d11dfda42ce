"""The run that changes its plan on the way, as data."""

from __future__ import annotations

from pangu_alpha.cluster_check.check import Measurement
from pangu_alpha.config.parallel import ParallelPlan

STEPS, SAVED_AFTER = 12, 6
# AdamW divides by sqrt(v) + epsilon: a small one would turn the rounding of gradients that are almost 0 into
# updates as large as any other.
EPSILON = 1e-5
GRAPHS, WHOLE, SAVED, OTHER, ALONE = "graphs", "whole", "saved", "other_plan", "one_device"


def measurements() -> tuple[Measurement, ...]:
    """A run that is not interrupted; one that is saved; and those that go on from what was saved."""
    return (
        Measurement(GRAPHS, device="", kinds=("CPU",)),
        Measurement(WHOLE, "all"),
        Measurement(SAVED, "all"),
        Measurement(OTHER, "all", title="resumed under another plan"),
        Measurement(ALONE, title="resumed on one device"),
    )


def other_plan(ranks: int) -> ParallelPlan:
    """The plan after the change: tensor parallelism if the ranks permit, else a sharded optimizer."""
    if ranks % 2 == 0:
        return ParallelPlan(dp=ranks // 2, tp=2)
    return ParallelPlan(dp=ranks, optimizer_parallel="level1", optimizer_threshold=0)
