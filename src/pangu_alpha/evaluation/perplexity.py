"""Perplexity of a trained network, the untrained one and a bigram on the same held-out tokens."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.data.batches import Batch, ValidationBatches
from pangu_alpha.data.manifest import Records, open_records
from pangu_alpha.data.windows import WindowCollation
from pangu_alpha.evaluation.kneser_ney import KneserNeyBigram
from pangu_alpha.files.shown import shown
from pangu_alpha.inference.load import LoadedModel, load_for_inference
from pangu_alpha.model.initialization import initialize
from pangu_alpha.text.tokenizer import PanguTokenizer
from pangu_alpha.training.loss import TokenLoss
from pangu_alpha.training.validation import mean_loss

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """How well a predictor predicts a set of tokens.

    Args:
        name: Name of the predictor.
        nats: Mean -log p of a token.
        tokens: Number of tokens predicted.
        characters: Number of characters that these tokens spell.
    """

    name: str
    nats: float
    tokens: int
    characters: int

    @property
    def perplexity(self) -> float:
        """exp(nats), with nats capped at 50 so that the result stays finite."""
        return math.exp(min(self.nats, 50.0))

    @property
    def bits_per_character(self) -> float:
        """Sum of -log2 p divided by the number of characters, which is comparable between vocabularies."""
        return self.nats * self.tokens / math.log(2.0) / max(self.characters, 1)


def token_pairs(batches: Iterable[Batch]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(input, label) ids of the positions that count in the loss, int32 [n] for each batch."""
    return [
        (batch["input_ids"][keep], batch["labels"][keep])
        for batch in batches
        for keep in [batch["loss_mask"] > 0]
    ]


def count_characters(batches: Iterable[Batch], tokenizer: PanguTokenizer) -> int:
    """Number of characters spelled by the labels that count in the loss, without control pieces."""
    control = list(tokenizer.control_ids)
    rows = (
        (labels, keep)
        for batch in batches
        for labels, keep in zip(batch["labels"], batch["loss_mask"], strict=True)
    )
    kept = (labels[(keep > 0) & ~np.isin(labels, control)] for labels, keep in rows)
    return sum(len(tokenizer.decode(ids.tolist())) for ids in kept)


def score_bigram(bigram: KneserNeyBigram, batches: Iterable[Batch]) -> float:
    """Mean -log p in nats of the labels that count, each given the token before it."""
    pairs = token_pairs(batches)
    total = -sum(float(bigram.log_probability(*pair).sum()) for pair in pairs)
    return total / max(sum(len(labels) for _, labels in pairs), 1)


def compare_with_baselines(
    checkpoint: str,
    records: str,
    train_records: str,
    tokenizer: str | None = None,
    batch_size: int = 16,
    options: OpenOptions | None = None,
) -> tuple[Score, Score, Score]:
    """Scores a trained network, the same network untrained, and a bigram counted on the training records.

    Args:
        checkpoint: A run's output folder or a checkpoint of any form.
        records: Folder of held-out records.
        train_records: Folder of the records that the network was trained on.
        tokenizer: The vocabulary; None takes the one beside the checkpoint.
        batch_size: Number of rows that the network processes at once.
        options: What the checkpoint of another program may not state itself.

    Raises:
        ValueError: Checkpoint or records are damaged or do not fit each other; the records hold no token to
            score; or the network's losses are not finite.
    """
    loaded = load_for_inference(checkpoint, tokenizer, options=options, decoding=False)
    held_out = _held_out(loaded, records, batch_size)
    training = token_pairs(_batches(open_records(train_records, **_fit(loaded)), batch_size))
    _check_tokens(train_records, training)
    windows = sum(len(batch["input_ids"]) for batch in held_out)
    logger.info("scoring %d windows with the trained network, the untrained one and a bigram", windows)
    bigram = KneserNeyBigram(loaded.model.config.vocab_size, training)
    characters = count_characters(held_out, loaded.tokenizer)
    trained, tokens = _finite_loss(loaded, held_out)
    initialize(loaded.model, seed=0)
    untrained, _ = mean_loss(TokenLoss(loaded.model), _with_bar(held_out, "untrained"))
    return (
        Score(f"PanGu-alpha after {loaded.step} steps", trained, tokens, characters),
        Score("PanGu-alpha untrained", untrained, tokens, characters),
        Score("interpolated Kneser-Ney bigram", score_bigram(bigram, held_out), tokens, characters),
    )


def score_network(checkpoint: str, records: str, batch_size: int = 16) -> Score:
    """Scores a network on all tokens of a set of records.

    Args:
        checkpoint: A run's output folder or a checkpoint of any form, with its vocabulary beside it.
        records: Folder of held-out records.
        batch_size: Number of rows that the network processes at once.

    Raises:
        ValueError: As of `compare_with_baselines`.
    """
    loaded = load_for_inference(checkpoint, decoding=False)
    held_out = _held_out(loaded, records, batch_size)
    nats, tokens = _finite_loss(loaded, held_out)
    characters = count_characters(held_out, loaded.tokenizer)
    return Score(f"{shown(checkpoint)} after {loaded.step} steps", nats, tokens, characters)


def _held_out(loaded: LoadedModel, records: str, batch_size: int) -> list[Batch]:
    """The batches of held-out records, which fit the network and hold a token to score."""
    opened = open_records(records, **_fit(loaded))
    batches = list(_batches(opened, batch_size))
    _check_tokens(records, token_pairs(batches))
    return batches


def _fit(loaded: LoadedModel) -> dict[str, Any]:
    """What records must be like for a network."""
    config = loaded.model.config
    return {
        "seq_length": config.seq_length,
        "vocab_size": config.vocab_size,
        "tokenizer_digest": loaded.tokenizer.digest,
    }


def _check_tokens(records: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    if not any(len(previous) for previous, _ in pairs):
        raise ValueError(f"{shown(records)}: all of it is padding, no token counts; name other records")


def _finite_loss(loaded: LoadedModel, batches: Sequence[Batch]) -> tuple[float, int]:
    """Mean -log p in nats of the tokens that count, and their number."""
    nats, tokens = mean_loss(TokenLoss(loaded.model), _with_bar(batches, "trained"))
    if not math.isfinite(nats):
        raise ValueError(
            f"{shown(loaded.checkpoint)}: the loss of the held-out tokens is {nats}: its weights hold NaN "
            "or are too large; use an earlier checkpoint of the run"
        )
    return nats, tokens


def _with_bar(batches: Sequence[Batch], name: str) -> Iterable[Batch]:
    """The batches, with a progress bar on a terminal."""
    return tqdm(batches, desc=name, unit="batch", disable=None)


def _batches(records: Records, batch_size: int) -> ValidationBatches:
    """All windows of a set, in batches no larger than the set, because padding rows cost as much as text."""
    return ValidationBatches(records, WindowCollation.of(records), min(batch_size, records.count))


def format_scores(scores: Iterable[Score]) -> str:
    """Formats scores as a table for people."""
    scores = list(scores)
    lines = [f"{'':<34}{'perplexity':>12}{'bits/character':>16}"]
    lines += [f"{s.name:<34}{s.perplexity:>12.2f}{s.bits_per_character:>16.3f}" for s in scores]
    tokens, characters = scores[0].tokens, scores[0].characters
    return "\n".join([*lines, f"on the same {tokens:,} held-out tokens ({characters:,} characters)"])
