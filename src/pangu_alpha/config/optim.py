"""The optimizer's recipe: AdamW, learning rate, clipping and loss scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from pangu_alpha.config.option import option
from pangu_alpha.config.schema import validate

# The optimizer receives these values in float32, multiplied by factors of the bias correction.
_LEAST, _MOST = 1e-30, 1e30
_BELOW_ONE = 1.0 - 2.0**-25  # larger numbers are rounded to 1 in float32


@dataclass(frozen=True)
class LossScaleConfig:
    """Dynamic scaling of the loss against float16 underflow.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    mode: Literal["auto", "dynamic", "off"] = option(
        "auto", "`auto` is dynamic where matrix products are float16, and off elsewhere"
    )
    initial: float = option(
        2.0**32, "first scale; the official runs start at 2^32, which is the default", at_least=1
    )
    factor: float = option(
        2.0, "divides the scale after an overflow, multiplies it after a clean window", above=1
    )
    window: int = option(1000, "steps without overflow before the scale grows", at_least=1)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay; the defaults are the official 2021 recipe of the 2.6B.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    learning_rate: float = option(1e-4, "peak, reached at the end of the warm-up", above=0)
    end_learning_rate: float = option(1e-6, "learning rate at the end of the cosine", at_least=0)
    warmup_steps: int = option(
        2000, "steps of the linear warm-up from 0; the first update has learning rate 0", at_least=0
    )
    decay_steps: int = option(80000, "length of the cosine in steps, counted from step 0", at_least=1)
    beta1: float = option(0.9, "decay of the first moment", at_least=0, below=1)
    beta2: float = option(0.95, "decay of the second moment", at_least=0, below=1)
    epsilon: float = option(1e-8, "added to the square root of the second moment", above=0)
    weight_decay: float = option(
        0.1, "decoupled weight decay; biases and norms are exempt, embedding tables are not", at_least=0
    )
    bias_correction: bool = option(
        False, "correct the bias of the moments as Adam does; the official recipe does not"
    )
    clip_norm: float = option(1.0, "largest global norm of the gradients", above=0)
    loss_scale: LossScaleConfig = field(default_factory=LossScaleConfig)

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if self.end_learning_rate > self.learning_rate:
            yield f"end_learning_rate: {self.end_learning_rate} is above learning_rate {self.learning_rate}"
        for name in ("beta1", "beta2"):
            if _BELOW_ONE < getattr(self, name) < 1.0:
                yield f"{name}: {getattr(self, name)} is 1 in float32, so the moment would never change"
        for name in ("learning_rate", "epsilon", "clip_norm"):
            if 0.0 < getattr(self, name) < _LEAST or getattr(self, name) > _MOST:
                yield (
                    f"{name}: {getattr(self, name)} is beyond what the optimizer computes with, which is "
                    f"float32; it must lie in [{_LEAST}, {_MOST}]"
                )
