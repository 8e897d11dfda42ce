"""Compares a device's memory in the graph of a dry run with the planner's formulas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pangu_alpha.planner.cost.hardware import load_stack
from pangu_alpha.planner.cost.job import Job as PlannedJob
from pangu_alpha.planner.cost.memory import kept_bytes, state_bytes
from pangu_alpha.planner.cost.shapes import Shape
from pangu_alpha.planner.cost.software import software_of
from pangu_alpha.planner.text_tables import table
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.dry_run.report import RankSummary

_STACK = "pangu-alpha"


def memory_text(summaries: Sequence[RankSummary], job: Job) -> str:
    """Shows rows for each rank: weights and moments to the byte, and what is kept for the backward pass.

    Args:
        summaries: One rank of each stage to show.
    """
    rows = [row for each in summaries for row in _rows(each, job)]
    header = ("stage", "bytes of", "a micro-batch", "in the graph", "by formula", "difference")
    text = table(header, rows, right=range(2, 6))
    heading = "Memory: what a rank holds, and keeps at most for the backward pass, in the graph's order"
    if job.plan.table is not None:
        heading += "\n(the formula of activations is that of the hand-made table, not of the found one)"
    return f"{heading}\n{text}"


def _rows(summary: RankSummary, job: Job) -> Iterator[tuple[object, ...]]:
    exact = dict(zip(("weights", "moments"), state_bytes(job.model, job.plan, summary.stage), strict=True))
    for name, expected in exact.items():
        yield _row(summary, name, "", summary.bytes[name], expected)
    batch = job.batch_size * job.plan.dp * job.plan.micro_batches
    planned = PlannedJob.of(Shape.of(job.model), job.plan, batch)
    stack = software_of(load_stack(_STACK), job.model, job.chip)
    for name, kept in kept_bytes(planned, summary.stage, stack).items():
        one = f"{summary.kept.micro_batch[name]:,.0f}"
        yield _row(summary, name, one, summary.kept.peak[name], kept)


def _row(summary: RankSummary, name: str, one: str, found: int, expected: float) -> tuple[object, ...]:
    difference = "equal" if found == round(expected) else f"{expected / found - 1:+.2%}" if found else "-"
    return summary.stage, name, one, f"{found:,}", f"{expected:,.0f}", difference
