"""What the numbers of a run are called and counted in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Units:
    """What the numbers of a run are called and counted in.

    Args:
        title: Of the drawn curve.
        loss: Of the loss, such as "nats per token".
        counted: What a sample is counted in, such as "tokens".
        per_sample: How many of them a sample has.
        operations: Floating-point operations that training on one of them takes, for the utilisation.
    """

    title: str
    loss: str
    counted: str
    per_sample: int
    operations: float

    @property
    def rate_key(self) -> str:
        """Key of the speed in metrics.jsonl: "tokens_per_s"."""
        return f"{self.counted.replace(' ', '_')}_per_s"

    @property
    def rate(self) -> str:
        """The speed's unit for people: "tokens/s"."""
        return f"{self.counted}/s"
