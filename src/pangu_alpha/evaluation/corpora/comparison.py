"""The figures of a comparison of corpora, and how they read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pangu_alpha.evaluation.contamination import LONGEST
from pangu_alpha.evaluation.results.table import markdown_table


@dataclass(frozen=True)
class Development:
    """What became of the development set.

    Args:
        lines: Lines that the files have.
        seen: Lines removed because a variant shares an n-gram of LONGEST tokens with them.
        too_short: Lines kept of which nothing can be said, since they have fewer tokens than that.
    """

    lines: int
    seen: int
    too_short: int


@dataclass(frozen=True)
class Variant:
    """One corpus and how well the networks trained on it predict the development set.

    Args:
        tokens: Tokens that the corpus has.
        epochs: How often a network read them.
        bits: Bits a character on the development set, by seed.
    """

    name: str
    documents: int
    tokens: int
    epochs: float
    bits: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.bits))

    @property
    def deviation(self) -> float:
        """Sample standard deviation over the seeds."""
        return float(np.std(self.bits, ddof=1))


@dataclass(frozen=True)
class CorporaComparison:
    """The result of a comparison; `gap` is positive where the second variant predicts better."""

    first: Variant
    second: Variant
    development: Development
    tokens: int
    characters: int

    @property
    def gaps(self) -> tuple[float, ...]:
        """Bits a character by which the second variant is better, by seed."""
        return tuple(a - b for a, b in zip(self.first.bits, self.second.bits, strict=True))

    @property
    def gap(self) -> float:
        """Mean of the gaps."""
        return float(np.mean(self.gaps))

    @property
    def sigmas(self) -> float:
        """The gap in units of the pooled standard deviation of one network; infinite if that is 0."""
        pooled = math.sqrt((self.first.deviation**2 + self.second.deviation**2) / 2)
        return self.gap / pooled if pooled else math.copysign(math.inf, self.gap)

    @property
    def better(self) -> str | None:
        """The variant that is better with every seed, or None."""
        if all(gap > 0 for gap in self.gaps):
            return self.second.name
        return self.first.name if all(gap < 0 for gap in self.gaps) else None


def comparison_text(comparison: CorporaComparison) -> str:
    """Describes a comparison as a table and a verdict in words."""
    found, both = comparison, (comparison.first, comparison.second)
    rows = [
        (
            each.name,
            f"{each.documents:,}",
            f"{each.tokens:,}",
            f"{each.epochs:.2f}",
            *(f"{bits:.4f}" for bits in each.bits),
            f"{each.mean:.4f}",
            f"{each.deviation:.4f}",
        )
        for each in both
    ]
    seeds = [f"seed {number}" for number in range(1, len(found.gaps) + 1)]
    header = ("Corpus", "Documents", "Tokens", "Epochs", *seeds, "Mean", "Deviation")
    kept = found.development
    return "\n".join(
        [
            "bits a character on the development set; lower is better",
            "",
            markdown_table(header, rows, range(1, len(header))),
            "",
            f"development set: {kept.lines:,} lines, {kept.seen:,} of them removed because a corpus has "
            f"{LONGEST} tokens of them in a row, {kept.too_short:,} too short to tell; "
            f"{found.tokens:,} tokens ({found.characters:,} characters) are scored",
            _verdict(found),
        ]
    )


def _verdict(found: CorporaComparison) -> str:
    count = len(found.gaps)
    size = (
        f"by {abs(found.gap):.4f} bits a character in the mean, {abs(found.sigmas):.1f} standard deviations"
    )
    if found.better is None:
        wins = sum(gap > 0 for gap in found.gaps)
        return f"no corpus is better with every seed: {found.second.name} is with {wins} of {count}"
    return f"{found.better} is better with {count} of {count} seeds, {size}"
