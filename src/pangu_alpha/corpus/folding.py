"""Folds texts for comparison: what differs only in width, case, spaces, punctuation or symbols becomes equal.

The folded text is for keys, signatures and the search for other texts; the corpus keeps what was written.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from pangu_alpha.corpus.hashing import code_points

_DROPPED, _ALONE = 0, 0xFFFFFFFF  # in the table: no letter nor digit; the text must be folded by itself
_BATCH = 1 << 20  # characters that are folded at once, unless one text is longer
# Unified ideographs and Hangul syllables: each is its own compatibility form in all releases of Unicode
_PLAIN = ((0x3400, 0x4DB6), (0x4E00, 0x9FA6), (0xAC00, 0xD7A4), (0x20000, 0x2A6D7), (0x2A700, 0x2B735))
_JAMO = (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))  # vowels and final consonants, which compose


def fold(text: str) -> str:
    """Keeps the letters and digits of the NFKC form, in lower case.

    A text without any folds to itself without its spaces, so that two pages of symbols are equal only if they
    are.
    """
    kept = "".join(_fold_character(each) for each in unicodedata.normalize("NFKC", text))
    return kept or "".join(text.split())


def _fold_character(character: str) -> str:
    # `lower` sees one character at a time: a sigma's form would depend on its neighbours, and some letters
    # become a letter and a mark
    return "".join(each for each in character.lower() if each.isalnum())


@functools.cache
def _table() -> np.ndarray:
    """What each code point folds to, uint32 [0x110000]: a code point, _DROPPED or _ALONE."""
    table = np.zeros(0x110000, np.uint32)
    for start, stop in _PLAIN:
        table[start:stop] = np.arange(start, stop)
    composing = _composing()
    plain = {code for start, stop in _PLAIN for code in range(start, stop)}
    # from here to the tags nothing is assigned, and what lies above them is for private use
    for code in chain(range(0x35000), range(0xE0000, 0xE0200)):
        if code not in plain and not 0xD800 <= code < 0xE000:
            table[code] = _folded_code(chr(code), composing)
    return table


def _composing() -> frozenset[str]:
    """Characters that NFKC may join to the one before them."""
    found = {chr(code) for code in _JAMO}
    for code in range(0x35000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(chr(int(parts[1], 16)))
    return frozenset(found)


def _folded_code(character: str, composing: frozenset[str]) -> int:
    form = unicodedata.normalize("NFKC", character)
    if form and (form[0] in composing or unicodedata.combining(form[0])):
        return _ALONE
    folded = _fold_alone(character)
    return _ALONE if len(folded) > 1 else ord(folded) if folded else _DROPPED


def folded_batches(texts: Sequence[str]) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Folds texts in batches of bounded size.

    Returns:
        For each batch: the slice of the texts, the code points of all folded texts one after another,
        uint32 [characters], and where each text begins in them and the last one ends, int64 [texts + 1].
    """
    start, size = 0, 0
    for place, text in enumerate(texts):
        if size and size + len(text) > _BATCH:
            yield slice(start, place), *_fold_batch(texts[start:place])
            start, size = place, 0
        size += len(text)
    if start < len(texts):
        yield slice(start, len(texts)), *_fold_batch(texts[start:])


def _fold_batch(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    codes, starts = code_points(texts)
    folded = _table()[codes]
    alone = np.searchsorted(starts, np.flatnonzero(folded == _ALONE), "right") - 1
    counts = np.add.reduceat(np.append(folded != _DROPPED, False), starts[:-1])
    kept = np.where(np.diff(starts) > 0, counts, 0)  # reduceat gives a text without characters the next one's
    by_itself = {*np.unique(alone).tolist(), *np.flatnonzero(kept == 0).tolist()}
    if not by_itself:
        return folded[folded != _DROPPED], np.append(0, np.cumsum(kept))
    pieces = [
        code_points([fold(text)])[0] if place in by_itself else _kept(folded[start:stop])
        for place, (text, start, stop) in enumerate(zip(texts, starts[:-1], starts[1:], strict=True))
    ]
    return np.concatenate(pieces), np.append(0, np.cumsum([len(each) for each in pieces]))


def _kept(folded: np.ndarray) -> np.ndarray:
    return folded[folded != _DROPPED]


def folded_with_places(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Folds each character by itself, so that every character of the result has a place in the text.

    It differs from `fold` where characters compose, and for a text without letters and digits.

    Returns:
        Code points, uint32 [characters], and the place in the text that each comes from, int64 [characters].
    """
    codes, _ = code_points([text])
    folded, places = _table()[codes], np.arange(len(codes))
    counts = np.asarray(folded != _DROPPED, np.int64)
    alone = np.flatnonzero(folded == _ALONE)
    if not len(alone):
        return folded[folded != _DROPPED], places[folded != _DROPPED]
    longer = [_fold_alone(text[place]) for place in alone.tolist()]
    counts[alone] = [len(each) for each in longer]
    places = np.repeat(places, counts)
    found = folded[places]
    found[folded[places] == _ALONE] = code_points(longer)[0]
    return found, places


def _fold_alone(character: str) -> str:
    return "".join(map(_fold_character, unicodedata.normalize("NFKC", character)))
