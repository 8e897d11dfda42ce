"""The input and output of a dry run as plain values and files; no MindSpore."""

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
    """MindSpore refused a plan, or the child process that compiled it died."""


@dataclass(frozen=True)
class Job:
    """What a dry run compiles.

    Args:
        plan: The plan; every rank compiles its own graph.
        batch_size: Rows of one micro-batch on each data-parallel rank.
        operators: "Ascend" for the device's operators; "plain" for the same functions in operators that also
            have CPU kernels, so that the graph can be replayed.
        seed: Seed of the initial values; None means a run's default.
        initialize: Whether to make the rank's initial values as well, as a new run does, so that the peak of
            the host's memory includes them. Takes as long as a run's start: minutes for a stage of 10^10
            parameters.
        search: One of MindSpore's own strategy searches; None means the sharding table.
        chip: Family of the devices: whether they have flash attention, and how overflow is detected.
        attention_dropout: What draws the masks of the attention weights; see config.run.RunConfig.
        patch: "module:function" that the child calls before it builds anything; for negative controls.

    Raises:
        ConfigError: If the plan does not fit the model.
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
        device_matrix: Shape of the grid in which the stage's ranks lie, row-major.
        tensor_map: For each dimension, the axis of that grid that cuts it, counted from the last (0); -1 for
            none.
        shape: Shape of the whole parameter.
        slice_shape: Shape of what a rank holds, before the optimizer's sharding.
        optimizer_group: Name of the group that shares the slice's rows; "" if none does.
    """

    device_matrix: tuple[int, ...]
    tensor_map: tuple[int, ...]
    shape: tuple[int, ...]
    slice_shape: tuple[int, ...]
    optimizer_group: str


@dataclass(frozen=True)
class RankReport:
    """The result of one rank's compilation.

    Args:
        folder: Folder that contains graph.mindir.
        initialize_seconds: Seconds to make the initial values; None if none were made.
        peak_mb: Peak memory of the child, in MiB, before it reads its graph (which training does not do).
        layouts: Layout of every parameter, moment and gradient sum of the rank's graph, by name.
        strategies: Strategy of every operator, by scope.
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
        """Path of the rank's partitioned graph (MINDIR)."""
        return self.folder / GRAPH


def read_report(folder: Path) -> RankReport:
    """Reads what `compile_rank` wrote to a rank's folder."""
    values = json.loads((folder / REPORT).read_text("utf-8"))
    layouts = {name: Slice(**_tuples(slice_)) for name, slice_ in values.pop("layouts").items()}
    return RankReport(folder=folder, layouts=layouts, **values)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
