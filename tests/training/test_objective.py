"""Names that an objective gets wrong are named, and a plan does not split what is partly frozen."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.run import build_train_config
from pangu_alpha.config.schema import ConfigError
from pangu_alpha.parallel.world import World
from pangu_alpha.training import objectives
from pangu_alpha.training.engine import parameters_of, split_off_frozen
from pangu_alpha.training.loop import Trainer
from pangu_alpha.training.tokens import TokenObjective


class Pair(nn.Cell):
    def __init__(self):
        super().__init__()
        self.one, self.two = (Parameter(Tensor(np.zeros(3, np.float32)), name=n) for n in ("one", "two"))


def test_a_parameter_that_no_table_has_is_named(cpu):
    """It would be neither trained nor saved, and nothing would say so."""
    network = Pair()
    assert [each.name for each in parameters_of(network, {"one": (3,), "two": (3,)})] == ["one", "two"]
    with pytest.raises(AssertionError, match=r"not as in network.parameters: {'two': \(3,\)}"):
        parameters_of(network, {"one": (3,)})


@pytest.mark.parametrize(("trained", "said"), [(("one", "tow"), "parameters: tow"), ((), "nothing to train")])
def test_trained_parameters_that_are_none_are_named(cpu, trained, said):
    """A misspelled one would be frozen in silence."""
    parameters = list(Pair().get_parameters())
    assert [each.name for each in split_off_frozen(parameters, ("two",))] == ["two"]
    assert [each.requires_grad for each in parameters] == [False, True]
    with pytest.raises(AssertionError, match=said):
        split_off_frozen(parameters, trained)


class OnlyNorms(TokenObjective):
    """The network of a token objective, which MindSpore can split, most of it frozen."""

    @property
    def trained(self):
        return ("final_norm.gamma", "final_norm.beta")


def test_a_plan_does_not_split_what_is_partly_frozen(cpu, settings, monkeypatch):
    monkeypatch.setitem(objectives._MAKERS, ModelConfig, OnlyNorms)
    values = copy.deepcopy(settings)
    values["parallel"] = {"tp": 2}
    values["run"] |= {"device": "Ascend"}
    with pytest.raises(ConfigError, match="tp 2 and pp 1 would split networks .* every device holds whole"):
        Trainer(build_train_config(values), "Ascend", World())
