"""How to choose the next token, and when to stop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pangu_alpha.config.option import option
from pangu_alpha.config.schema import validate


@dataclass(frozen=True)
class SamplingConfig:
    """How to choose tokens; penalties apply first, then temperature, min-p, top-k and top-p.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    greedy: bool = option(False, "always take the likeliest token; nothing is drawn")
    temperature: float = option(
        0.8,
        "divides the penalised log-probabilities; below 1 the draws are more cautious",
        above=0,
        refusal="must be a finite number above 0; for the likeliest token use greedy",
    )
    top_k: int = option(
        0,
        "draw from the K likeliest tokens; 0 is all",
        at_least=0,
        refusal="must be at least 1, or 0 for all tokens",
        metavar="K",
    )
    top_p: float = option(
        0.9,
        "draw from the fewest likeliest tokens whose probabilities sum to P; 1 is all",
        above=0,
        at_most=1,
        refusal="must lie above 0 and not above 1",
        metavar="P",
    )
    min_p: float = option(
        0.0,
        "draw only from tokens whose probability is at least P times that of the likeliest; 0 is all",
        at_least=0,
        at_most=1,
        refusal="must lie between 0 and 1",
        metavar="P",
        omitted=True,
    )
    frequency_penalty: float = option(
        0.0, "taken off the log-probability of a token for each time that it was generated", unit="nats"
    )
    presence_penalty: float = option(
        0.0, "taken off the log-probability of a token once if it was generated at all", unit="nats"
    )
    max_new_tokens: int = option(128, "longest continuation, in tokens", at_least=1)
    seed: int = option(
        1,
        "seed of the draws; the continuation of a prompt does not depend on the prompts beside it",
        at_least=0,
    )
    stop: tuple[str, ...] = option(
        (), "text that ends the continuation, and is left out of it; the end of the document also ends it"
    )

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if "" in self.stop:
            yield "stop: holds an empty text, which would stop at once; leave it out"
        for name in ("temperature", "top_k", "top_p", "min_p"):
            default = getattr(SamplingConfig, name)
            if self.greedy and getattr(self, name) != default:
                yield f"{name}: {getattr(self, name)} has no effect with greedy; give one of the two"


def requested(temperature: float = 1.0, **settings: Any) -> SamplingConfig:
    """The settings of a request whose temperature may be 0, as in OpenAI's API.

    Temperature 0 takes the likeliest token, whatever top-p, top-k and min-p say beside it.

    Args:
        settings: Other fields of SamplingConfig; top_p is 1 if it is not among them.

    Raises:
        ConfigError: See SamplingConfig.
    """
    if temperature == 0:
        cut = ("top_p", "top_k", "min_p")
        return SamplingConfig(greedy=True, **{key: settings[key] for key in settings if key not in cut})
    return SamplingConfig(temperature=temperature, **{"top_p": 1.0, **settings})
