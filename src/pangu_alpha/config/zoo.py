"""The shipped models by name: shape, tokenizer conventions, recipe, and what is published about them."""

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
        vocabulary: "released" is the official vocab.model (40,000 pieces); "own" is one made by the user.
        end_of_document: Name of the control piece between two documents. The releases disagree: the 2021
            data and generation code use <eot>, the 2023 code <pad>, and the vocabulary itself offers <eod>.
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
        notes: Where the paper and the code differ, and other remarks.
    """

    summary: str
    parameter_count: int
    devices: str
    plan: str = "not published"
    notes: str = ""


@dataclass(frozen=True)
class Network:
    """The parts of a YAML file that describe a network: its shape and its training recipe."""

    model: ModelConfig
    optim: OptimConfig = field(default_factory=OptimConfig)


@dataclass(frozen=True)
class ModelCard:
    """One YAML file of the zoo; `optim` is the training recipe of the official code."""

    model: ModelConfig
    about: About
    tokenizer: TokenizerCard = field(default_factory=TokenizerCard)
    optim: OptimConfig = field(default_factory=OptimConfig)


def zoo_file(name: str) -> Path:
    """Returns the path of a shipped model's YAML file, in a checkout or in an installed package.

    Raises:
        ConfigError: There is no model with this name in MODEL_NAMES.
    """
    if name not in MODEL_NAMES:
        raise ConfigError([f"model: no shipped model is called {name!r}; {nearest(name, MODEL_NAMES)}"])
    filename = f"pangu_alpha_{name}.yaml"
    checkout = Path(__file__).resolve().parents[3] / "model_zoo" / filename
    return checkout if checkout.is_file() else Path(str(resources.files("pangu_alpha.model_zoo") / filename))


def load_model_card(name: str) -> ModelCard:
    """Reads the card of a shipped model.

    Raises:
        ConfigError: There is no model with this name in MODEL_NAMES.
    """
    return build(ModelCard, read_yaml(zoo_file(name)))


def load_model_config(name: str) -> ModelConfig:
    """Reads the shape of a shipped model.

    Raises:
        ConfigError: There is no model with this name in MODEL_NAMES.
    """
    return load_model_card(name).model


def with_named_model(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces the name of a shipped model by the model's fields; everything else stays unchecked as it is.

    Args:
        values: Sections of a YAML file. `model` may be a shipped model's name, or a mapping whose `base` is
            one; then the keys in `optim` override that model's recipe.

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
    """Reads shape and recipe of a model that is named on a command line.

    Args:
        model: A shipped model's name, or the path of a YAML file. The file has the sections model and optim,
            as runs and cards do (others are ignored), or only a model's fields.

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
