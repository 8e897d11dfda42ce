"""Counts the characters of a text by class, by one look-up in a table for all of its code points.

The table is made of ranges written here, not of Python's Unicode tables, which change with the version.
"""

from __future__ import annotations

import functools

import numpy as np

from pangu_alpha.text.documents.encoding import usual_characters

COMMON_HAN, RARE_HAN, KANA, HANGUL, LETTER, DIGIT, SENTENCE_END, MARK, SIGN, SPACE, LINE_FEED = range(11)
LINE_BREAK, INVISIBLE, SPECIAL, REST = range(11, 15)
CLASSES = 15

# Later rows take precedence. A row is a class, followed by pairs of first and last code point.
_RANGES: tuple[tuple[int, str], ...] = (
    (RARE_HAN, "\u3007\u3007\u3400\u4dbf\u4e00\u9fff\uf900\ufaff\U00020000\U0003ffff"),
    (KANA, "\u3041\u3096\u309d\u309f\u30a1\u30fa\u30fd\u30ff\u31f0\u31ff\uff66\uff6f\uff71\uff9d"),
    (HANGUL, "\u1100\u11ff\u3130\u318f\uac00\ud7a3"),
    (LETTER, "AZaz\u00aa\u00aa\u00b5\u00b5\u00ba\u00ba\u00c0\u00d6\u00d8\u00f6\u00f8\u02af\u0370\u052f"),
    (LETTER, "\u0531\u0556\u0561\u0587\u05d0\u05ea\u0620\u064a\u0904\u0939\u0e01\u0e30\u1e00\u1fff"),
    (LETTER, "\uff21\uff3a\uff41\uff5a"),
    (DIGIT, "09\uff10\uff19"),
    (MARK, "!/:@[`{~\u00a1\u00a1\u00ab\u00ab\u00b7\u00b7\u00bb\u00bb\u00bf\u00bf"),
    (MARK, "\u2010\u2027\u2030\u205e"),
    (MARK, "\u3001\u3006\u3008\u301f\u3030\u3030\u30fb\u30fc\ufe10\ufe19\ufe30\ufe6f"),
    (MARK, "\uff01\uff0f\uff1a\uff20\uff3b\uff40\uff5b\uff65"),
    (SIGN, "##$$++<<==>>^^``||~~**@@%%&&//\\\\__"),
    (SENTENCE_END, "!!??\u2026\u2026\u3002\u3002\uff01\uff01\uff1f\uff1f\uff61\uff61"),
    (SPECIAL, "\u2500\u25a0\u25a1\u25ca\u25cc\u25ce\u25d0\u25ee\u25f0\u27bf"),
    (SPECIAL, "\u2b00\u2bff\ufe00\ufe0f\ue000\uf8ff"),
    (SPECIAL, "\U0001f000\U0001faff\U000e0000\U000e01ef\U000f0000\U0010ffff"),
    (SPACE, "  \t\t\u00a0\u00a0\u1680\u1680\u2000\u200a\u202f\u202f\u205f\u205f\u3000\u3000"),
    (INVISIBLE, "\x00\x08\x0e\x1f\x7f\x84\x86\x9f\u00ad\u00ad\u200b\u200f\u202a\u202e\u2060\u206f"),
    (INVISIBLE, "\ufeff\ufeff\ufff9\uffff"),
    (LINE_BREAK, "\x0b\r\x85\x85\u2028\u2029"),
    (LINE_FEED, "\n\n"),
)  # fmt: skip


@functools.cache
def class_table() -> np.ndarray:
    """The class of every code point, uint8 [0x110000]."""
    table = np.full(0x110000, REST, np.uint8)
    for class_, pairs in _RANGES:
        for first, last in zip(pairs[::2], pairs[1::2], strict=True):
            table[ord(first) : ord(last) + 1] = class_
    everyday = np.array([ord(each) for each in usual_characters()])
    table[everyday[table[everyday] == RARE_HAN]] = COMMON_HAN
    table[ord("\u3007")] = COMMON_HAN
    return table


def code_points(text: str) -> np.ndarray:
    """The code points of a text, uint32 [characters]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def class_counts(classes: np.ndarray) -> list[int]:
    """How many characters there are of each class, by class number."""
    counts: list[int] = np.bincount(classes, minlength=CLASSES).tolist()
    return counts
