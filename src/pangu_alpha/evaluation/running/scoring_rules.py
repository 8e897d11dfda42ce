"""Which tokens a candidate's score counts, and what their sum is divided by.

`exact` and `sum` count every token after the prefix, by the common-prefix rule. The others count what the
named programs count, so that their figures can be reproduced:

| rule | tokens counted, for P prefix tokens and N in all | divided by |
| --- | --- | --- |
| exact | P+1 .. N | their number |
| sum | P+1 .. N | 1 |
| released | P+2 .. N and the end of document: the first token is missing | their number |
| released_c3 | P+2 .. N and one padding token | the context |
| released_csl | everything after the first token, padded to the context | the context |
| opencompass | 2 .. N | N, which is one too many |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pangu_alpha.evaluation.running.network import Reader

Ids = Sequence[int]


@dataclass(frozen=True)
class ScoredText:
    """Ids to score.

    Args:
        ids: The whole text, with what the rule adds to it.
        first: Index of the first id that counts.
        divisor: What the sum of the nats is divided by.
    """

    ids: tuple[int, ...]
    first: int
    divisor: int

    @property
    def pair(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Prefix and whole, as `Network.nats` takes them."""
        return self.ids[: self.first], self.ids


def added_ids(rule: str) -> int:
    """Number of ids that a rule adds to a text of any length."""
    return 1 if rule in ("released", "released_c3") else 0


def scored_text(rule: str, prefix: Ids, whole: Ids, reader: Reader) -> ScoredText:
    """Applies a rule.

    Args:
        prefix: Ids of the text before what is scored, encoded on its own.
        whole: Ids of the whole text, encoded together.
    """
    whole, context = tuple(whole), reader.context
    pad = reader.tokenizer.pad_id
    if rule == "opencompass":
        return ScoredText(whole, 1, len(whole))
    if rule == "released_csl":
        return ScoredText(whole + (pad,) * (context + 1 - len(whole)), 1, context)
    if rule.startswith("released"):
        end = pad if rule == "released_c3" else reader.end_of_document
        ids = (*whole, end)
        first = min(len(prefix) + 1, len(whole))  # the separately encoded prefix may be longer than the text
        return ScoredText(ids, first, context if rule == "released_c3" else len(ids) - first)
    first = _common(prefix, whole)
    if first == 0:  # nothing stands before it: it is predicted from the end of document, as a new text
        whole, first = (reader.end_of_document, *whole), 1
    return ScoredText(whole, first, 1 if rule == "sum" else max(len(whole) - first, 1))


def _common(prefix: Ids, whole: Sequence[int]) -> int:
    """Length of the common beginning, at least one id before the end: something must be left to score."""
    size = min(len(prefix), len(whole) - 1)
    return next((n for n in range(size) if prefix[n] != whole[n]), size)
