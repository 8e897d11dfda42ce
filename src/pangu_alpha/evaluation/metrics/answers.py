"""Exact match and F1 of free answers: the rules of CMRC2018 (also used for WebQA) and of DRCD."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pangu_alpha.evaluation.metrics.figure import Figure

# What the official CMRC2018 script drops. ASCII , . ? ! ( ) ; " and ‘【】 are not in its list, and stay; its
# entry …… has two characters, so it never equals one.
_CMRC_DROPPED = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CMRC_HAN = re.compile("[\u4e00-\u9fa5]")
_DRCD_DROPPED = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~《》？，。、；：")
_ARTICLES = re.compile(r"\b(a|an|the)\b")

Overlap = Callable[[Sequence[str], Sequence[str]], int]


def cmrc(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Figure, ...]:
    """Exact match and F1 as the official CMRC2018 script counts them, and both after NFKC on both sides.

    The vocabulary folds ，？（） to ASCII, which the official rule does not drop, so that even a perfect
    answer that has gone through the tokenizer is often wrong. The rule "nfkc" folds both sides alike.
    """
    official = _em_f1(predictions, references, _cmrc_text, _cmrc_units, _longest_run)
    folded = [[_nfkc(text) for text in texts] for texts in references]
    nfkc = _em_f1([_nfkc(text) for text in predictions], folded, _cmrc_text, _cmrc_units, _longest_run)
    return tuple(
        Figure.mean(name, values, rule)
        for rule, pair in (("official", official), ("nfkc", nfkc))
        for name, values in zip(("exact_match", "f1"), pair, strict=True)
    )


def drcd(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Figure, ...]:
    """Exact match and F1 as DRCD's authors count them: SQuAD 1.1 with a bag of characters."""
    pair = _em_f1(predictions, references, _drcd_text, _drcd_units, _in_common)
    return tuple(Figure.mean(*each, "drcd") for each in zip(("exact_match", "f1"), pair, strict=True))


def answers(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Figure, ...]:
    """The figures of `cmrc`, and those of `drcd` behind them: the paper does not say which rule it used."""
    return cmrc(predictions, references) + drcd(predictions, references)


def _em_f1(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    text: Callable[[str], str],
    units: Callable[[str], tuple[str, ...]],
    overlap: Overlap,
) -> tuple[np.ndarray, np.ndarray]:
    """(exact match, F1) of each item, [n] each: the best over its references."""
    pairs = [*zip(predictions, map(as_texts, references), strict=True)]
    exact = [max(text(given) == text(wanted) for wanted in texts) for given, texts in pairs]
    f1 = [max(_f1(units(given), units(wanted), overlap) for wanted in texts) for given, texts in pairs]
    return np.array(exact, np.float64), np.array(f1, np.float64)


def as_texts(references: Any) -> Sequence[str]:
    """The references of one item; a single text counts as one reference.

    Raises:
        ValueError: There is none, or one is not a text.
    """
    texts = [references] if isinstance(references, str) else list(references)
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"each item needs at least one reference text, not {references!r}")
    return texts


def _f1(given: Sequence[str], wanted: Sequence[str], overlap: Overlap) -> float:
    common = overlap(given, wanted)
    if not common:
        return 0.0
    precision, recall = common / len(given), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _longest_run(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common substring: contiguous, although the official script calls it lcs."""
    best, row = 0, [0] * (len(second) + 1)
    for unit in first:
        before, row = row, [0] * (len(second) + 1)
        for place, other in enumerate(second, 1):
            if unit == other:
                row[place] = before[place - 1] + 1
                best = max(best, row[place])
    return best


def _in_common(first: Sequence[str], second: Sequence[str]) -> int:
    return (Counter(first) & Counter(second)).total()


def _cmrc_text(text: str) -> str:
    return "".join(each for each in text.lower().strip() if each not in _CMRC_DROPPED)


def _cmrc_units(text: str) -> tuple[str, ...]:
    """Chinese characters one by one, and the words of what lies between them, without dropped marks."""
    units: list[str] = []
    rest = ""
    for character in _cmrc_text(text):
        if _CMRC_HAN.match(character):
            units += _words(rest)
            units.append(character)
            rest = ""
        else:
            rest += character
    return (*units, *_words(rest))


def _words(text: str) -> list[str]:
    """Words as NLTK cuts them.

    The official script calls nltk.word_tokenize, which cuts sentences before words and needs a downloaded
    model for it. Without it only a full stop within a Latin answer of several sentences is cut otherwise.
    """
    return _word_tokenizer().tokenize(text) if text.strip() else []


@functools.cache
def _word_tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer  # here, because the import takes half a second

    return NLTKWordTokenizer()


def _drcd_text(text: str) -> str:
    """Lower case, without punctuation, English articles and repeated blanks."""
    kept = "".join(each for each in text.lower() if each not in _DRCD_DROPPED)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def _drcd_units(text: str) -> tuple[str, ...]:
    return tuple(each for each in _drcd_text(text) if not each.isspace())


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)
