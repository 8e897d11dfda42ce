"""Training of PanGu-alpha: a token's loss is -log p(next token), and all tokens that count weigh the same.

Letters: B batch, S sequence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pangu_alpha.checkpoint.naming import VOCABULARY
from pangu_alpha.config.run import TrainConfig
from pangu_alpha.data.batches import Batch, TrainingBatches, ValidationBatches
from pangu_alpha.data.manifest import Records
from pangu_alpha.data.windows import WindowCollation, open_sources
from pangu_alpha.model.operators import Operators
from pangu_alpha.model.pangu import PanguAlpha
from pangu_alpha.parallel.world import World
from pangu_alpha.text.tokenizer import PanguTokenizer
from pangu_alpha.training.loss import BatchLoss, MicroBatchLoss, TokenLoss
from pangu_alpha.training.objective import Field, Objective, Streams
from pangu_alpha.training.reporting.units import Units
from pangu_alpha.training.schedule import dropout_rows
from pangu_alpha.training.validation import mean_loss

_DROPOUT = "dropout_rows"


class TokenObjective(Objective):
    """The objective of runs whose model is a ModelConfig; see Objective."""

    partitions = True

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        model, row = config.model, (config.model.seq_length,)
        integers = [Field(name, np.int32, row) for name in ("input_ids", "labels")]
        mask = Field("loss_mask", np.float32, row)
        places = [Field(name, np.int32, row) for name in ("position_ids", "document_ids")]
        keys = [Field(_DROPOUT, np.int32, row, drawn=True)] if model.dropout else []
        self.fields = (*integers, mask, *places, *keys)
        self.units = Units("PanGu-α", "nats per token", "tokens", model.seq_length, model.flops_per_token)
        self.nominal_weight = model.seq_length

    def network(self, operators: Operators) -> PanguAlpha:
        """See Objective."""
        return PanguAlpha(self.config.model, None, operators)

    def loss(self, network: PanguAlpha) -> BatchLoss:
        """See Objective."""
        return BatchLoss(TokenLoss(network))

    def validation_loss(self, network: PanguAlpha) -> TokenLoss:
        """See Objective."""
        return TokenLoss(network)

    def partitioned_loss(self, network: PanguAlpha) -> MicroBatchLoss:
        """See Objective."""
        return MicroBatchLoss(TokenLoss(network))

    def draw(self, step: int, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """Draws dropout's keys, int32 [B, S]; draws nothing if the model has no dropout."""
        model = self.config.model
        if model.dropout == 0.0:
            return {}
        return {_DROPOUT: dropout_rows(self.config.run.seed, step, rows, model.seq_length)}

    def open_data(self, rank: int, world_size: int) -> Streams:
        """See Objective."""
        model, data, run = self.config.model, self.config.data, self.config.run
        sources, validation = open_sources(
            data,
            seq_length=model.seq_length,
            vocab_size=model.vocab_size,
            tokenizer_digest=PanguTokenizer(data.vocabulary).digest if data.vocabulary else None,
        )
        first = sources[0].records
        assert isinstance(first, Records)  # see open_sources
        collation = WindowCollation.of(first, data.document_mask)
        place = {"rank": rank, "world_size": world_size}
        vocabulary = collation.vocabulary
        return Streams(
            TrainingBatches(sources, collation, run.batch_size, run.seed, data.shuffle, **place),
            None if validation is None else ValidationBatches(validation, collation, run.batch_size, **place),
            identity=vocabulary.digest,
            state={"end_of_document": vocabulary.end_of_document},
            files={VOCABULARY: Path(data.vocabulary)} if data.vocabulary else {},
        )

    def measure(self, loss: TokenLoss, batches: Iterable[Batch], world: World) -> dict[str, float | int]:
        """Mean -log p, its exponential, and the number of tokens averaged over."""
        mean, tokens = mean_loss(loss, batches, world)
        return {
            "validation_loss": mean,
            "validation_perplexity": math.exp(min(mean, 50.0)),
            "validation_tokens": tokens,
        }

    def validation_text(self, measured: Mapping[str, float | int]) -> str:
        """See Objective."""
        return (
            f"validation loss {measured['validation_loss']:.4f}  "
            f"perplexity {measured['validation_perplexity']:.2f}  ({measured['validation_tokens']:,} tokens)"
        )
