"""Which records a run reads, and in which proportions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pangu_alpha.config.schema import PathText, validate


@dataclass(frozen=True)
class SourceConfig:
    """One set of records in the mixture.

    Args:
        records: Folder written by preprocess.py (MindRecord files and manifest.json).
        weight: Share of the training tokens drawn from this source, relative to the other weights
            (sampling weight of table 4 of the PanGu-alpha paper).

    Raises:
        ConfigError: All fields that have the wrong type or break a rule.
    """

    records: PathText
    weight: float = 1.0

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if not self.records:
            yield "records: empty; give the folder that preprocess.py wrote"
        if self.weight <= 0.0:
            yield f"weight: {self.weight} must be positive; leave the source out instead"


@dataclass(frozen=True)
class DataConfig:
    """The training mixture and the validation set.

    Args:
        train: Sources by name; the names appear in the plan of tokens and in the per-source losses.
        validation: Folder of records held out for perplexity; None evaluates nothing.
        vocabulary: The tokenizer's vocab.model; checked against the records and copied into the run's
            output, so that predict.py needs nothing else. None: predict.py must be told.
        shuffle: Draw each source's windows in the seeded order instead of the written one.
        document_mask: A document never attends to another one and its positions start at 0.

    Raises:
        ConfigError: All fields that have the wrong type or break a rule.
    """

    train: dict[str, SourceConfig]
    validation: PathText | None = None
    vocabulary: PathText | None = None
    shuffle: bool = True
    document_mask: bool = True

    def __post_init__(self) -> None:
        validate(self)

    def rules(self) -> Iterator[str]:
        """Yields one sentence for every rule the values break."""
        if not self.train:
            yield "train: empty; name at least one source with its records"
