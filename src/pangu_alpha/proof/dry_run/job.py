"""What a dry run is given and what it leaves: plain values and files, no MindSpore."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pangu_alpha.config.families import Chip, unsupported
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.config.parallel import ParallelPlan, misfits, unpartitionable
from pangu_alpha.config.schema import ConfigError, validate
from pangu_alpha.parallel.table_fit import unfit

Search = Literal["recursive_programming", "sharding_propagation"]
AttentionDropout = Literal["positional", "device"]

GRAPH, REPORT, JOB = "graph.mindir", "report.json", "job.json"


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
    search: Search | None = None
    chip: Chip = "910B"
    attention_dropout: AttentionDropout = "positional"
    patch: str | None = None

    def __post_init__(self) -> None:
        validate(self)
        problems = [*misfits(self.plan, self.model), *unpartitionable(self.plan)]
        if problem := unsupported(self.model, self.chip):
            problems.append(problem)
        problems = problems or [*unfit(self.plan, self.model, self.batch_size)]
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


def read_report(folder: Path) -> RankReport:
    """Reads what `compile_rank` left in a rank's folder."""
    values = json.loads((folder / REPORT).read_text("utf-8"))
    layouts = {name: Slice(**_tuples(slice_)) for name, slice_ in values.pop("layouts").items()}
    return RankReport(folder=folder, layouts=layouts, **values)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
