"""Names and units of the numbers of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Units:
    """Names and units of the numbers of a run.

    Args:
        title: Title of the loss curve.
        loss: Unit of the loss, such as "nats per token".
        counted: What a sample is counted in, such as "tokens".
        per_sample: Number of these in a sample.
        operations: Floating-point operations that training on one of them takes, for the utilisation.
    """

    title: str
    loss: str
    counted: str
    per_sample: int
    operations: float

    @property
    def rate_key(self) -> str:
        """Key of the speed in metrics.jsonl, such as "tokens_per_s"."""
        return f"{self.counted.replace(' ', '_')}_per_s"

    @property
    def rate(self) -> str:
        """Unit of the speed for display, such as "tokens/s"."""
        return f"{self.counted}/s"
