"""What the evaluation needs of a network; `evaluation.scoring.Scorer` has it, and so have tests' oracles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np


class Encoder(Protocol):
    """Texts to ids and back."""

    digest: str

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Ids of several texts."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids."""

    @property
    def pad_id(self) -> int:
        """Id of padding."""


class Reader(Protocol):
    """How a network reads text, which is known before its weights are loaded."""

    @property
    def tokenizer(self) -> Encoder:
        """The vocabulary."""

    @property
    def context(self) -> int:
        """Most ids that it reads at once; the predicted last one is not counted."""

    @property
    def end_of_document(self) -> int:
        """Id between documents."""


class Network(Reader, Protocol):
    """A network that scores and continues texts."""

    @property
    def fingerprint(self) -> str:
        """Digest of everything that its results depend on."""

    def predict(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> Sequence[tuple[np.ndarray, np.ndarray]]:
        """Scores the ids of each (prefix, whole) after their common beginning.

        Returns:
            For each pair their -log p in nats, float32 [n], and whether each is the likeliest, bool [n].
        """

    def generate(
        self, prompts: Sequence[str], limit: int, stop: Sequence[str] = (), sampling: Any = None
    ) -> list[str]:
        """Continues texts by at most `limit` tokens."""
