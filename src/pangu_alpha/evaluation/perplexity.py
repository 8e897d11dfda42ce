"""Perplexity of a trained network, of the untrained one and of a bigram, on the same held-out tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pangu_alpha.data.batches import Batch
from pangu_alpha.evaluation.kneser_ney import KneserNeyBigram
from pangu_alpha.text.tokenizer import PanguTokenizer


@dataclass(frozen=True)
class Score:
    """How well something predicts a set of tokens.

    Args:
        name: Of what predicts.
        nats: Mean -log p of a token.
        tokens: How many tokens were predicted.
        characters: How many characters they spell.
    """

    name: str
    nats: float
    tokens: int
    characters: int

    @property
    def perplexity(self) -> float:
        """exp of the mean -log p."""
        return math.exp(min(self.nats, 50.0))

    @property
    def bits_per_character(self) -> float:
        """All -log2 p over all characters; comparable between vocabularies."""
        return self.nats * self.tokens / math.log(2.0) / max(self.characters, 1)


def token_pairs(batches: Iterable[Batch]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(input, label) ids of the positions that count, int32 [n] for each batch."""
    return [
        (batch.input_ids[keep], batch.labels[keep]) for batch in batches for keep in [batch.loss_mask > 0]
    ]


def count_characters(batches: Iterable[Batch], tokenizer: PanguTokenizer) -> int:
    """Characters that the labels which count spell, control pieces left out."""
    control = list(tokenizer.control_ids)
    rows = (
        (labels, keep)
        for batch in batches
        for labels, keep in zip(batch.labels, batch.loss_mask, strict=True)
    )
    kept = (labels[(keep > 0) & ~np.isin(labels, control)] for labels, keep in rows)
    return sum(len(tokenizer.decode(ids.tolist())) for ids in kept)


def score_bigram(bigram: KneserNeyBigram, batches: Iterable[Batch]) -> float:
    """Mean -log p in nats of the labels that count, each given the token before it."""
    pairs = token_pairs(batches)
    total = -sum(float(bigram.log_probability(*pair).sum()) for pair in pairs)
    return total / max(sum(len(labels) for _, labels in pairs), 1)


def format_scores(scores: Iterable[Score]) -> str:
    """A table for people."""
    scores = list(scores)
    lines = [f"{'':<34}{'perplexity':>12}{'bits/character':>16}"]
    lines += [f"{s.name:<34}{s.perplexity:>12.2f}{s.bits_per_character:>16.3f}" for s in scores]
    tokens, characters = scores[0].tokens, scores[0].characters
    return "\n".join([*lines, f"on the same {tokens:,} held-out tokens ({characters:,} characters)"])
