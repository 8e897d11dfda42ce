"""The network with the weights of the official code: logits, losses, gradients, and six optimizer steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import ParameterTuple, Tensor

from pangu_alpha.checkpoint.foreign.mindspore.released import load_released, released_names
from pangu_alpha.cluster_check.measure.operators import types_of
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.config.model import ComputeType, ModelConfig
from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.model.operators import operators_for
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.network.parameters import decayed
from pangu_alpha.training.loss import BatchLoss, TokenLoss
from pangu_alpha.training.optimizer import AdamW
from pangu_alpha.training.schedule import update_scalars
from pangu_alpha.training.step import Gradients, OptimizerStep, Update

END_OF_DOCUMENT, PAD = 9, 6  # of the official code that made the arrays
STEPS = 6
# The recipe of the official steps.
RECIPE = OptimConfig(learning_rate=1e-2, end_learning_rate=1e-4, warmup_steps=3, decay_steps=10)
_SHARED_BY_SCORES = (
    "attention.dense2.bias"  # softmax ignores what all its scores share: only rounding is here
)
Arrays = Mapping[str, np.ndarray]


def measure(place: Place) -> dict[str, Any]:
    """Returns the differences from the official arrays, by type; see `Network.differences`."""
    folder = Path(place.setup.oracle)
    oracle = dict(np.load(folder / "oracle_tiny.npz"))
    training = dict(np.load(folder / "oracle_train_6_steps.npz"))
    found = {}
    for dtype in types_of(place.device):
        network = Network(oracle, dtype)
        found[dtype] = network.differences(training)
    return {"types": found}


class Network:
    """The official code's tiny network and its batch B, with one document mask.

    Args:
        oracle: The official code's arrays by name.
        dtype: Type of the matrix products.
    """

    def __init__(self, oracle: Arrays, dtype: ComputeType) -> None:
        self.oracle = oracle
        prefix = "plain/param/"
        weights = {name[len(prefix) :]: each for name, each in oracle.items() if name.startswith(prefix)}
        config = ModelConfig(1000, 64, 3, 4, seq_length=32, dropout=0.0, compute_dtype=dtype)
        self.model = PanguAlpha(config, operators=operators_for(config))
        load_released(self.model, weights)
        self.parameters = ParameterTuple(self.model.trainable_params())
        self.batch = _batch(oracle)
        self.count = float(self.batch[2].asnumpy().sum()) + 1e-5

    def differences(self, training: Arrays) -> dict[str, Any]:
        """How far logits, losses, gradients and steps are from the official ones.

        Returns:
            Logits and losses: largest differences in units of the largest number. Gradients: likewise, for
            the worst tensor. Weights after the steps: the root of the mean squared difference over that of
            the movement since the start, for the worst tensor.
        """
        return {**self._forward(), **self._backward(), **self._steps(training)}

    def _forward(self) -> dict[str, float]:
        case = "plain/B"
        ids, positions = self.batch[0], self.batch[3]
        mask = Tensor(self.oracle[f"{case}/attention_mask"].astype(np.float32))
        logits = self.model(ids, positions, mask).asnumpy()
        losses = TokenLoss(self.model)(ids, self.batch[1], positions, self.batch[4]).asnumpy()
        return {
            "logits": _relative(logits, self.oracle[f"{case}/logits"]),
            "losses": _relative(losses, self.oracle[f"{case}/per_token_loss"]),
        }

    def _backward(self) -> dict[str, float]:
        gradients, _, _ = self._gradients()(Tensor(np.float32(1)), *self.batch)
        found = {p.name: g.asnumpy() / self.count for p, g in zip(self.parameters, gradients, strict=True)}
        worst = 0.0
        for ours, (theirs, flip) in released_names(self.model.config).items():
            expected = self.oracle[f"plain/B/grad/{theirs}"]
            if not theirs.endswith(_SHARED_BY_SCORES):
                gradient = found[ours].T if flip else found[ours]
                worst = float(np.maximum(worst, _relative(gradient, expected)))
        return {"gradients": worst}

    def _gradients(self) -> Gradients:
        return Gradients(BatchLoss(TokenLoss(self.model)), self.parameters)

    def _steps(self, training: Arrays) -> dict[str, Any]:
        before = {name: each.asnumpy().copy() for name, each in self.model.parameters_and_names()}
        optimizer = AdamW(self.parameters, RECIPE, decayed(self.model.config))
        update = Update(optimizer, self.model.operators, RECIPE.clip_norm)
        step = OptimizerStep(self._gradients(), update, micro_batches=1)
        losses, norms = [], []
        for number in range(STEPS):
            one, most = Tensor(np.float32(1)), Tensor(np.float32(3e38))
            rows, norm, _ = step([self.batch], one, most, _scalars(number), lambda: None)
            losses.append(float(np.sum(rows)) / self.count)
            norms.append(float(norm.asnumpy()))
        official = [float(training["train/loss"][number]) for number in range(STEPS)]
        return {
            "steps": {"losses": losses, "official": official, "norms": norms},
            "step losses": _relative(np.array(losses), np.array(official)),
            "weights": self._moved(before, training),
        }

    def _moved(self, before: Arrays, training: Arrays) -> float:
        worst = 0.0
        after = {name: each.asnumpy() for name, each in self.model.parameters_and_names()}
        for ours, (theirs, flip) in released_names(self.model.config).items():
            if theirs.endswith(_SHARED_BY_SCORES):
                continue
            expected = training[f"train/final/{theirs}"]
            found, start = (each[ours].T if flip else each[ours] for each in (after, before))
            worst = float(
                np.maximum(worst, np.linalg.norm(found - expected) / np.linalg.norm(expected - start))
            )
        return worst


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the largest expected number; NaN if something found is not finite."""
    difference = np.abs(np.asarray(found, np.float64).ravel() - np.asarray(expected, np.float64).ravel())
    return float(difference.max() / np.abs(expected).max())


def _batch(oracle: Arrays) -> list[Tensor]:
    """input_ids, labels, loss_mask, position_ids, document_ids; [B, S] each."""
    window = oracle["plain/B/input_ids"].astype(np.int32)
    ids = window[:, :-1]
    ends = np.pad(ids[:, :-1] == END_OF_DOCUMENT, ((0, 0), (1, 0)))
    positions = oracle["plain/B/position_ids"].astype(np.int32)
    mask = (ids != PAD).astype(np.float32)
    fields = (ids, window[:, 1:], mask, positions, np.cumsum(ends, 1).astype(np.int32))
    return [Tensor(np.ascontiguousarray(field)) for field in fields]


def _scalars(step: int) -> Tensor:
    scalars = update_scalars(step, RECIPE)
    return Tensor(np.array([scalars.learning_rate, scalars.epsilon, scalars.decay], np.float32))
