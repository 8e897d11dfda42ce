"""The table of rules that drop documents: each measures a text, and a profile sets the bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pangu_alpha.corpus.rules.context import Context
from pangu_alpha.corpus.rules.measured import MeasuredText

# Kinds of sources in the paper's Table 3, in the order of trust: of two copies the earlier source's is kept.
SOURCES = ("encyclopedia", "books", "news", "public", "common_crawl")
_CRAWL = ("common_crawl",)
_CRAWL_AND_BOOKS = ("common_crawl", "books")


@dataclass(frozen=True)
class Rule:
    """One rule.

    Args:
        name: The key of its bound in a profile, and the reason of a drop.
        measure: Takes the text with what is known of it, and returns the number.
        direction: Whether a document needs `at_least` or `at_most` the bound.
        applies: Sources whose documents the paper treats so, for profiles that go by source.
        source: Who set the threshold, and which one.
        help: What is measured.
    """

    name: str
    measure: Callable[[MeasuredText], float]
    direction: Literal["at_least", "at_most"]
    applies: tuple[str, ...]
    source: str
    help: str


# The verdict is the first failing rule in this order: the most telling reason first.
RULES: tuple[Rule, ...] = (
    Rule("body_characters", MeasuredText.body_characters, "at_least", _CRAWL, "paper, C3: no bound given",
         "characters without spaces in lines other than the title; a page that is only a title has none"),
    Rule("kana_share", MeasuredText.kana_share, "at_most", _CRAWL, "ours: Japanese may pass the share of Han",
         "share of kana among characters without spaces"),
    Rule("han_share", MeasuredText.han_share, "at_least", _CRAWL, "paper, C1: 60 %; of what is not said",
         "share of Han among characters without spaces"),
    Rule("characters", MeasuredText.characters, "at_least", _CRAWL, "paper, C2: 150",
         "characters without spaces, after normalising"),
    Rule("advertisement_words", MeasuredText.advertisement_words, "at_most", _CRAWL,
         "paper, C6: any keyword drops; its keywords were not published", "different phrases of the list"),
    Rule("sensitive_words", MeasuredText.sensitive_words, "at_most", _CRAWL_AND_BOOKS,
         "paper, F1: more than 3 drop; its 724 words were not published",
         "different words of the user's list, by longest match"),
    Rule("sensitive_hits", MeasuredText.sensitive_hits, "at_most", _CRAWL_AND_BOOKS,
         "the other reading of F1", "occurrences of words of the user's list"),
    Rule("personal_data", MeasuredText.personal_data, "at_most", SOURCES, "ours",
         "pieces of personal data of the kinds whose action is `drop`"),
    Rule("rare_han_share", MeasuredText.rare_han_share, "at_most", _CRAWL, "ours: text in a wrong encoding",
         "share of Han outside level 1 of GB 2312 and of Big5 among Han"),
    Rule("stop_characters", MeasuredText.stop_characters, "at_least", _CRAWL,
         "FineWeb2 cmn_Hani: 2 of 22; our list", "different ones of 22 frequent function characters"),
    Rule("digit_share", MeasuredText.digit_share, "at_most", _CRAWL, "ours",
         "share of digits among characters without spaces"),
    Rule("sign_share", MeasuredText.sign_share, "at_most", _CRAWL, "MassiveText: .1 of # and ... by word",
         "share of ASCII signs such as # $ * / = _ among characters without spaces"),
    Rule("mean_line", MeasuredText.mean_line, "at_least", _CRAWL, "ChineseWebText: 10",
         "mean length of a line that is not blank"),
    Rule("punctuated_lines", MeasuredText.punctuated_lines, "at_least", _CRAWL, "FineWeb2 cmn_Hani: .106",
         "share of lines that end in punctuation"),
    Rule("bullet_lines", MeasuredText.bullet_lines, "at_most", _CRAWL, "MassiveText: .9",
         "share of lines that begin with a bullet"),
    Rule("ellipsis_lines", MeasuredText.ellipsis_lines, "at_most", _CRAWL, "MassiveText: .3",
         "share of lines that end in an ellipsis"),
    Rule("duplicate_lines", MeasuredText.duplicate_lines, "at_most", _CRAWL, "FineWeb2 cmn_Hani: .287",
         "share of lines that came before"),
    Rule("duplicate_line_characters", MeasuredText.duplicate_line_characters, "at_most", _CRAWL,
         "MassiveText: .2", "share of characters in lines that came before"),
    Rule("top_4gram", MeasuredText.top_4gram, "at_most", _CRAWL,
         "FineWeb2 cmn_Hani: .256 for 2 words, here 4 characters",
         "share of the most frequent run of 4 characters among all such runs"),
    Rule("repeated_10grams", MeasuredText.repeated_10grams, "at_most", _CRAWL, "Data-Juicer zh: .6",
         "share of runs of 10 characters that occur more than once"),
    Rule("repeated_13grams", MeasuredText.repeated_13grams, "at_most", _CRAWL, "ChineseWebText: .5",
         "share of runs of 13 characters that occur more than once"),
)  # fmt: skip
RULE_NAMES = tuple(rule.name for rule in RULES)
_AT_LEAST = np.array([rule.direction == "at_least" for rule in RULES])


def measures(text: str, context: Context, title: str = "") -> np.ndarray:
    """All measures of one normalised text.

    Args:
        title: The page's title; without one, a first line of at most 60 characters that ends no
            sentence is taken for it.

    Returns:
        float32 [rules], in the order of RULES.
    """
    measured = MeasuredText(text, context, title)
    return np.array([rule.measure(measured) for rule in RULES], np.float32)


def verdict(measured: np.ndarray, bounds: np.ndarray) -> tuple[int, str | None]:
    """Which rules a document breaks.

    Args:
        measured: float32 [rules], from `measures`.
        bounds: float32 [rules], in the same order; NaN where a rule does not apply.

    Returns:
        A mask with bit i set if rule i is broken, and the name of the first of them or None.
    """
    broken = failing(measured, bounds)
    mask = int(np.dot(broken, _BITS))
    return mask, RULE_NAMES[int(broken.argmax())] if mask else None


_BITS = 1 << np.arange(len(RULES), dtype=np.int64)


def failing(measured: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Which rules are broken, bool [..., rules], for measures of one document or of several."""
    return np.where(_AT_LEAST, measured < bounds, measured > bounds)  # both are false for NaN


def broken_rules(mask: int) -> Sequence[str]:
    """Names of the rules of a mask, in the order of the table."""
    return [name for place, name in enumerate(RULE_NAMES) if mask >> place & 1]
