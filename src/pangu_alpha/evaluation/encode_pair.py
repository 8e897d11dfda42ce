"""Encodes a context and its continuation for scoring, where the encoding of both may change their border.

The words that jieba finds in a context, and so its ids, may differ once its continuation follows. The text is
therefore encoded as a whole, and all ids count that come after the longest beginning that it shares with the
context's own ids. Knows the tokenizer; nothing of networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pangu_alpha.text.tokenizer import PanguTokenizer


class EncodedPair(NamedTuple):
    """Ids of a context and of the whole text; the ids that count follow their common beginning."""

    prefix: tuple[int, ...]
    whole: tuple[int, ...]


@dataclass
class PairEncoder:
    """Encodes pairs of texts, and counts those whose border moved.

    Args:
        end_of_document: Id that begins every text: what the first id of a text without context is predicted
            from.
        pairs: Number of pairs so far.
        moved: Number of those whose context's ids are not the beginning of the whole text's.
    """

    tokenizer: PanguTokenizer
    end_of_document: int
    pairs: int = 0
    moved: int = 0

    def __call__(self, texts: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        """Encodes (context, continuation) pairs.

        Returns:
            A pair of ids each. With an empty context both begin with the end of document, else neither does.
        """
        contexts = list(dict.fromkeys(context for context, _ in texts))
        ids = dict(zip(contexts, self.tokenizer.encode_batch(contexts), strict=True))
        wholes = self.tokenizer.encode_batch(context + continuation for context, continuation in texts)
        return [self._pair(ids[context], whole) for (context, _), whole in zip(texts, wholes, strict=True)]

    def _pair(self, prefix: list[int], whole: list[int]) -> EncodedPair:
        self.pairs += 1
        self.moved += whole[: len(prefix)] != prefix
        if not prefix or whole[:1] != prefix[:1]:
            prefix, whole = [self.end_of_document, *prefix], [self.end_of_document, *whole]
        return EncodedPair(tuple(prefix), tuple(whole))
