"""Word lists: read from TSV, found in a text by longest match. A list of the user's is never printed."""

from __future__ import annotations

import hashlib
import importlib.resources
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pangu_alpha.corpus.rules.script import simplified
from pangu_alpha.files.reading import read_text
from pangu_alpha.files.shown import shown

EXCEPTION = "exception"  # the category of longer words that free a shorter one within them
SHIPPED = ("advertisement", "template")


@dataclass(frozen=True)
class WordList:
    """Words to look for.

    Args:
        words: Folded (see `folded`), with their categories.
        exceptions: Longer words, such as 性别 for 性, inside which no word counts.
    """

    words: dict[str, str]
    exceptions: frozenset[str] = frozenset()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the list, which stands for it in manifests."""
        rows = sorted([*self.words.items(), *((word, EXCEPTION) for word in self.exceptions)])
        return hashlib.sha256("\n".join("\t".join(row) for row in rows).encode("utf-8")).hexdigest()

    @cached_property
    def _automaton(self) -> Any:
        import ahocorasick

        automaton = ahocorasick.Automaton()
        for word in [*self.words, *self.exceptions]:
            automaton.add_word(word, (len(word), word not in self.exceptions))
        automaton.make_automaton()
        return automaton

    def found(self, text: str) -> list[str]:
        """The words in a text, folded, in order of their places, as often as they occur.

        Matches do not overlap: of two that do, the one that begins first counts, of two that begin together
        the longer one.
        """
        if not self.words:
            return []
        text = folded(simplified(text)[0])
        return [text[start:stop] for start, stop in self._matches(text)]

    def _matches(self, text: str) -> Iterable[tuple[int, int]]:
        at: dict[int, tuple[int, bool]] = {}  # start -> the longest word there, and whether it counts
        for last, (size, counts) in self._automaton.iter(text):
            start = last + 1 - size
            if size > at.get(start, (0, False))[0]:
                at[start] = (size, counts)
        stop = 0
        for start in sorted(at):
            size, counts = at[start]
            if start >= stop:
                stop = start + size
                if counts:
                    yield start, stop


def folded(text: str) -> str:
    """A text in simplified Chinese as it is compared with a list: NFKC, lower case."""
    return unicodedata.normalize("NFKC", text).lower()


def load_words(path: str) -> WordList:
    """Reads a list: one word a line, with its category and weight after tabs; # begins a comment.

    The category `exception` marks a longer word that frees a shorter one. The weight is kept out of use.

    Args:
        path: A file, the name of a shipped list (SHIPPED), or "" for an empty list.

    Raises:
        ValueError: The file is not UTF-8, or holds no word; no message shows a word.
        OSError: The file cannot be read.
    """
    if not path:
        return WordList({})
    if path in SHIPPED:
        text = (importlib.resources.files(__package__) / "lists" / f"{path}.tsv").read_text("utf-8")
    else:
        text = read_text(Path(path))
    words, exceptions = {}, set()
    for line in text.removeprefix("\ufeff").splitlines():
        cells = [cell.strip() for cell in line.split("\t")]
        word = folded(simplified(cells[0])[0])
        if not word or line.startswith("#"):
            continue
        category = cells[1] if len(cells) > 1 else ""
        if category == EXCEPTION:
            exceptions.add(word)
        else:
            words[word] = category
    if not words:
        raise ValueError(f"{shown(path)}: holds no word; write one a line, then a tab and its category")
    return WordList(words, frozenset(exceptions - words.keys()))
