"""Accuracies of cloze questions whose answer is generated: PD&CFT and CMRC2017."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from pangu_alpha.evaluation.metrics.figure import Figure


def cloze(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> tuple[Figure, ...]:
    """Two accuracies.

    `acc,word` is CMRC2017's rule: without punctuation, the answer must begin with the right word.
    `acc,equal` is that of PD&CFT's released script: the whole answer must be the right word, so it is fair
    only where the answer ends by itself, or is as long as the right word, which tells its length. Widths are
    folded by NFKC, as the vocabulary does.
    """
    golds = [gold if isinstance(gold, str) else gold[0] for gold in references]
    pairs = [*zip(predictions, golds, strict=True)]
    word = [begins_with(given, gold) for given, gold in pairs]
    return (
        Figure.mean("acc", word, "word"),
        Figure.mean("acc", [_folded(given) == _folded(gold) for given, gold in pairs], "equal"),
    )


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip()


def begins_with(given: str, gold: str) -> bool:
    """Whether an answer without punctuation and blanks begins with the right word."""
    wanted = without_punctuation(gold)
    return bool(wanted) and without_punctuation(given)[: len(wanted)] == wanted


def without_punctuation(text: str) -> str:
    """Drops punctuation, symbols and blanks of every script, after NFKC."""
    return "".join(each for each in _folded(text) if unicodedata.category(each)[0] not in "PSZC")
