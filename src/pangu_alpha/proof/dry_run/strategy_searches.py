"""Compares three ways to get strategies: the sharding table, and MindSpore's two searches.

The searches choose every operator's split themselves, for a batch whose rows are spread over all devices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.proof.checks import traffic_check
from pangu_alpha.proof.dry_run import report
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import DryRunError, Job, Search
from pangu_alpha.proof.graph import mindir

TABLE = "table"
SEARCHES: tuple[Search, ...] = ("recursive_programming", "sharding_propagation")


@dataclass(frozen=True)
class Way:
    """The result of one way.

    Args:
        name: "table" or one of SEARCHES.
        refused: Why MindSpore refused the network; "" if it accepted it.
        wire: Bytes that rank 0 sends in a step, by phase and operation.
        bytes: Bytes of weights, moments and gradient sums that it holds.
    """

    name: str
    refused: str = ""
    seconds: float = 0.0
    strategies: tuple[report.Strategy, ...] = ()
    wire: tuple[tuple[str, float], ...] = ()
    bytes: tuple[tuple[str, int], ...] = ()


def job_for(way: str, job: Job) -> Job:
    """Returns the job as a way compiles it.

    For a search, rows are spread over all devices and none of the table's strategies is given.

    Raises:
        ValueError: If the plan has several stages, or the rows cannot be spread over all devices.
    """
    if way == TABLE:
        return job
    plan = job.plan
    if plan.pp > 1:
        raise ValueError(f"pp: {plan.pp} stages; MindSpore's searches are compared within one, use pp = 1")
    rows = job.batch_size * plan.dp
    if rows % plan.devices:
        raise ValueError(
            f"batch_size: {job.batch_size} rows on each of dp = {plan.dp} ranks are {rows}, which "
            f"{plan.devices} devices cannot share; a search reads rows on all of them: use a multiple of "
            f"{plan.tp}"
        )
    flat = replace(plan, dp=plan.devices, tp=1, sequence_parallel=False)
    search = next(each for each in SEARCHES if each == way)
    return replace(job, plan=flat, batch_size=rows // plan.devices, search=search)


def try_way(way: str, job: Job, folder: Path, timeout: float) -> Way:
    """Compiles rank 0 in one way.

    Args:
        way: "table" or one of SEARCHES.
        job: The job from `job_for`.
        folder: Folder for the child's files.
        timeout: Seconds after which the child is ended.
    """
    try:
        found = compile_rank(job, 0, folder / way, timeout)
    except DryRunError as error:
        return Way(way, refused=str(error))
    model = mindir.read(found.graph)
    wire: defaultdict[str, float] = defaultdict(float)
    for call, seen in traffic_check.observed(model, Mesh.of(job.plan), 0).items():
        wire[f"{call.phase} {call.operation}"] += seen.times * seen.wire_bytes
    return Way(
        name=way,
        seconds=found.seconds,
        strategies=tuple(report.strategies(found.strategies)),
        wire=tuple(sorted(wire.items())),
        bytes=tuple(report.held_bytes(model.parameters).items()),
    )


def side_by_side(ways: Sequence[Way]) -> Iterator[tuple[str, ...]]:
    """Yields a row for every operator: its name, and its strategies in each way ("-" for none)."""
    chosen: dict[str, dict[str, list[str]]] = {}
    for way in ways:
        for each in way.strategies:
            chosen.setdefault(each.operator, {}).setdefault(way.name, []).append(strategy_text(each))
    for operator, by_way in chosen.items():
        yield operator, *(" or ".join(by_way.get(way.name, ["-"])) for way in ways)


def strategy_text(strategy: report.Strategy) -> str:
    """Formats the parts of each input's dimensions, for example "8,1 x 1,1"."""
    return " x ".join(",".join(map(str, parts)) or "()" for parts in strategy.parts)
