"""The measures of one text; what several of them need is computed once."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from pangu_alpha.corpus.rules import code_points as cp
from pangu_alpha.corpus.rules.context import Context
from pangu_alpha.corpus.rules.personal import find_personal
from pangu_alpha.corpus.rules.repetition import ngram_hashes, repeated_share, top_share
from pangu_alpha.corpus.rules.script import simplified

STOP_CHARACTERS = "的一是不了在有人这上中大为和国地到以说时要就"  # frequent function words
_LONGEST_TITLE = 60  # characters
_SENTENCE_ENDS = tuple("。！？!?…")
_LINE_ENDS = frozenset("。！？!?…；;：:，,、.”’\"'）)》」』】")
_BULLETS = frozenset("•·‣*-–—●○◦")
_ELLIPSES = ("…", "...", "。。。")


class MeasuredText:
    """A normalised text with the numbers that the rules compare; a share of nothing is 0.

    Args:
        title: See `table.measures`.
    """

    def __init__(self, text: str, context: Context, title: str = "") -> None:
        self._text, self._context, self._title = text, context, title
        points = cp.code_points(text)
        classes = cp.class_table()[points]
        self._counts = cp.class_counts(classes)
        empty = sum(self._counts[each] for each in (cp.SPACE, cp.LINE_FEED, cp.LINE_BREAK))
        self._length = len(text) - empty
        if empty:
            points = points[(classes < cp.SPACE) | (classes > cp.LINE_BREAK)]
        self._solid = points  # code points that are no spaces

    def _share(self, *classes: int) -> float:
        return sum(self._counts[each] for each in classes) / max(self._length, 1)

    @cached_property
    def _lines(self) -> list[str]:
        return [line for line in map(str.strip, self._text.split("\n")) if line]

    @cached_property
    def _hashes(self) -> dict[int, np.ndarray]:
        return ngram_hashes(self._solid)

    @cached_property
    def _duplicates(self) -> tuple[int, int]:
        """Number of lines that came before, and their characters."""
        different = set(self._lines)
        if len(different) == len(self._lines):
            return 0, 0
        characters = sum(map(len, self._lines)) - sum(map(len, different))
        return len(self._lines) - len(different), characters

    @cached_property
    def _sensitive(self) -> list[str]:
        return self._context.sensitive.found(self._text)

    def body_characters(self) -> float:
        if not self._lines:
            return 0
        first, title = self._lines[0], self._title.strip()
        if not title:
            title = first if len(first) <= _LONGEST_TITLE and not first.endswith(_SENTENCE_ENDS) else ""
        titles = {title, simplified(title)[0]}  # the text may have become simplified since
        rest = [line for line in self._lines if not any(line in each for each in titles)]
        if len(rest) == len(self._lines):
            return self._length
        return sum(len("".join(line.split())) for line in rest)

    def characters(self) -> float:
        return self._length

    def han_share(self) -> float:
        return self._share(cp.COMMON_HAN, cp.RARE_HAN)

    def kana_share(self) -> float:
        return self._share(cp.KANA)

    def digit_share(self) -> float:
        return self._share(cp.DIGIT)

    def sign_share(self) -> float:
        return self._share(cp.SIGN)

    def rare_han_share(self) -> float:
        han = self._counts[cp.COMMON_HAN] + self._counts[cp.RARE_HAN]
        return self._counts[cp.RARE_HAN] / max(han, 1)

    def stop_characters(self) -> float:
        return sum(each in self._text for each in STOP_CHARACTERS)

    def advertisement_words(self) -> float:
        return len(set(self._context.advertisement.found(self._text)))

    def sensitive_words(self) -> float:
        return len(set(self._sensitive))

    def sensitive_hits(self) -> float:
        return len(self._sensitive)

    def personal_data(self) -> float:
        actions = self._context.personal_actions
        if "drop" not in actions.values():
            return 0
        return sum(actions.get(found.kind.name) == "drop" for found in find_personal(self._text))

    def mean_line(self) -> float:
        return sum(map(len, self._lines)) / max(len(self._lines), 1)

    def punctuated_lines(self) -> float:
        return sum(line[-1] in _LINE_ENDS for line in self._lines) / max(len(self._lines), 1)

    def bullet_lines(self) -> float:
        return sum(line[0] in _BULLETS for line in self._lines) / max(len(self._lines), 1)

    def ellipsis_lines(self) -> float:
        return sum(line.endswith(_ELLIPSES) for line in self._lines) / max(len(self._lines), 1)

    def duplicate_lines(self) -> float:
        return self._duplicates[0] / max(len(self._lines), 1)

    def duplicate_line_characters(self) -> float:
        return self._duplicates[1] / max(sum(map(len, self._lines)), 1)

    def top_4gram(self) -> float:
        return top_share(self._hashes[4])

    def repeated_10grams(self) -> float:
        return repeated_share(self._hashes[10])

    def repeated_13grams(self) -> float:
        return repeated_share(self._hashes[13])
