"""The optimizer's recipe: AdamW, learning rate, clipping and loss scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from pangu_alpha.config.schema import validate

# What the optimizer takes comes to it in float32, times factors of the bias correction.
_LEAST, _MOST = 1e-30, 1e30
_BELOW_ONE = 1.0 - 2.0**-25  # what is above is rounded to 1


@dataclass(frozen=True)
class LossScaleConfig:
    """Dynamic scaling of the loss against float16 underflow.

    Args:
        mode: "auto" is dynamic where the compute type is float16 and off elsewhere.
        initial: First scale; the official runs start at 2^32.
        factor: Divides the scale after an overflow, multiplies it after a clean window.
        window: Steps without overflow before the scale grows.

    Raises:
        ConfigError: All fields that have the wrong type or break a rule.
    """

    mode: Literal["auto", "dynamic", "off"] = "auto"
    initial: float = 2.0**32
    factor: float = 2.0
    window: int = 1000

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if self.initial < 1.0:
            yield f"initial: {self.initial} must be at least 1"
        if self.factor <= 1.0:
            yield f"factor: {self.factor} must be greater than 1"
        if self.window < 1:
            yield f"window: {self.window} must be at least 1"


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay; the defaults are the official 2021 recipe of the 2.6B.

    Args:
        learning_rate: Peak, reached at the end of the warm-up.
        end_learning_rate: Floor of the cosine.
        warmup_steps: Linear from 0; the first update has learning rate 0.
        decay_steps: Length of the cosine, counted from step 0.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        epsilon: Added to the root of the second moment.
        weight_decay: Decoupled decay; biases and norms are exempt, embedding tables are not.
        bias_correction: False is the official recipe.
        clip_norm: Largest global gradient norm.
        loss_scale: See LossScaleConfig.

    Raises:
        ConfigError: All fields that have the wrong type or break a rule.
    """

    learning_rate: float = 1e-4
    end_learning_rate: float = 1e-6
    warmup_steps: int = 2000
    decay_steps: int = 80000
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    bias_correction: bool = False
    clip_norm: float = 1.0
    loss_scale: LossScaleConfig = field(default_factory=LossScaleConfig)

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        for name in ("learning_rate", "epsilon", "clip_norm"):
            if getattr(self, name) <= 0.0:
                yield f"{name}: {getattr(self, name)} must be positive"
        for name in ("end_learning_rate", "weight_decay", "warmup_steps"):
            if getattr(self, name) < 0:
                yield f"{name}: {getattr(self, name)} must not be negative"
        if self.end_learning_rate > self.learning_rate:
            yield f"end_learning_rate: {self.end_learning_rate} is above learning_rate {self.learning_rate}"
        if self.decay_steps < 1:
            yield f"decay_steps: {self.decay_steps} must be at least 1"
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                yield f"{name}: {getattr(self, name)} must lie in [0, 1)"
            elif getattr(self, name) > _BELOW_ONE:
                yield f"{name}: {getattr(self, name)} is 1 in float32, so the moment would never change"
        for name in ("learning_rate", "epsilon", "clip_norm"):
            if 0.0 < getattr(self, name) < _LEAST or getattr(self, name) > _MOST:
                yield (
                    f"{name}: {getattr(self, name)} is beyond what the optimizer computes with, which is "
                    f"float32; it must lie in [{_LEAST}, {_MOST}]"
                )
