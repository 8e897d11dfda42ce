"""Rounds of a measurement: which of them the machine's other work disturbed, and what the quiet ones say.

Knows seconds and names; nothing of what was measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FACTOR = 1.15  # a round that takes so many times the lower quartile was disturbed
MOST_DISTURBED = 1 / 3  # share of the rounds above which nothing is called quiet


@dataclass(frozen=True)
class Summary:
    """What the rounds of one program say.

    Args:
        median: Of the quiet rounds, seconds.
        fastest: Of all rounds, seconds.
        spread: Slowest over fastest of all rounds.
        disturbed: Share of disturbed rounds.
    """

    median: float
    fastest: float
    spread: float
    disturbed: float

    @property
    def quiet(self) -> bool:
        """Whether few enough rounds were disturbed for the median to count."""
        return self.disturbed <= MOST_DISTURBED


def summarize(seconds: Sequence[float]) -> Summary:
    """Separates quiet rounds from disturbed ones.

    Other work of the machine only ever adds time. So the lower quartile is nearly free of it, and what lies
    far above is not the program's own time. At least a quarter of the rounds is always quiet.

    Args:
        seconds: Positive times of the rounds, at least one.
    """
    quartile = statistics.quantiles(seconds, n=4, method="inclusive")[0] if len(seconds) > 1 else seconds[0]
    quiet = [each for each in seconds if each <= FACTOR * quartile]
    disturbed = 1 - len(quiet) / len(seconds)
    return Summary(statistics.median(quiet), min(seconds), max(seconds) / min(seconds), disturbed)


def verdict(programs: Mapping[str, Summary]) -> dict[str, Any]:
    """Whether a comparison is quiet, which it is if every program's rounds are; fields of the JSON line."""
    return {
        "quiet": all(each.quiet for each in programs.values()),
        "disturbed": {name: round(each.disturbed, 2) for name, each in programs.items()},
        "spread": {name: round(each.spread, 2) for name, each in programs.items()},
    }


def report(programs: Mapping[str, Summary]) -> None:
    """Prints a line a program, and a warning where the result does not count."""
    for name, each in programs.items():
        print(
            f"{name}: {each.median * 1e3:.4g} ms, median of the quiet rounds; {each.disturbed:.0%} of the "
            f"rounds disturbed, slowest / fastest {each.spread:.2f}"
        )
    if noisy := [name for name, each in programs.items() if not each.quiet]:
        print(
            f"NOT QUIET: other work disturbed more than {MOST_DISTURBED:.0%} of the rounds of "
            f"{', '.join(noisy)}; measure again when the machine is idle",
            flush=True,
        )
