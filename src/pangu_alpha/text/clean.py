"""Cleans Chinese web and novel text and counts what each rule removes. Knows no files and no tokens."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

from pangu_alpha.config.option import option
from pangu_alpha.config.schema import validate
from pangu_alpha.text.characters import INVISIBLE, LINE_END, NOT_HAN, SPACES
from pangu_alpha.text.ledger import CharacterLedger


@dataclass(frozen=True)
class CleanRules:
    """Which cleaning rules apply. The defaults keep every line of prose that is not a repetition.

    Raises:
        ConfigError: Lists all fields that have the wrong type or lie outside their bounds.
    """

    strip_invisible: bool = option(True, "drop control, zero-width and direction characters")
    fold_spaces: bool = option(
        True, "make one plain space of every run of spaces, tabs and wide spaces, and trim lines"
    )
    keep_blank_lines: bool = option(False, "keep one blank line where there were several; false keeps none")
    drop_duplicate_lines: bool = option(
        True, "drop a line that came before, in this document or an earlier one of the same file"
    )
    duplicate_min_characters: int = option(
        15, 'shorter lines, such as "诗曰：", may repeat', at_least=0, unit="characters"
    )
    min_line_characters: int = option(0, "drop shorter lines", at_least=0, unit="characters")
    min_line_han: float = option(
        0.0, "drop lines with a smaller share of Han among their characters", at_least=0, at_most=1
    )
    min_document_characters: int = option(
        1, "drop documents that are shorter after all other rules", at_least=0, unit="characters"
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class CleanReport:
    """Counts of what cleaning received, what it kept, and what each rule removed; reports add up with `+`.

    Lines in include blank ones, and characters include line ends. `invisible_characters` are removed by
    `strip_invisible`, `duplicate_lines` by `drop_duplicate_lines`, `short_lines` by `min_line_characters`,
    `foreign_lines` by `min_line_han`, and `short_documents` (empty ones included) by
    `min_document_characters`.
    """

    documents_in: int = 0
    documents_out: int = 0
    lines_in: int = 0
    lines_out: int = 0
    characters_in: int = 0
    characters_out: int = 0
    invisible_characters: int = 0
    blank_lines: int = 0
    duplicate_lines: int = 0
    short_lines: int = 0
    foreign_lines: int = 0
    short_documents: int = 0

    def __add__(self, other: CleanReport) -> CleanReport:
        return CleanReport(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class Cleaner:
    """Cleans documents one after another; a line counts as a duplicate if any earlier document had it.

    Args:
        rules: Rules to apply; None is `CleanRules()`.
    """

    def __init__(self, rules: CleanRules | None = None) -> None:
        self.rules = rules or CleanRules()
        self._seen: set[bytes] = set()
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()  # characters, by reason

    @property
    def report(self) -> CleanReport:
        """The counts so far."""
        return CleanReport(**self._counts)

    @property
    def ledger(self) -> CharacterLedger:
        """Where the characters went so far; the line end of a dropped line counts with that line."""
        counts = self._counts
        dropped = {reason: count for reason, count in self._dropped.items() if count}
        return CharacterLedger(counts["characters_in"], counts["characters_out"], dropped)

    def clean(self, text: str) -> str:
        """Returns the cleaned document, or "" when nothing is left of it."""
        counts = self._counts
        counts.update(documents_in=1, characters_in=len(text))
        if self.rules.strip_invisible:
            kept = INVISIBLE.sub("", text)
            gone = len(text) - len(kept)
            if gone:
                counts["invisible_characters"] += gone
                replacements = text.count("\ufffd")  # what the reader put in the place of bad bytes
                self._dropped["replacement_characters"] += replacements
                self._dropped["invisible_characters"] += gone - replacements
            text = kept
        unified = LINE_END.sub("\n", text)
        self._dropped["line_ends"] += len(text) - len(unified)
        joined = "\n".join(self._lines(unified.split("\n")))
        cleaned = joined.strip("\n")
        self._dropped["blank_lines"] += len(joined) - len(cleaned)
        if len(cleaned) < max(self.rules.min_document_characters, 1):
            counts["short_documents"] += 1
            self._dropped["short_documents"] += len(cleaned)
            return ""
        lines_out = cleaned.count("\n") + 1
        counts.update(documents_out=1, characters_out=len(cleaned), lines_out=lines_out)
        return cleaned

    def clean_all(self, texts: Iterable[str]) -> Iterator[str]:
        """Yields the cleaned documents in their order, without those of which nothing is left."""
        return filter(None, map(self.clean, texts))

    def _lines(self, lines: list[str]) -> Iterator[str]:
        self._counts["lines_in"] += len(lines)
        after_blank, dropped = False, self._dropped
        kept, problem = 0, None
        for line in lines:
            if self.rules.fold_spaces:
                folded = SPACES.sub(" ", line).strip(" ")
                if len(folded) != len(line):
                    dropped["spaces"] += len(line) - len(folded)
                line = folded
            if line.strip():
                problem = self._problem(line)
            else:
                keep = self.rules.keep_blank_lines and not after_blank
                problem = None if keep else "blank_lines"
            after_blank = not line.strip()
            if problem:
                self._counts[problem] += 1
                dropped[problem] += len(line) + 1
            else:
                kept += 1
                yield line
        if problem and not kept:  # n lines have n - 1 line ends between them
            dropped[problem] -= 1

    def _problem(self, line: str) -> str | None:
        """The name of the count under which a non-blank line is dropped, or None for a line that stays."""
        rules = self.rules
        if len(line) < rules.min_line_characters:
            return "short_lines"
        if rules.min_line_han and len(NOT_HAN.sub("", line)) < rules.min_line_han * len(line):
            return "foreign_lines"
        if rules.drop_duplicate_lines and len(line) >= rules.duplicate_min_characters:
            # A digest of 16 bytes takes the place of the line, to save memory. Among 2^32 lines the chance of
            # even one false match is about 2^-65.
            key = hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if key in self._seen:
                return "duplicate_lines"
            self._seen.add(key)
        return None
