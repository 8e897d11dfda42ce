"""Maps families of networks to the objectives that train them."""

from __future__ import annotations

from collections.abc import Callable

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.model_families import family_of
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.config.schema import ConfigError
from pangu_alpha.training.objective import Objective
from pangu_alpha.training.tokens import TokenObjective

MakeObjective = Callable[[TrainConfig], Objective]

_MAKERS: dict[type, MakeObjective] = {ModelConfig: TokenObjective}


def register_objective(config: type, make: MakeObjective) -> None:
    """Makes a family of networks trainable.

    Args:
        config: The family's dataclass; see config.model_families.
        make: Makes the objective of a run whose model is of this type.
    """
    _MAKERS[config] = make


def objective_of(config: TrainConfig) -> Objective:
    """Makes the objective of a run.

    Raises:
        ConfigError: No objective is registered for the family of its network.
    """
    make = _MAKERS.get(type(config.model))
    if make is None:
        raise ConfigError(
            [
                f"model.family: {family_of(config.model)!r} has no objective, so nothing trains it; its "
                "module must call training.objectives.register_objective"
            ]
        )
    return make(config)
