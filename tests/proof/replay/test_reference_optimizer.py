"""The reference's AdamW by NumPy and training's own cells: the same numbers over 50 steps."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from pangu_alpha.config.optim import LossScaleConfig, OptimConfig
from pangu_alpha.config.run import GuardConfig
from pangu_alpha.network.parameters import decayed
from pangu_alpha.proof.replay import reference_optimizer
from pangu_alpha.proof.replay.reference_optimizer import ReferenceOptimizer, learning_rate, loss_scale
from pangu_alpha.training import schedule
from pangu_alpha.training.guard import make_guard
from pangu_alpha.training.optimizer import AdamW
from pangu_alpha.training.schedule import step_controls
from pangu_alpha.training.step import Update

STEPS = 50
RECIPE = OptimConfig(1e-2, 1e-3, warmup_steps=10, decay_steps=40, epsilon=1e-6)
SHAPES = {
    "word_embedding.table": (13, 6),
    "blocks.0.attention.query.weight": (6, 6),
    "blocks.0.attention.query.bias": (6,),
    "final_norm.gamma": (6,),
    "final_norm.beta": (6,),
}


def trained(cpu, recipe, gradients, tokens, scaling):
    """Norms, applied and the last state of training's update over many steps."""
    from pangu_alpha.config.model import ModelConfig
    from pangu_alpha.model.operators import operators_for

    random = np.random.default_rng(0)
    values = {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in SHAPES.items()}
    parameters = tuple(Parameter(Tensor(value), name=name) for name, value in values.items())
    config = ModelConfig(13, 6, 2, 2, seq_length=4, dropout=0.0)
    operators = operators_for(config, "plain")
    update = Update(AdamW(parameters, recipe, decayed(config)), operators, recipe.clip_norm)
    guard = make_guard(GuardConfig(), recipe.loss_scale, "float32")
    reported = []
    for step in range(STEPS):
        controls = step_controls(step, recipe, guard, tokens, 64)
        assert controls[1] == np.float32(scaling / 64)
        inputs = tuple(Tensor(gradient * controls[1]) for gradient in gradients(step))
        count, scale, largest = map(Tensor, controls[:3])
        norm, applied = update(ms.mutable(inputs), count, scale, largest, Tensor(controls[3:]))
        reported.append((float(norm.asnumpy()), bool(applied.asnumpy())))
        guard.skipped += not reported[-1][1]
    moments = (*update.optimizer.moments1, *update.optimizer.moments2)
    return values, reported, {each.name: each.asnumpy() for each in (*update.optimizer.parameters, *moments)}


@pytest.mark.parametrize(
    ("change", "overflow"),
    [
        ({}, None),  # the official recipe: warm-up, no bias correction, clipping acts
        ({"bias_correction": True}, None),
        ({"bias_correction": True}, 7),
        ({"clip_norm": 1e3}, None),
        ({"loss_scale": LossScaleConfig("dynamic", 2.0**16), "bias_correction": True}, 3),
        ({"warmup_steps": 0, "weight_decay": 0.0}, None),
    ],
)
def test_both_compute_the_same_over_50_steps(cpu, change, overflow):
    recipe, tokens = replace(RECIPE, **change), 37.0
    scaling = 2.0**16 if "loss_scale" in change else 1.0

    def gradients(step):
        random = np.random.default_rng([1, step])
        found = [random.normal(0, 20, shape).astype(np.float32) for shape in SHAPES.values()]
        if step == overflow:
            found[1][2, 3] = 1e30
        return found

    values, reported, state = trained(cpu, recipe, gradients, tokens, scaling)
    reference = ReferenceOptimizer(recipe, values)
    scale = np.float32(loss_scale(recipe) / 64)
    for step, (norm, applied) in enumerate(reported):
        given = dict(zip(SHAPES, [each * scale for each in gradients(step)], strict=True))
        expected, done = reference.step(step, given, tokens, float(scale))
        assert applied == done == (step != overflow)
        if done:
            assert norm == pytest.approx(expected, rel=1e-5)
            assert (norm > recipe.clip_norm) == (recipe.clip_norm < 1e3)
    found = reference.state()
    assert found.keys() == state.keys()
    for name, value in found.items():
        scale_of = np.abs(value - values.get(name, 0)).max()  # what it moved
        assert scale_of > 0
        np.testing.assert_allclose(state[name], value, rtol=0, atol=1e-5 * scale_of, err_msg=name)


def test_the_first_update_of_a_warm_up_moves_moments_alone():
    optimizer = ReferenceOptimizer(RECIPE, {"a.weight": np.ones((2, 2), np.float32)})
    optimizer.step(0, {"a.weight": np.full((2, 2), 3.0, np.float32)}, 1.0, 1.0)
    assert (optimizer.parameters["a.weight"] == 1).all() and (optimizer.moments1["a.weight"] > 0).all()


def test_one_update_by_hand():
    """lr 0.1, one element: m 0.1 g, v 0.05 g^2, corrected to g and g^2, so g / |g| and decay."""
    recipe = OptimConfig(0.1, 0.1, warmup_steps=0, bias_correction=True, epsilon=1e-8, clip_norm=1e3)
    optimizer = ReferenceOptimizer(recipe, {"w": np.array([[2.0]]), "b": np.array([2.0])})
    gradient = {"w": np.array([[-8.0]]), "b": np.array([-6.0])}
    norm, applied = optimizer.step(5, gradient, tokens=2.0, scale=0.5)
    assert applied and norm == pytest.approx(10.0, rel=1e-5)
    assert optimizer.parameters["w"].item() == pytest.approx(2.0 - 0.1 * (-1 + 0.1 * 2))
    assert optimizer.parameters["b"].item() == pytest.approx(2.0 + 0.1)
    assert optimizer.moments1["w"].item() == pytest.approx(-0.8, rel=1e-5)


@pytest.mark.parametrize("warmup", [0, 10, 100])
def test_both_learning_rates_agree(warmup):
    recipe = replace(RECIPE, warmup_steps=warmup)
    for step in range(120):
        assert learning_rate(step, recipe) == pytest.approx(schedule.learning_rate(step, recipe), rel=1e-12)


def test_the_reference_shares_no_code_with_training():
    tree = ast.parse(Path(reference_optimizer.__file__).read_text("utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in modules if name.startswith("pangu_alpha")} == {"pangu_alpha.config.optim"}
