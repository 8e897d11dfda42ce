"""Compiles a rank's training step by MindSpore's Ascend partitioner, on a CPU machine, in a child process.

`compile_rank` starts the child and reads its report; run as a module, this file is the child.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pangu_alpha.config.families import Chip, unsupported
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.config.parallel import ParallelPlan, misfits, unpartitionable
from pangu_alpha.config.schema import ConfigError, build, to_mapping, validate
from pangu_alpha.files.writing import write_text
from pangu_alpha.proof.cann import dry_run_environment
from pangu_alpha.proof.stub_calls import counted, refuse_unknown

GRAPH, REPORT, _JOB = "graph.mindir", "report.json", "job.json"


class DryRunError(ValueError):
    """MindSpore refused a plan, or the child that asked it died."""


@dataclass(frozen=True)
class Job:
    """What is compiled.

    Args:
        model: The network's shape.
        plan: How it is split; every rank compiles its own graph.
        optim: Recipe.
        batch_size: Rows of one micro-batch on each data-parallel rank.
        operators: "Ascend" are those of the device; "plain" are the same functions in operators that
            have kernels on CPU as well, so that the graph can be replayed.
        seed: Of the initial values; None is that of a run that says none.
        initialize: Make the rank's initial values, too, as a new run does, so that the peak of the host's
            memory holds them. Takes as long as a run's start: minutes for a stage of 10^10 parameters.
        search: MindSpore's own strategy search instead of the sharding table.
        chip: Family of the devices: whether they have flash attention, and how overflow is noticed.
        attention_dropout: Who draws the masks of the attention weights; see config.run.RunConfig.
        patch: "module:function" that the child calls before anything is built; negative controls use it.

    Raises:
        ConfigError: The plan does not fit the model.
    """

    model: ModelConfig
    plan: ParallelPlan
    optim: OptimConfig = field(default_factory=OptimConfig)
    batch_size: int = 1
    operators: Literal["Ascend", "plain"] = "Ascend"
    seed: int | None = None
    initialize: bool = False
    search: Literal["recursive_programming", "sharding_propagation"] | None = None
    chip: Chip = "910B"
    attention_dropout: Literal["positional", "device"] = "positional"
    patch: str | None = None

    def __post_init__(self) -> None:
        validate(self)
        problems = [*misfits(self.plan, self.model), *unpartitionable(self.plan)]
        if problem := unsupported(self.model, self.chip):
            problems.append(problem)
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True)
class Slice:
    """How MindSpore lays one parameter out over the devices of a stage.

    Args:
        device_matrix: The stage's ranks, row-major, as a grid.
        tensor_map: For each dimension the axis of that grid it is cut over, counted from the last; -1 none.
        shape: Of the whole parameter.
        slice_shape: What a rank holds, before the optimizer's sharding.
        optimizer_group: Name of the group that shares the slice's rows, "" where none does.
    """

    device_matrix: tuple[int, ...]
    tensor_map: tuple[int, ...]
    shape: tuple[int, ...]
    slice_shape: tuple[int, ...]
    optimizer_group: str


@dataclass(frozen=True)
class RankReport:
    """What one rank's compilation gave.

    Args:
        rank: Its rank.
        folder: Where graph.mindir lies.
        seconds: Compilation.
        initialize_seconds: Of making the initial values; None if none were made.
        peak_mb: Largest memory of the child, MiB, before its graph is read, which training does not do.
        layouts: Every parameter, moment and gradient sum of the rank's graph by name.
        strategies: Strategy of every operator by scope.
        stub_calls: How often the child called each stub of CANN, by name; empty with a real CANN.
    """

    rank: int
    folder: Path
    seconds: float
    initialize_seconds: float | None
    peak_mb: int
    layouts: Mapping[str, Slice]
    strategies: Mapping[str, list]
    stub_calls: Mapping[str, int] = field(default_factory=dict)

    @property
    def graph(self) -> Path:
        """The rank's partitioned graph, MINDIR."""
        return self.folder / GRAPH


def compile_rank(job: Job, rank: int, folder: Path, timeout: float = 1800.0) -> RankReport:
    """Compiles one rank in a child process.

    Args:
        job: What.
        rank: Which rank of the plan's devices.
        folder: Gets rank_NNNNN/ with graph.mindir and report.json.
        timeout: Seconds after which the child is ended.

    Raises:
        DryRunError: MindSpore refused, or the child died or took too long.
        ValueError: Dry runs cannot work here; see proof.cann.
    """
    target = folder / f"rank_{rank:05d}"
    target.mkdir(parents=True, exist_ok=True)
    write_text(target / _JOB, json.dumps(to_mapping(job)))
    (target / REPORT).unlink(missing_ok=True)
    environment = dry_run_environment(rank, job.plan.devices)
    command = [sys.executable, "-m", "pangu_alpha.proof.dry_run", str(target), str(rank)]
    with (target / "log.txt").open("w") as log:
        try:
            child = subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise DryRunError(f"rank {rank}: not compiled within {timeout:.0f} s") from error
    if child.returncode or not (target / REPORT).exists():
        raise DryRunError(f"rank {rank}: {_reason(target / 'log.txt', child.returncode)}")
    report = read_report(target)
    try:
        refuse_unknown(report.stub_calls)
    except ValueError as error:
        raise DryRunError(f"rank {rank}: {error}") from error
    return report


def read_report(folder: Path) -> RankReport:
    """Reads what `compile_rank` left in a rank's folder."""
    values = json.loads((folder / REPORT).read_text("utf-8"))
    layouts = {name: Slice(**_tuples(slice_)) for name, slice_ in values.pop("layouts").items()}
    return RankReport(folder=folder, layouts=layouts, **values)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _reason(log: Path, code: int) -> str:
    """The lines of a child's log that say why it ended."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if "Error" in line and "[CRITICAL]" not in line]
    said = " | ".join(lines[starts[-1] :][:4]) if starts else " | ".join(lines[-3:])
    return f"the compilation ended with code {code}: {said} (all of it: {log})"


def main(arguments: list[str]) -> None:
    """The child: compiles the job in a folder as one rank."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rank", type=int)
    options = parser.parse_args(arguments)
    job = build(Job, json.loads((options.folder / _JOB).read_text("utf-8")))
    if job.patch:
        module, _, function = job.patch.partition(":")
        getattr(import_module(module), function)()
    _compile(job, options.rank, options.folder)


def _compile(job: Job, rank: int, folder: Path) -> None:
    from mindspore.communication import init

    from pangu_alpha.parallel.context import simulate_ascend
    from pangu_alpha.proof import private
    from pangu_alpha.proof.job_engine import JobEngine

    simulate_ascend()
    private.allow_missing_hccl()
    init()
    engine = JobEngine(job, rank)
    seconds = _seconds(engine.compile)
    initialize_seconds = _seconds(engine.initialize) if job.initialize else None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = engine.graph
    (folder / GRAPH).write_bytes(private.graph_of(step))
    report = {
        "rank": rank,
        "seconds": seconds,
        "initialize_seconds": initialize_seconds,
        "peak_mb": peak // 1024,
        "layouts": {name: asdict(_slice(row)) for name, row in step.parameter_layout_dict.items()},
        "strategies": private.strategies_of(step),
        "stub_calls": counted(),
    }
    write_text(folder / REPORT, json.dumps(report))


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _slice(row: Any) -> Slice:
    device_matrix, tensor_map, slice_shape, _, _, group, shape = row[:7]
    return Slice(tuple(device_matrix), tuple(tensor_map), tuple(shape), tuple(slice_shape), group)


if __name__ == "__main__":
    main(sys.argv[1:])
