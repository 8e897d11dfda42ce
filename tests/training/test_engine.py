"""The engine: dropout in its steps and never in its validation, whatever operator the device has for it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from mindspore import Tensor

from pangu_alpha.config.run import build_train_config
from pangu_alpha.data.batches import Batch
from pangu_alpha.model import operators
from pangu_alpha.model.operators import ascend, dropout
from pangu_alpha.training.engine import Engine
from pangu_alpha.training.guard import make_guard
from pangu_alpha.training.schedule import update_scalars

B, S = 4, 16
FIELDS = ("input_ids", "labels", "loss_mask", "position_ids", "document_ids")


@pytest.fixture
def engine_of(cpu, settings):
    """Makes the engine of a small network with the given rate of dropout."""

    def make(rate, **optim):
        values = copy.deepcopy(settings)
        values["optim"] |= optim
        values["model"] |= {"num_layers": 2, "dropout": rate}
        values["parallel"] = {"micro_batches": 1}
        engine = Engine(build_train_config(values))
        engine.initialize()
        return engine

    return make


def batch():
    random = np.random.default_rng(0)
    ids, labels = random.integers(7, 60, (2, B, S)).astype(np.int32)
    positions, documents = np.tile(np.arange(S, dtype=np.int32), (B, 1)), np.zeros((B, S), np.int32)
    mask = np.ones((B, S), np.float32)
    fields = dict(zip(FIELDS, (ids, labels, mask, positions, documents), strict=True))
    return Batch(fields, mask.sum(1), np.zeros(B, np.int32))


def first_step(engine):
    """Loss of a step at place 0, whose learning rate is 0, so that the weights stay as they are."""
    config = engine.config
    return engine.step(0, [batch()], make_guard(config.run.guard, config.optim.loss_scale, "float32")).loss


@pytest.fixture(scope="module")
def undropped():
    """What evaluation and a step give without dropout, by whether the kernels of our own compute."""
    return {}


@pytest.mark.parametrize("kernel", [ascend.AttentionDropout, dropout.AttentionDropout, None])
def test_steps_drop_and_validation_does_not(engine_of, undropped, monkeypatch, kernel):
    if kernel is not None:  # ascend's has one on CPU, too
        monkeypatch.setattr(operators, "library", lambda: None)
        monkeypatch.setitem(operators._FAST["CPU"], "attention_dropout", kernel)
    native = kernel is None
    if native not in undropped:
        plain = engine_of(0.0)
        undropped[native] = plain.evaluate([batch()]), first_step(plain)
    engine, (expected, without) = engine_of(0.5), undropped[native]
    assert engine.evaluate([batch()]) == expected
    assert without == pytest.approx(expected["validation_loss"], rel=1e-6)
    assert abs(first_step(engine) - without) > 1e-3
    assert engine.evaluate([batch()]) == engine.evaluate([batch()]) == expected


def test_the_bias_correction_counts_applied_updates(engine_of, monkeypatch):
    engine, fed = engine_of(0.0, bias_correction=True), []

    def step(inputs, scale, largest, recipe, before_update):
        fed.append(recipe.asnumpy())
        return np.zeros(B, np.float32), Tensor(1.0), Tensor(True)

    monkeypatch.setattr(engine, "_step", step)
    guard = make_guard(engine.config.run.guard, engine.config.optim.loss_scale, "float16")
    engine.step(5, [batch()], guard)
    guard.observe(np.inf, False)
    engine.step(6, [batch()], guard)
    scalars = [update_scalars(5, engine.config.optim), update_scalars(6, engine.config.optim, skipped=1)]
    np.testing.assert_array_equal(fed, np.float32([[*vars(each).values()] for each in scalars]))
    assert scalars[0].epsilon == scalars[1].epsilon  # both are the sixth applied update
