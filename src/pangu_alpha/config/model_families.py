"""Families of networks: which dataclass describes the network that `model.family` of a YAML names.

The key is left out for "pangu". What a family's parameters are is network.parameters', what it is trained on
training.objectives'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import ConfigError, build, let_choose

KEY, PANGU = "family", "pangu"
FAMILIES: dict[str, type] = {PANGU: ModelConfig}
let_choose(ModelConfig, KEY, FAMILIES)


class NetworkConfig(Protocol):
    """What all parts ask of a network's configuration, whatever its family."""

    meaning: ClassVar[Mapping[str, str]]  # fields that no run may change, and why; see ModelConfig
    compute_dtype: str  # "auto", "float32", "float16" or "bfloat16"
    activation: str  # "gelu" or "fast_gelu"
    dropout: float  # 0 where the family has none

    @property
    def parameter_count(self) -> int:
        """Scalars of all parameters, those that are not trained included."""

    def misfits(self, plan: ParallelPlan) -> Iterator[str]:
        """Yields one sentence for every way in which a plan does not fit; ModelConfig's are in parallel."""


def register_family(name: str, config: type) -> None:
    """Makes a family of networks known to YAML, command lines and checkpoints.

    Args:
        name: Value of `model.family`.
        config: A frozen dataclass as NetworkConfig, with a field "family" whose default is the name: a
            checkpoint's configuration says the family by it.
    """
    fields = {field.name: field.default for field in dataclasses.fields(config)}
    assert fields.get(KEY) == name, f"{config.__name__} needs a field {KEY!r} with the default {name!r}"
    assert FAMILIES.get(name, config) is config, f"{name!r} is the family of {FAMILIES[name].__name__}"
    FAMILIES[name] = config


def family_of(model: Any) -> str:
    """Name of a network's family, of its configuration or of the mapping that a checkpoint keeps of it."""
    if isinstance(model, Mapping):
        return str(model.get(KEY, PANGU))
    return getattr(model, KEY, PANGU)


def not_pangu(model: Any, who: str) -> Iterator[str]:
    """Yields why something that knows PanGu-alpha alone does not take a network.

    Args:
        model: As `family_of` takes it.
        who: What does not take it.
    """
    if (family := family_of(model)) != PANGU:
        yield f"model.{KEY}: {family!r}: {who} knows networks of the family {PANGU!r} alone"


def pangu_config(values: Any, who: str) -> ModelConfig:
    """The configuration that a checkpoint keeps of its network, for what knows PanGu-alpha alone.

    Args:
        values: The mapping.
        who: What asks for it.

    Raises:
        ConfigError: It is of another family, or breaks a rule.
    """
    if problems := list(not_pangu(values, who)):
        raise ConfigError(problems)
    return build(ModelConfig, values, "model")
