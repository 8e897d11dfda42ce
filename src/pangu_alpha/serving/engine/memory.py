"""How many slots a row of the cache gets, and whether cache and weights fit into memory."""

from __future__ import annotations

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.serving.engine.settings import EngineSettings

_CPU_CONTEXT = 512  # a step reads the whole cache, which at 1,024 tokens would take longer than the weights
_FLOAT32 = 4


def fitting_context(asked: int | None, model: ModelConfig, device: str) -> int:
    """The number of slots of a row.

    Raises:
        ValueError: More was asked for than the network has positions.
    """
    if asked is None:
        return min(_CPU_CONTEXT, model.seq_length) if device == "CPU" else model.seq_length
    if asked > model.seq_length:
        raise ValueError(
            f"context: {asked} tokens, but the model has positions for {model.seq_length}; give at most that"
        )
    return asked


def itemsize(model: ModelConfig, device: str) -> int:
    """Bytes of a number in the cache: float32 on a CPU, and as computed on Ascend."""
    return 2 if device != "CPU" and model.compute_dtype != "float32" else _FLOAT32


def refuse_what_does_not_fit(
    model: ModelConfig, cache: int, available: int | None, settings: EngineSettings
) -> None:
    """Compares weights and cache with the memory that is free.

    Args:
        cache: Bytes of the cache.
        available: Free bytes; None if the system does not say.

    Raises:
        ValueError: They need more; the message has the numbers.
    """
    weights = _FLOAT32 * model.parameter_count
    if available is not None and weights + cache > available:
        row = cache / (settings.slots + settings.pinned)
        raise ValueError(
            f"slots: {settings.slots} slots and {settings.pinned} pinned rows need {cache / 1e9:.2f} GB of "
            f"cache ({row / 1e6:,.0f} MB each), and the weights {weights / 1e9:.2f} GB, but only "
            f"{available / 1e9:.2f} GB of memory are free; give fewer slots or a smaller context"
        )
