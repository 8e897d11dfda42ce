"""ROUGE-L and BLEU of DuReader, on characters, as its official script computes them.

Libraries give other numbers: rouge-score drops all Chinese, rouge-chinese knows one reference and weighs
precision and recall alike. sacrebleu and NLTK give this BLEU, but not what each item contributes to it, which
the interval needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pangu_alpha.evaluation.metrics.answers import as_texts
from pangu_alpha.evaluation.metrics.figure import BLEU_ORDER, Figure

_BETA = 1.2  # weight of recall in ROUGE-L; of the official script


def dureader(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Figure, ...]:
    """ROUGE-L, the mean over items, and BLEU-4 to BLEU-1 of the whole set."""
    pairs = [
        (_units(given), [_units(text) for text in as_texts(texts)])
        for given, texts in zip(predictions, references, strict=True)
    ]
    sums = np.array([bleu_sums(*pair) for pair in pairs], np.float64)
    bleu = [f"bleu_{order}" for order in range(BLEU_ORDER, 0, -1)]
    rouge = Figure.mean("rouge_l", [rouge_l(*pair) for pair in pairs], "official")
    return (rouge, *(Figure(name, "official", sums, name) for name in bleu))


def _units(text: str) -> str:
    return "".join(text.split())


def rouge_l(given: str, references: Sequence[str]) -> float:
    """F of the longest common subsequence of characters.

    Precision and recall are each the best over the references, which need not be the same one.
    """
    common = [_longest_subsequence(given, text) for text in references]
    precision = max(common) / len(given) if given else 0.0
    recall = max(length / len(text) if text else 0.0 for length, text in zip(common, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _longest_subsequence(first: str, second: str) -> int:
    """Length of the longest common subsequence, by bits of an integer (Hyyrö, 2004): answers may be long."""
    places: dict[str, int] = {}
    for place, character in enumerate(first):
        places[character] = places.get(character, 0) | 1 << place
    everything = (1 << len(first)) - 1
    row = everything
    for character in second:
        found = row & places.get(character, 0)
        row = (row + found | row - found) & everything
    return len(first) - row.bit_count()


def bleu_sums(given: str, references: Sequence[str]) -> list[float]:
    """What an item adds to BLEU: right and tried n-grams by order, its length, that of the closest reference.

    An n-gram counts at most as often as it occurs in one reference; of two references equally close in length
    the shorter one counts.
    """
    right, tried = [], []
    for order in range(1, BLEU_ORDER + 1):
        counts, most = _grams(given, order), Counter[str]()
        for text in references:
            most |= _grams(text, order)
        right.append((counts & most).total())
        tried.append(counts.total())
    closest = min((abs(len(text) - len(given)), len(text)) for text in references)[1]
    return [*right, *tried, len(given), closest]


def _grams(text: str, order: int) -> Counter[str]:
    return Counter(text[place : place + order] for place in range(len(text) - order + 1))
