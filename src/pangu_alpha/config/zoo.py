"""The shipped models by name: shape, tokenizer conventions, recipe and what is published about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.model_families import not_pangu
from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.config.schema import ConfigError, build, merge, nearest, read_yaml, to_mapping

MODEL_NAMES = ("tiny", "350m", "2_6b", "13b", "200b")


@dataclass(frozen=True)
class TokenizerCard:
    """Which vocabulary a model was trained with, and which of its ids ends a document.

    Args:
        vocabulary: "released" is the official vocab.model (40,000 pieces), "own" one made by the user.
        end_of_document: Name of the control piece between two documents. The releases disagree: the 2021
            data and generation code use <eot>, the 2023 code <pad>, the vocabulary itself offers <eod>.
    """

    vocabulary: Literal["released", "own"] = "released"
    end_of_document: str = "<eod>"


@dataclass(frozen=True)
class About:
    """What is published about a model.

    Args:
        summary: One sentence.
        parameter_count: Exact number of trained scalars.
        devices: Hardware of the published run.
        plan: Published parallel plan, or "not published".
        notes: Where the paper and the code differ, and other things to know.
    """

    summary: str
    parameter_count: int
    devices: str
    plan: str = "not published"
    notes: str = ""


@dataclass(frozen=True)
class Network:
    """What every YAML that names a model says of it.

    Args:
        model: The network's shape.
        optim: Training recipe.
    """

    model: ModelConfig
    optim: OptimConfig = field(default_factory=OptimConfig)


@dataclass(frozen=True)
class ModelCard:
    """One YAML of the zoo.

    Args:
        model: The network's shape.
        about: What is published about it.
        tokenizer: Vocabulary and id conventions.
        optim: Training recipe of the official code.
    """

    model: ModelConfig
    about: About
    tokenizer: TokenizerCard = field(default_factory=TokenizerCard)
    optim: OptimConfig = field(default_factory=OptimConfig)


def zoo_file(name: str) -> Path:
    """Path of a shipped model's YAML, in a checkout or in an installed package.

    Args:
        name: One of MODEL_NAMES.

    Raises:
        ConfigError: There is no such model.
    """
    if name not in MODEL_NAMES:
        raise ConfigError([f"model: no shipped model is called {name!r}; {nearest(name, MODEL_NAMES)}"])
    filename = f"pangu_alpha_{name}.yaml"
    checkout = Path(__file__).resolve().parents[3] / "model_zoo" / filename
    return checkout if checkout.is_file() else Path(str(resources.files("pangu_alpha.model_zoo") / filename))


def load_model_card(name: str) -> ModelCard:
    """Reads a shipped model's card.

    Args:
        name: One of MODEL_NAMES.

    Raises:
        ConfigError: There is no such model.
    """
    return build(ModelCard, read_yaml(zoo_file(name)))


def load_model_config(name: str) -> ModelConfig:
    """Reads a shipped model's shape.

    Args:
        name: One of MODEL_NAMES.

    Raises:
        ConfigError: There is no such model.
    """
    return load_model_card(name).model


def with_named_model(values: Mapping[str, Any]) -> dict[str, Any]:
    """Puts the fields of a shipped model in the place of its name; all else stays unchecked as it is.

    Args:
        values: Sections of a YAML. `model` may be a shipped model's name, or a mapping whose `base` is one;
            then that model's recipe lies under `optim`.

    Raises:
        ConfigError: There is no such model.
    """
    model, optim = values.get("model"), values.get("optim", {})
    changes = (
        {key: value for key, value in model.items() if key != "base"} if isinstance(model, Mapping) else {}
    )
    name = model.get("base") if isinstance(model, Mapping) else model
    if not isinstance(model, Mapping | str) or name is None:
        return dict(values)
    card = load_model_card(name)
    if isinstance(optim, Mapping):
        optim = merge(to_mapping(card.optim), optim)
    return {**values, "model": merge(to_mapping(card.model), changes), "optim": optim}


def load_network(model: str) -> Network:
    """Shape and recipe of what a command line calls a model.

    Args:
        model: A shipped model's name, or the path of a YAML: with the sections model and optim, as a run's
            and a card have them (others are not looked at), or of a model's fields alone.

    Raises:
        ConfigError: There is no such model or file, or it breaks a rule.
    """
    if model in MODEL_NAMES:
        values: Mapping[str, Any] = {"model": model}
    elif Path(model).is_file():
        values = read_yaml(model)
    else:
        raise ConfigError(
            [f"model: {model!r} is neither a file nor a shipped model; {nearest(model, MODEL_NAMES)}"]
        )
    sections = {key: values[key] for key in ("model", "optim") if key in values}
    sections = sections if "model" in values else {"model": values}
    if problems := list(not_pangu(sections["model"], "this command")):
        raise ConfigError(problems)
    return build(Network, with_named_model(sections))
