"""Examples for the spam model that need no people: what the extractor kept of pages against what it cut away.

Navigation, link lists and notices come from the same pages as the main text, so a model cannot tell them by
topic. Sites are held out as a whole, because the pages of one site share their boilerplate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

from pangu_alpha.corpus.hashing import drawn

_LONGEST = 200  # characters of a piece
_SHORTEST = 20


@dataclass
class Examples:
    """Labelled pieces of text.

    Args:
        texts: Pieces.
        spam: Whether a piece is boilerplate or an advertisement.
        sites: Name of the site that a piece is from.
    """

    texts: list[str] = field(default_factory=list)
    spam: list[bool] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)

    def part(self, chosen: np.ndarray) -> Examples:
        """Those at which `chosen`, bool [examples], holds."""
        places = np.flatnonzero(chosen).tolist()
        return Examples(*([each[place] for place in places] for each in (self.texts, self.spam, self.sites)))


def spam_examples(pages: Iterable[tuple[str, str, str]], spam_texts: Iterable[str] = ()) -> Examples:
    """Cuts pages into labelled pieces, none twice: about as many of main text as of boilerplate of each page.

    Args:
        pages: URL, main text and boilerplate of each page.
        spam_texts: Texts that are known to be spam, such as advertisements; each counts as a site of its own.
    """
    found, seen = Examples(), set[str]()
    for url, text, boilerplate in pages:
        site = _site(url)
        bad = [piece for piece in _pieces(boilerplate) if piece not in seen]
        good = [piece for piece in _pieces(text) if piece not in seen][: max(len(bad), 1)]
        for piece, spam in [*((each, False) for each in good), *((each, True) for each in bad)]:
            if piece not in seen:
                seen.add(piece)
                _add(found, piece, spam, site)
    for number, text in enumerate(spam_texts):
        for piece in _pieces(text):
            if piece not in seen:
                seen.add(piece)
                _add(found, piece, True, f"spam {number}")
    return found


def _site(url: str) -> str:
    try:
        return urlsplit(url).hostname or url
    except ValueError:  # of a malformed address
        return url


def _add(found: Examples, piece: str, spam: bool, site: str) -> None:
    found.texts.append(piece)
    found.spam.append(spam)
    found.sites.append(site)


def _pieces(text: str) -> Iterator[str]:
    lines = " ".join(text.split())
    for start in range(0, len(lines), _LONGEST):
        piece = lines[start : start + _LONGEST]
        if len(piece) >= _SHORTEST:
            yield piece


def held_out(sites: Sequence[str], share: float = 0.2, seed: int = 1) -> np.ndarray:
    """Whether an example is held out of training, bool [examples]: by its site, so never half of a site."""
    names = sorted(set(sites))
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    outside = drawn(np.frombuffer(digests, "<u8"), seed) < share
    by_name = dict(zip(names, outside.tolist(), strict=True))
    return np.array([by_name[site] for site in sites], np.bool_)


@dataclass(frozen=True)
class HeldOut:
    """How well scores tell the classes of held-out examples apart, at a bound.

    Args:
        examples: Number of them.
        precision: Share of spam among what scores above the bound; None if nothing does.
        recall: Share of the spam that scores above the bound.
        area: Probability that spam scores above a good text: the area below the ROC curve.
    """

    examples: int
    precision: float | None
    recall: float
    area: float

    @classmethod
    def of(cls, scores: np.ndarray, spam: Sequence[bool], bound: float) -> HeldOut:
        """Measures scores.

        Raises:
            ValueError: Only one class is held out.
        """
        label = np.asarray(spam, np.bool_)
        positive = int(label.sum())
        if positive in (0, len(label)):
            raise ValueError(f"all {len(label)} held-out examples are of one class; give pages of more sites")
        above = scores > bound
        right = int((above & label).sum())
        # ties count half: ranks are means of the first and the last place of equal scores
        ordered = np.sort(scores)
        ranks = (np.searchsorted(ordered, scores) + np.searchsorted(ordered, scores, "right") + 1) / 2
        area = (ranks[label].sum() - positive * (positive + 1) / 2) / (positive * (len(label) - positive))
        return cls(
            len(label), right / int(above.sum()) if above.any() else None, right / positive, float(area)
        )
