"""`model.family` chooses the dataclass that describes a network, wherever a configuration has a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from pangu_alpha.config import model_families
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.model_families import family_of, pangu_config, register_family
from pangu_alpha.config.schema import ConfigError, build, to_mapping, validate
from pangu_alpha.config.zoo import Network, load_model_config, load_network

SHAPE = {"vocab_size": 60, "hidden_size": 8, "num_layers": 2, "num_heads": 2}


@dataclass(frozen=True)
class Ear:
    bands: int
    family: Literal["ear"] = "ear"

    def __post_init__(self):
        validate(self)


@pytest.fixture(autouse=True)
def ear(monkeypatch):
    known = {"pangu": ModelConfig}  # whatever other tests of this process have registered
    monkeypatch.setattr(model_families, "FAMILIES", known)
    model_families.let_choose(ModelConfig, "family", known)
    register_family("ear", Ear)
    yield
    monkeypatch.undo()
    model_families.let_choose(ModelConfig, "family", model_families.FAMILIES)


def test_the_family_chooses_and_travels_with_the_configuration():
    model = build(Network, {"model": {"family": "ear", "bands": 3}}).model
    assert model == Ear(3) and family_of(model) == family_of(to_mapping(model)) == "ear"
    assert build(ModelConfig, to_mapping(model)) == model
    assert build(Network, {"model": model}).model is model


def test_pangu_alpha_is_meant_where_no_family_is_named_and_its_mapping_names_none():
    model = build(ModelConfig, SHAPE)
    assert model == build(ModelConfig, SHAPE | {"family": "pangu"}) == ModelConfig(**SHAPE)
    assert family_of(model) == family_of(to_mapping(model)) == "pangu"
    assert "family" not in to_mapping(model)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"family": "eer", "bands": 3}, "model.family: 'eer' is not known here; did you mean 'ear'"),
        ({"family": 3, "bands": 3}, "model.family: 3 is not known here; known are: pangu, ear"),
        ({"family": "ear"}, "model.bands: missing"),
        ({"family": "ear", "bands": 3, "num_heads": 2}, "model.num_heads: unknown key"),
        (SHAPE | {"bands": 3}, "model.bands: unknown key"),
    ],
)
def test_what_does_not_fit_the_family_is_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        build(Network, {"model": values})


def test_what_knows_pangu_alpha_alone_says_so(tmp_path):
    file = tmp_path / "ear.yaml"
    file.write_text("model: {family: ear, bands: 3}\n", "utf-8")
    with pytest.raises(ConfigError, match="model.family: 'ear': this command knows networks of the family"):
        load_network(str(file))
    with pytest.raises(ConfigError, match="model.family: 'ear': an export knows"):
        pangu_config({"family": "ear", "bands": 3}, "an export")
    file.write_text("model: {base: tiny, family: pangu}\n", "utf-8")
    assert load_network(str(file)).model == load_model_config("tiny")


def test_a_family_has_one_name_and_its_configuration_says_it():
    with pytest.raises(AssertionError, match="'ear' is the family of Ear"):
        register_family("ear", type("Other", (Ear,), {}))
    with pytest.raises(AssertionError, match="ModelConfig needs a field 'family' with the default 'eye'"):
        register_family("eye", ModelConfig)
