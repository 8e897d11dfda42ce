"""Facts about a checkpoint that it does not record itself and the user has to add."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pangu_alpha.config.model import ModelConfig, NormOrder


@dataclass(frozen=True)
class OpenOptions:
    """Facts that the user adds to a checkpoint.

    Args:
        model: A shipped model's name, a YAML, or the shape itself.
        strategy: MindSpore's strategy file.
        norm_order: Order of the layer norms, as in ModelConfig.
        shared: Whether the options apply to several checkpoints, as in a comparison: a checkpoint that has no
            use for the strategy then ignores it.
    """

    model: str | ModelConfig | None = None
    strategy: Path | None = None
    norm_order: NormOrder | None = None
    shared: bool = False
