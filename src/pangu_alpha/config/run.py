"""The configuration of a training run: model, data, recipe, length, and place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pangu_alpha.config.data import DataConfig
from pangu_alpha.config.families import Chip
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.model_families import FAMILIES
from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.config.option import REQUIRED, option
from pangu_alpha.config.parallel import ParallelPlan, misfits, unpartitionable
from pangu_alpha.config.precision import KEY, ONLY_CPU, MatmulPrecision
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
from pangu_alpha.config.scored_tasks import TasksConfig
from pangu_alpha.config.zoo import load_model_config, with_named_model


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run saves itself, and which of its checkpoints are kept.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    every: int = option(
        1000, "steps between two checkpoints; the last step and a signal save one, too", at_least=1
    )
    keep_last: int = option(2, "how many of the newest whole checkpoints stay", at_least=1)
    keep_every: int | None = option(
        None,
        "checkpoints whose step is a multiple of this number are never deleted; null keeps only the newest",
        at_least=1,
    )
    background: bool = option(
        True,
        "write checkpoints while the training goes on, which takes a copy of weights and moments in the "
        "memory of the host; false lets the step wait for the disk",
    )
    storage: Literal["shared", "local"] = option(
        "shared",
        "where the ranks of a plan of several NPUs save: `shared` is storage that all nodes see, `local` a "
        "disk of each node, from which only the same plan on the same nodes resumes",
        see="training.md#saving",
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class GuardConfig:
    """How a run handles overflows, NaN and spikes: it skips the update, counts it, and stops after too many.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    spike_factor: float | None = option(
        None,
        "skip an update whose gradient norm exceeds this number times the running mean of the norm; null "
        "skips only norms that are not finite",
        above=1,
    )
    max_skipped: int = option(
        20,
        "stop the run with an error after this many skipped updates in a row; those that only lower a "
        "dynamic loss scale do not count",
        at_least=1,
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class RunConfig:
    """Length, batch, place and bookkeeping of a run.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    output: PathText = option(
        REQUIRED,
        "folder of all that the run writes: checkpoints, metrics.jsonl, TensorBoard events, loss.png",
        see="training.md",
    )
    steps: int = option(REQUIRED, "optimizer steps in all, including those before a resume", at_least=1)
    batch_size: int = option(
        8,
        "sequences of one micro-batch on each data parallel rank; a step reads this number times `dp` times "
        "`micro_batches`",
        at_least=1,
    )
    seed: int = option(
        1,
        "seed of the initial values, the order of the data and the dropout masks",
        at_least=0,
        below=2**31,
    )
    device: Literal["auto", "CPU", "Ascend"] = option(
        "auto", "type of the devices; `auto` is Ascend where there is one, else CPU"
    )
    chip: Literal["auto", Chip] = option(
        "auto",
        "family of the Ascend devices: 910A (Atlas training), 910B (A2) or 910C (A3); it decides operators "
        "and how overflow is noticed; `auto` asks MindSpore",
        see="training.md#chip-families-and-overflow",
    )
    resume: PathText = option(
        "auto",
        "where a run continues: `auto` is the newest whole checkpoint of the output if there is one, `never` "
        "refuses an output that has one, and anything else is the path of a checkpoint of any form that has "
        "the state of the optimizer",
        see="training.md#beginning",
        metavar="HOW",
    )
    initial: PathText | None = option(
        None,
        "checkpoint of any form whose weights a new run starts from, at step 0; a resume goes before it",
    )
    evaluate_every: int = option(
        1000, "steps between two validations; the last step always has one", at_least=1
    )
    evaluate_batches: int | None = option(
        None, "batches of a validation; null takes the whole set", at_least=1
    )
    check_replicas_every: int = option(
        1000,
        "steps between two bitwise comparisons of the tensors that several ranks hold copies of; the first "
        "step after every start and the last step always have one; 0 never compares",
        at_least=0,
        refusal="must not be negative; 0 compares never",
        see="training.md#what-the-ranks-check-by-themselves",
    )
    log_every: int = option(
        1, "steps between two lines on the console; metrics.jsonl gets every step", at_least=1
    )
    attention_dropout: Literal["positional", "device"] = option(
        "positional",
        "who draws the dropout masks of the attention weights: `positional` gives every plan and every "
        "resumed run the masks of one uninterrupted process, `device` is the kernel of Ascend, which moves a "
        "third of the bytes and cannot repeat its masks",
        see="training.md#dropout",
    )
    float32_matmul_precision: MatmulPrecision = option(
        "highest",
        "factors of the float32 matrix products on a CPU, by the names of "
        "`torch.set_float32_matmul_precision`: `highest` leaves them as they are, `medium` rounds those of "
        "linear layers, logits and their gradients to bfloat16, which needs a processor with AVX512-BF16",
        see="kernels.md#can-products-be-computed-in-bfloat16",
    )
    tensorboard: bool = option(True, "write TensorBoard events beside metrics.jsonl")
    peak_tflops: float | None = option(
        None,
        "peak of one device, for the model FLOPs utilisation (MFU); null measures a matrix product on CPU, "
        "of the run's own precision, and reports no MFU on Ascend",
        unit="10^12 operations/s",
    )
    tasks: TasksConfig | None = option(
        None,
        "evaluation tasks to score during training, as a file or a mapping with `data`, `names`, `every`, "
        "`limit` and `batch_size`; null scores none",
        see="evaluation.md#how-do-i-score-tasks-during-training",
        metavar="YAML",
        omitted=True,
    )
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        for name in ("output", "resume", "initial"):
            if getattr(self, name) == "":
                yield f"{name}: must not be empty"


@dataclass(frozen=True)
class TrainConfig:
    """Everything that train.py needs.

    Args:
        model: The network. In YAML it is a shipped model's name, or a mapping whose `base` names one. Its
            `family` decides which dataclass describes it; see config.model_families.
        optim: The recipe; keys that are left out come from the shipped model's card.
    """

    model: ModelConfig
    data: DataConfig
    run: RunConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    parallel: ParallelPlan = field(default_factory=ParallelPlan)

    @property
    def samples_per_step(self) -> int:
        """Number of rows that all devices together read in an optimizer step."""
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
            if self.run.float32_matmul_precision != "highest":
                yield from _no_medium(self.run.device, self.model.compute_dtype if known else "auto")
            samples = self.run.steps * self.run.batch_size * plan.dp * plan.micro_batches
            if samples >= 2**63:
                yield f"run.steps: these would read {samples:,} samples, which are counted up to 2^63 - 1"


def _no_medium(device: str, compute_dtype: str) -> Iterator[str]:
    """Yields why products cannot have medium precision, as far as the configuration shows it."""
    if device == "Ascend":
        yield ONLY_CPU
    elif compute_dtype not in ("auto", "float32"):
        yield (
            f"{KEY}: 'medium' is about float32 products, but model.compute_dtype is {compute_dtype}; leave "
            "one of the two out"
        )


def load_train_config(
    path: str, overrides: Sequence[str] = (), run: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Reads a run's YAML file, applies `key=value` overrides one by one, and checks the result.

    Args:
        path: YAML file with the sections model, data, run, optim and parallel.
        overrides: Words such as "optim.learning_rate=1e-3".
        run: Keys of the section run as plain values; they take precedence over the overrides.

    Raises:
        ConfigError: Lists every problem of the file and the overrides.
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
    """Makes a TrainConfig from a nested mapping, in which the model may be a shipped model's name.

    Raises:
        ConfigError: Lists every problem found.
    """
    try:
        values = with_named_model(values) if isinstance(values, Mapping) else values
    except ConfigError as error:
        problems = list(error.problems)
    else:
        return build(TrainConfig, values)
    try:  # check the rest against any model, so that all problems are reported at once
        build(TrainConfig, {**values, "model": load_model_config("tiny")})
    except ConfigError as error:
        problems.extend(error.problems)
    raise ConfigError(problems)


def unrunnable(config: TrainConfig, partitioned: bool) -> Iterator[str]:
    """Yields why no process could train, apart from problems that any device would have.

    Args:
        partitioned: Whether MindSpore partitions the run, as on several Ascend devices; otherwise each device
            holds the whole network.
    """
    if not partitioned:
        if config.run.checkpoint.storage == "local":
            yield (
                "run.checkpoint.storage: 'local' is for runs that MindSpore partitions; here rank 0 saves "
                "for all, and all resume from that: give an output folder that they share"
            )
        return
    yield from (f"parallel.{problem}" for problem in unpartitionable(config.parallel))
    if config.run.float32_matmul_precision != "highest":
        yield ONLY_CPU
    if config.data.validation:
        yield (
            "data.validation: a run that MindSpore partitions has no validation; leave it out "
            "(data.validation=null) and evaluate the checkpoints"
        )


def unused(config: TrainConfig, partitioned: bool) -> list[str]:
    """Keys of the plan that are set but have no effect; `partitioned` as in `unrunnable`."""
    split = ("layers_per_stage", "sequence_parallel", "vocab_parallel", "table")
    names = ("optimizer_parallel", "recompute", "gradient_fusion", *split)
    default = ParallelPlan()
    changed = (name for name in names if getattr(config.parallel, name) != getattr(default, name))
    return [] if partitioned else [f"parallel.{name}" for name in changed]
