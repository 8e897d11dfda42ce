"""What a comparison of corpora is made of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pangu_alpha.config.option import REQUIRED, option
from pangu_alpha.config.schema import PathText, validate


@dataclass(frozen=True)
class CorporaConfig:
    """What is compared, and how long each network trains.

    Args:
        variants: Corpus files by the name of the variant; two.
        development: Files of the text that both are judged on.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    variants: dict[str, tuple[str, ...]]
    development: tuple[str, ...]
    output: PathText = option(
        REQUIRED, "folder for vocabulary, records, runs and figures; the same command continues what is there"
    )
    vocabulary: PathText | None = option(
        None, "vocabulary of both variants; null trains one on equal parts of both", metavar="FILE"
    )
    vocabulary_size: int = option(6000, "pieces of the vocabulary that is trained", at_least=32)
    tokens: int = option(1_000_000, "tokens that each network is trained on, repeated where a variant is "
        "smaller", at_least=1)  # fmt: skip
    seeds: int = option(3, "networks trained on each variant", at_least=2)
    model: PathText = option("tiny", "shape of the networks: a shipped model, or a YAML with a section model")
    seq_length: int = option(128, "tokens of a sequence", at_least=8)
    batch_size: int = option(8, "sequences of a step", at_least=1)

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if len(self.variants) != 2:
            yield f"variants: {len(self.variants)} given; a comparison has two"

    @property
    def steps(self) -> int:
        """Optimizer steps in which a network sees at least `tokens` tokens."""
        return math.ceil(self.tokens / (self.batch_size * self.seq_length))
