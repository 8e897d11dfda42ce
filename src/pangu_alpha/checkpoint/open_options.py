"""What a user says of a checkpoint that does not say it itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.config.model import ModelConfig, NormOrder


@dataclass(frozen=True)
class OpenOptions:
    """What the user adds where a checkpoint does not say it itself.

    Args:
        model: Its shape: a shipped model's name, a YAML, or the shape.
        strategy: MindSpore's strategy file.
        norm_order: As in ModelConfig.
        shared: Whether this is said of several checkpoints, as when two are compared: a strategy that one of
            them has no use for is then left aside.
    """

    model: str | ModelConfig | None = None
    strategy: Path | None = None
    norm_order: NormOrder | None = None
    shared: bool = False
