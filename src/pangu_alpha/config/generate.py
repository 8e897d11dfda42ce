"""How the next token is chosen, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pangu_alpha.config.schema import validate


@dataclass(frozen=True)
class SamplingConfig:
    """Choice of tokens; the order is penalties, temperature, top-k, top-p.

    Args:
        greedy: Take the likeliest token; nothing is drawn.
        temperature: Divides the penalised log-probabilities.
        top_k: Only this many of the likeliest tokens are candidates; 0 takes all.
        top_p: Only the fewest likeliest tokens whose probabilities sum to this are candidates; 1 takes all.
        frequency_penalty: Taken off a token's log-probability for every time it was generated. Unit: nats.
        presence_penalty: Taken off once if it was generated at all. Unit: nats.
        max_new_tokens: Longest continuation.
        seed: Of the random draws. What a prompt yields does not depend on the prompts beside it.
        stop: Texts that end the continuation, besides the end of the document; they are not given out.

    Raises:
        ConfigError: All fields that have the wrong type or break a rule.
    """

    greedy: bool = False
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.9
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    max_new_tokens: int = 128
    seed: int = 1
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if not 0.0 < self.temperature < math.inf:
            yield (
                f"temperature: {self.temperature} must be a finite number above 0; for the likeliest token "
                "use greedy"
            )
        if self.top_k < 0:
            yield f"top_k: {self.top_k} must be at least 1, or 0 for all tokens"
        if not 0.0 < self.top_p <= 1.0:
            yield f"top_p: {self.top_p} must lie above 0 and not above 1"
        for name in ("frequency_penalty", "presence_penalty"):
            if not -math.inf < getattr(self, name) < math.inf:
                yield f"{name}: {getattr(self, name)} must be a finite number"
        if self.max_new_tokens < 1:
            yield f"max_new_tokens: {self.max_new_tokens} must be at least 1"
        if self.seed < 0:
            yield f"seed: {self.seed} must not be negative"
        if "" in self.stop:
            yield "stop: holds an empty text, which would stop at once; leave it out"
        for name in ("temperature", "top_k", "top_p"):
            default = getattr(SamplingConfig, name)
            if self.greedy and getattr(self, name) != default:
                yield f"{name}: {getattr(self, name)} has no effect with greedy; give one of the two"
