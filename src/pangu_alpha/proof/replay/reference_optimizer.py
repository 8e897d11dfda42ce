"""An optimizer step in NumPy alone, written from its formulas, with which every replay is compared.

AdamW: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2, on Kingma and Ba,
"Adam" (2015), algorithm 1. Warm-up, cosine and which tensors decay: as docs/training.md describes the 2021
recipe. Imports nothing from training/, so that a fault there is on one side only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pangu_alpha.config.optim import OptimConfig


def learning_rate(step: int, optim: OptimConfig) -> float:
    """Learning rate of the update after `step` steps: a line from 0, then a cosine counted from step 0."""
    if step < optim.warmup_steps:
        return step * optim.learning_rate / optim.warmup_steps
    done = min(step / optim.decay_steps, 1.0)
    share = np.cos(0.5 * np.pi * done) ** 2  # (1 + cos(pi x)) / 2
    return float(share * optim.learning_rate + (1.0 - share) * optim.end_learning_rate)


def loss_scale(optim: OptimConfig) -> float:
    """Factor on the loss in a replay; constant, because a replay is too short to change it."""
    return optim.loss_scale.initial if optim.loss_scale.mode == "dynamic" else 1.0


class ReferenceOptimizer:
    """Parameters and moments of one device that holds everything, in float32 as in a checkpoint.

    Args:
        parameters: Initial values by name; they are copied to float32.
    """

    def __init__(self, optim: OptimConfig, parameters: Mapping[str, np.ndarray]) -> None:
        self.optim = optim
        self.parameters = {name: np.array(value, np.float32) for name, value in parameters.items()}
        self.moments1 = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        self.moments2 = {name: np.zeros_like(value) for name, value in self.parameters.items()}
        self.updates = 0  # number of applied updates

    def step(
        self, step: int, gradients: Mapping[str, np.ndarray], tokens: float, scale: float
    ) -> tuple[float, bool]:
        """Makes one update.

        Args:
            step: Number of steps done before, including skipped ones.
            gradients: Gradients of scale * (sum of -log p over the tokens that count), by name.
            tokens: Number of tokens that count.
            scale: Factor in the gradients.

        Returns:
            The norm of the mean gradient before clipping, and whether the update was applied; it is not if
                the norm overflows float32.
        """
        scaled = {name: np.asarray(value, np.float32) for name, value in gradients.items()}
        with np.errstate(over="ignore", invalid="ignore"):
            # Squares are float32 as on devices, so that one that overflows makes the step overflow here, too.
            squares = sum(np.sum(value * value, dtype=np.float64) for value in scaled.values())
            length = scale * (tokens + 1e-5)
            norm = float(np.sqrt(squares) / length)
        if not np.isfinite(norm):
            return norm, False
        self.updates += 1
        clipped = min(1.0, self.optim.clip_norm / norm) if norm > 0.0 else 1.0
        for name, value in scaled.items():
            self._update(name, value.astype(np.float64) / length * clipped, learning_rate(step, self.optim))
        return norm, True

    def _update(self, name: str, gradient: np.ndarray, rate: float) -> None:
        """Updates one tensor by AdamW, in float64."""
        optim, theta = self.optim, self.parameters[name].astype(np.float64)
        m = optim.beta1 * self.moments1[name] + (1.0 - optim.beta1) * gradient
        v = optim.beta2 * self.moments2[name] + (1.0 - optim.beta2) * gradient**2
        self.moments1[name], self.moments2[name] = m.astype(np.float32), v.astype(np.float32)
        if optim.bias_correction:
            m = m / (1.0 - optim.beta1**self.updates)
            v = v / (1.0 - optim.beta2**self.updates)
        decay = optim.weight_decay if theta.ndim > 1 else 0.0  # only matrices and tables decay
        theta -= rate * (m / (np.sqrt(v) + optim.epsilon) + decay * theta)
        self.parameters[name] = theta.astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """Parameters and moments by the names that training gives them."""
        moments1 = {f"adam_m.{name}": value for name, value in self.moments1.items()}
        moments2 = {f"adam_v.{name}": value for name, value in self.moments2.items()}
        return {**self.parameters, **moments1, **moments2}
