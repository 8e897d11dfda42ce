"""One training run: the model, its data, its recipe, and how long and where it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pangu_alpha.config.data import DataConfig
from pangu_alpha.config.families import Chip
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.model_families import FAMILIES
from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.config.parallel import ParallelPlan, misfits, unpartitionable
from pangu_alpha.config.schema import (
    ConfigError,
    PathText,
    build,
    each_override,
    merge,
    read_yaml,
    validate,
    without_keys,
)
from pangu_alpha.config.zoo import load_model_config, with_named_model


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run saves itself, and which of its checkpoints stay.

    Args:
        every: Steps between two checkpoints.
        keep_last: How many of the newest stay.
        keep_every: Checkpoints whose step is a multiple of this stay for ever; None keeps none so.
        background: Write while the training goes on. Costs a copy of weights and optimizer state in the
            host's memory.
        storage: Where a partitioned run's ranks save: "shared" storage that all see, or "local" to each
            node, which only the same plan on the same nodes resumes from.

    Raises:
        ConfigError: All fields that have the wrong type or break a rule.
    """

    every: int = 1000
    keep_last: int = 2
    keep_every: int | None = None
    background: bool = True
    storage: Literal["shared", "local"] = "shared"

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        for name in ("every", "keep_last", "keep_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name}: {value} must be at least 1"


@dataclass(frozen=True)
class GuardConfig:
    """What a run does about overflows, NaN and spikes: skip the update, count it, stop in the end.

    Args:
        spike_factor: An update whose gradient norm exceeds this times the running mean of the norm is
            skipped; None skips only norms that are not finite.
        max_skipped: The run stops with an error after this many skipped updates in a row (those that
            only lower a dynamic loss scale are not counted).

    Raises:
        ConfigError: All fields that have the wrong type or break a rule.
    """

    spike_factor: float | None = None
    max_skipped: int = 20

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if self.spike_factor is not None and self.spike_factor <= 1.0:
            yield f"spike_factor: {self.spike_factor} must be greater than 1"
        if self.max_skipped < 1:
            yield f"max_skipped: {self.max_skipped} must be at least 1"


@dataclass(frozen=True)
class RunConfig:
    """Length, batch, place and bookkeeping of a run.

    Args:
        output: Folder of checkpoints, metrics.jsonl, TensorBoard events and loss.png.
        steps: Optimizer steps in all, those before a resume included.
        batch_size: Rows of one micro-batch on each data-parallel rank.
        seed: Seeds the initialisation, the data order and the dropout masks.
        device: Device type; "auto" is Ascend where there is one, else CPU.
        chip: Family of the Ascend devices, see config.families; "auto" is the one that MindSpore finds.
            Nothing on CPU.
        resume: "auto" continues from the newest whole checkpoint in `output` if there is one, "never"
            refuses to start where one lies, anything else is the path of a checkpoint, of any form that
            has the optimizer's state.
        initial: Path of a checkpoint of any form whose weights a new run starts from, at step 0; a resume
            goes before it.
        evaluate_every: Steps between two validation perplexities; the last step always has one.
        evaluate_batches: Batches of a validation; None takes the whole set.
        check_replicas_every: Steps between two comparisons of what several ranks hold copies of; the first
            step after every start and the last step always have one. 0 compares never.
        log_every: Steps between two lines on the console; metrics.jsonl gets every step.
        attention_dropout: Who draws the masks of the attention weights: "positional" gives any plan, and a
            run that was resumed, the masks of one process never stopped; "device" is Ascend's own kernel,
            which moves fewer bytes and repeats nothing.
        tensorboard: Write TensorBoard events beside metrics.jsonl.
        peak_tflops: Peak of one device for the model FLOPs utilisation, 10^12 operations a second. None
            measures a matrix product on CPU and reports no utilisation on Ascend.
        checkpoint: See CheckpointConfig.
        guard: See GuardConfig.

    Raises:
        ConfigError: All fields that have the wrong type or break a rule.
    """

    output: PathText
    steps: int
    batch_size: int = 8
    seed: int = 1
    device: Literal["auto", "CPU", "Ascend"] = "auto"
    chip: Literal["auto", Chip] = "auto"
    resume: PathText = "auto"
    initial: PathText | None = None
    evaluate_every: int = 1000
    evaluate_batches: int | None = None
    check_replicas_every: int = 1000
    log_every: int = 1
    attention_dropout: Literal["positional", "device"] = "positional"
    tensorboard: bool = True
    peak_tflops: float | None = None
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        for name in (
            "steps",
            "batch_size",
            "evaluate_every",
            "evaluate_batches",
            "log_every",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name}: {value} must be at least 1"
        if self.check_replicas_every < 0:
            yield f"check_replicas_every: {self.check_replicas_every} must not be negative; 0 compares never"
        if not 0 <= self.seed < 2**31:
            yield f"seed: {self.seed} must lie in [0, 2^31)"
        for name in ("output", "resume", "initial"):
            if getattr(self, name) == "":
                yield f"{name}: must not be empty"


@dataclass(frozen=True)
class TrainConfig:
    """Everything train.py needs.

    Args:
        model: The network; in YAML a shipped model's name, or a mapping whose `base` names one. Its `family`
            says which dataclass describes it; see config.model_families.
        data: Records and mixture.
        optim: Recipe; what is left out comes from the shipped model's card.
        run: Length, batch, place.
        parallel: How it is spread over devices.
    """

    model: ModelConfig
    data: DataConfig
    run: RunConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    parallel: ParallelPlan = field(default_factory=ParallelPlan)

    @property
    def samples_per_step(self) -> int:
        """Rows an optimizer step reads on all devices together."""
        return self.run.batch_size * self.parallel.dp * self.parallel.micro_batches

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every way in which the plan does not fit the model."""
        known = isinstance(self.model, tuple(FAMILIES.values()))
        if known and isinstance(self.parallel, ParallelPlan):
            yield from (f"parallel.{problem}" for problem in misfits(self.parallel, self.model))
        if isinstance(self.run, RunConfig):
            plan = self.parallel if isinstance(self.parallel, ParallelPlan) else ParallelPlan()
            modes = {plan.recompute} if isinstance(plan.recompute, str) else set(plan.recompute)
            if self.run.attention_dropout == "device" and modes != {"none"}:
                yield (
                    "run.attention_dropout: 'device' draws another mask where parallel.recompute computes "
                    "again; leave recompute out, or say positional"
                )
            samples = self.run.steps * self.run.batch_size * plan.dp * plan.micro_batches
            if samples >= 2**63:
                yield f"run.steps: these would read {samples:,} samples, which are counted up to 2^63 - 1"


def load_train_config(
    path: str, overrides: Sequence[str] = (), run: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Reads a run's YAML, lays `key=value` overrides over it, one by one, and checks the whole.

    Args:
        path: YAML file with the sections model, data, run, optim and parallel.
        overrides: Words such as "optim.learning_rate=1e-3".
        run: Keys of the section run, as plain values; they win over the overrides.

    Raises:
        ConfigError: Every problem of file and overrides.
    """
    values = read_yaml(path)
    for change in [*each_override(overrides), *([{"run": run}] if run else [])]:
        if isinstance(values.get("model"), str) and isinstance(change.get("model"), Mapping):
            values = {**values, "model": {"base": values["model"]}}
        if problems := list(without_keys(values, change)):
            raise ConfigError(problems)
        values = merge(values, change)
    return build_train_config(values)


def build_train_config(values: Mapping[str, Any]) -> TrainConfig:
    """Makes a TrainConfig from a nested mapping, resolving a shipped model's name.

    Raises:
        ConfigError: Every problem found.
    """
    try:
        values = with_named_model(values) if isinstance(values, Mapping) else values
    except ConfigError as error:
        problems = list(error.problems)
    else:
        return build(TrainConfig, values)
    try:  # the rest is checked against some model, so that all problems come out at once
        build(TrainConfig, {**values, "model": load_model_config("tiny")})
    except ConfigError as error:
        problems.extend(error.problems)
    raise ConfigError(problems)


def unrunnable(config: TrainConfig, partitioned: bool) -> Iterator[str]:
    """Yields why no process would train, beyond what is wrong on any device.

    Args:
        config: The run.
        partitioned: Whether MindSpore partitions it: on several Ascend devices; else each holds all.
    """
    if not partitioned:
        if config.run.checkpoint.storage == "local":
            yield (
                "run.checkpoint.storage: 'local' is for runs that MindSpore partitions; here rank 0 saves "
                "for all, and all resume from that: give an output folder that they share"
            )
        return
    yield from (f"parallel.{problem}" for problem in unpartitionable(config.parallel))
    if config.data.validation:
        yield (
            "data.validation: a run that MindSpore partitions has no validation; leave it out "
            "(data.validation=null) and evaluate the checkpoints"
        )


def unused(config: TrainConfig, partitioned: bool) -> list[str]:
    """Keys of the plan that say something and change nothing; arguments as `unrunnable`."""
    names = ("optimizer_parallel", "recompute", "sequence_parallel", "gradient_fusion")
    default = ParallelPlan()
    changed = (name for name in names if getattr(config.parallel, name) != getattr(default, name))
    return [] if partitioned else [f"parallel.{name}" for name in changed]
