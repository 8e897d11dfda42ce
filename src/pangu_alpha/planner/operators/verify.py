"""Compiles a found way to split a block, and compares its collectives by kind with the modelled ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.operator_table import FoundTable
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.planner.operators.found_table import found_table, strategy_of
from pangu_alpha.planner.operators.strategies import BlockStrategy
from pangu_alpha.planner.text_tables import table
from pangu_alpha.proof.checks import traffic_check
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.graph import mindir

_LAYERS = 2  # compiled with this number and one more; the difference is what one block sends
PASSES = ("forward", "backward")


class Line(NamedTuple):
    """Calls of one kind in a step, for one block.

    Args:
        phase: "forward", "backward", "parameter" or "gradient".
        operation: "AllReduce", ...
        group: Number of devices that take part.
        bytes: Payload of a call.
        modelled: Number of calls in the model.
        compiled: Number of calls in the compiled graph.
    """

    phase: str
    operation: str
    group: int
    bytes: int
    modelled: int
    compiled: int

    @property
    def equal(self) -> bool:
        """Whether the model and the graph agree."""
        return self.modelled == self.compiled


def verify(model: ModelConfig, strategy: BlockStrategy, folder: Path, timeout: float = 1800.0) -> list[Line]:
    """Compiles a strategy for rank 0 and compares its calls with the modelled ones.

    Args:
        model: The shape that the strategy was found for.
        strategy: A strategy for MindSpore's rules, without slices.
        folder: Folder for the files of the child processes.
        timeout: Seconds for each of two compilations.

    Raises:
        DryRunError: If MindSpore refuses the strategy.
        ValueError: If the network cannot be split in this way.
    """
    found = found_table(strategy, model, "the searched model")
    plan = ParallelPlan(tp=found.devices, micro_batches=strategy.micro_batches, table=found)
    return compare(strategy, block_calls(Job(model, plan, batch_size=found.batch_size), folder, timeout))


def verify_job(job: Job, folder: Path, timeout: float = 1800.0) -> list[Line]:
    """Compiles a block of a plan that has a found table, and compares the calls of its passes.

    Stages and recompute are left out: they do not change the calls of a block, only how many blocks a rank
    has and which calls it repeats. Gradients are left out as well: they are also summed over dp, as the
    parameters' layouts determine.

    Args:
        job: The job that a dry run compiles; its plan has a table.
        folder: Folder for the files of the child processes.
        timeout: Seconds for each of two compilations.

    Raises:
        DryRunError: If MindSpore refuses the plan.
        ValueError: If the traffic of such a table is not modelled.
    """
    found, plan = job.plan.table, job.plan
    assert isinstance(found, FoundTable), "the plan has no table"
    one_stage = replace(plan, pp=1, layers_per_stage=(), recompute="none")
    strategy = strategy_of(found, job.model, job.batch_size, plan.micro_batches)
    calls = block_calls(replace(job, plan=one_stage, initialize=False), folder, timeout)
    return compare(strategy, calls, PASSES)


def compare(
    strategy: BlockStrategy,
    compiled: Mapping[tuple[str, str, int, int], int],
    phases: Container[str] | None = None,
) -> list[Line]:
    """Pairs the modelled calls with those from `block_calls`, by kind.

    Args:
        strategy: The strategy whose calls are modelled.
        compiled: Number of calls by (phase, operation, devices, payload).
        phases: Phases to compare; None means all.
    """
    modelled: Counter[tuple[str, str, int, int]] = Counter()
    for _, phase, step, times in strategy.transfers:
        modelled[phase, step.operation, step.group, round(step.bytes)] += times
    kinds = sorted(kind for kind in {*modelled, *compiled} if phases is None or kind[0] in phases)
    return [Line(*kind, modelled[kind], compiled.get(kind, 0)) for kind in kinds]


def block_calls(job: Job, folder: Path, timeout: float = 1800.0) -> dict[tuple[str, str, int, int], int]:
    """Calls of one block in a step: the number of calls by (phase, operation, devices, payload).

    Args:
        job: The job; it is compiled with two layers and with three.
        folder: Folder for the files of the child processes.
        timeout: Seconds for each of two compilations.
    """
    calls: Counter[tuple[str, str, int, int]] = Counter()
    for layers, sign in ((_LAYERS, -1), (_LAYERS + 1, 1)):
        longer = replace(job, model=replace(job.model, num_layers=layers))
        report = compile_rank(longer, 0, folder / f"{layers}_layers", timeout)
        for each, phase in traffic_check.phased(mindir.read(report.graph)):
            calls[phase, each.operation, len(each.ranks), each.bytes] += sign * each.calls
    return {kind: number for kind, number in calls.items() if number}


def lines_text(lines: list[Line]) -> str:
    """A text table with one row for every kind of call."""
    rows = [(*line, "yes" if line.equal else "no") for line in lines]
    header = ("phase", "operation", "devices", "payload", "modelled calls", "compiled calls", "equal")
    return table(header, rows, right=(2, 3, 4, 5))
