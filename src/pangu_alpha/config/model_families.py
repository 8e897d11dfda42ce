"""Families of networks: maps `model.family` of a YAML file to the dataclass that describes the network.

The key may be left out for "pangu". network.parameters has a family's parameters, training.objectives its
objective.
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
    """What every part of the program needs from a network's configuration, whatever its family."""

    meaning: ClassVar[Mapping[str, str]]  # fields that a run must not change, and why; see ModelConfig
    compute_dtype: str  # "auto", "float32", "float16" or "bfloat16"
    activation: str  # "gelu" or "fast_gelu"
    dropout: float  # 0 if the family has none

    @property
    def parameter_count(self) -> int:
        """Number of scalars in all parameters, including those that are not trained."""

    def misfits(self, plan: ParallelPlan) -> Iterator[str]:
        """Yields one sentence for every way in which a plan does not fit (config.parallel: PanGu-alpha's)."""


def register_family(name: str, config: type) -> None:
    """Makes a family of networks known to YAML files, command lines and checkpoints.

    Args:
        name: Value of `model.family`.
        config: A frozen dataclass that implements NetworkConfig. It needs a field "family" whose default is
            the name, because a checkpoint's configuration states the family by it.
    """
    fields = {field.name: field.default for field in dataclasses.fields(config)}
    assert fields.get(KEY) == name, f"{config.__name__} needs a field {KEY!r} with the default {name!r}"
    assert FAMILIES.get(name, config) is config, f"{name!r} is the family of {FAMILIES[name].__name__}"
    FAMILIES[name] = config


def family_of(model: Any) -> str:
    """Returns the name of a network's family, from its configuration or from the mapping in a checkpoint."""
    if isinstance(model, Mapping):
        return str(model.get(KEY, PANGU))
    return getattr(model, KEY, PANGU)


def not_pangu(model: Any, who: str) -> Iterator[str]:
    """Yields a reason if something that supports only PanGu-alpha cannot take a network.

    Args:
        model: A configuration or a mapping, as for `family_of`.
        who: What cannot take it, for the message.
    """
    if (family := family_of(model)) != PANGU:
        yield f"model.{KEY}: {family!r}: {who} knows networks of the family {PANGU!r} alone"


def pangu_config(values: Any, who: str) -> ModelConfig:
    """Returns the network's configuration in a checkpoint, for code that supports only PanGu-alpha.

    Args:
        values: The mapping in the checkpoint.
        who: What needs it, for the message.

    Raises:
        ConfigError: The network is of another family, or the values break a rule.
    """
    if problems := list(not_pangu(values, who)):
        raise ConfigError(problems)
    return build(ModelConfig, values, "model")
