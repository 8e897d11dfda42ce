"""Which records a run reads, and in which proportions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pangu_alpha.config.option import REQUIRED, option
from pangu_alpha.config.schema import PathText, validate


@dataclass(frozen=True)
class SourceConfig:
    """One set of records in the mixture. Its weight is the sampling weight of table 4 of the paper.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    records: PathText = option(
        REQUIRED, "folder that preprocess.py wrote; at least one source is needed, NAME is your own word"
    )
    weight: float = option(
        1.0,
        "share of the training tokens drawn from this source, relative to the other weights",
        above=0,
        refusal="must be positive; leave the source out instead",
    )

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if not self.records:
            yield "records: empty; give the folder that preprocess.py wrote"


@dataclass(frozen=True)
class DataConfig:
    """The training mixture and the validation set.

    Args:
        train: Sources by name. The names also appear in the plan of tokens and in the losses.

    Raises:
        ConfigError: Lists all fields that have the wrong type or break a rule.
    """

    train: dict[str, SourceConfig]
    validation: PathText | None = option(
        None,
        "folder of held-out records for the validation perplexity; null validates nothing; not with a plan "
        "of several NPUs",
    )
    vocabulary: PathText | None = option(
        None,
        "the vocabulary, vocab.model: it is checked against the records and copied into the output; without "
        "it predict.py needs `--vocabulary`",
    )
    shuffle: bool = option(True, "draw the windows of a source in a seeded order, not as they were written")
    document_mask: bool = option(True, "a document attends only to itself, and its positions start at 0")

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if not self.train:
            yield "train: empty; name at least one source with its records"
