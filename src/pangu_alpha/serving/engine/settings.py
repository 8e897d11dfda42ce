"""What the front tells the engine's process at its start."""

from __future__ import annotations

from dataclasses import dataclass

from pangu_alpha.config.model import NormOrder


@dataclass(frozen=True)
class EngineSettings:
    """The network to load, and the cache to make.

    Args:
        tokenizer: Path of the vocabulary; None looks beside the checkpoint.
        end_of_document: Name of the piece between documents; None takes the checkpoint's.
        device: "auto", "CPU" or "Ascend".
        slots: Rows that are computed together.
        context: Slots of a row; None is 512 on CPU and the model's own on Ascend.
        pinned: Rows for prefixes that stay.
        deterministic: Whether only graphs of fixed shape are used.
        model: Name or YAML of the network's shape, for checkpoints that do not describe themselves.
        strategy: MindSpore's strategy file, likewise.
        norm_order: See ModelConfig, likewise.
    """

    checkpoint: str
    tokenizer: str | None = None
    end_of_document: str | None = None
    device: str = "auto"
    slots: int = 8
    context: int | None = None
    pinned: int = 2
    deterministic: bool = True
    model: str | None = None
    strategy: str | None = None
    norm_order: NormOrder | None = None
