"""Rounds of a measurement: which of them the machine's other work disturbed, and what the quiet ones say.

Knows seconds and names; nothing of what was measured.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FACTOR = 1.15  # a round that takes so many times the lower quartile was disturbed
CROWD = 0.15  # cores that other processes may take from a round beyond those that it leaves free
MOST_DISTURBED = 1 / 3  # share of the rounds above which nothing is called quiet


@dataclass(frozen=True)
class Summary:
    """What the rounds of one program say.

    Args:
        seconds: Of all rounds.
        quiet_rounds: Indices of those that count: the quiet ones, or all if none was quiet.
        disturbed: Share of disturbed rounds.
    """

    seconds: tuple[float, ...]
    quiet_rounds: tuple[int, ...]
    disturbed: float

    @property
    def median(self) -> float:
        """Seconds, of the quiet rounds."""
        return statistics.median(self.seconds[number] for number in self.quiet_rounds)

    @property
    def spread(self) -> float:
        """Slowest over fastest of all rounds."""
        return max(self.seconds) / min(self.seconds)

    @property
    def quiet(self) -> bool:
        """Whether few enough rounds were disturbed for the median to count."""
        return self.disturbed <= MOST_DISTURBED


def summarize(
    seconds: Sequence[float],
    others: Sequence[float] | None = None,
    threads: int = 1,
    cores: int | None = None,
) -> Summary:
    """Separates quiet rounds from disturbed ones.

    A round is disturbed if other processes took cores that its threads needed. It is disturbed as well if it
    lies far above the lower quartile of the rest: what other work adds through memory or the host of a
    virtual machine shows in the time alone, and it never makes a round faster.

    Args:
        seconds: Positive times of the rounds, at least one.
        others: Cores that other processes used in each round; None if that is not known.
        threads: Of the program.
        cores: Of the machine; None is this one's.
    """
    free = (cores or os.cpu_count() or 1) - threads + CROWD
    alone = [n for n in range(len(seconds)) if others is None or others[n] <= free]
    if not alone:
        return Summary(tuple(seconds), tuple(range(len(seconds))), 1.0)
    limit = FACTOR * lower_quartile([seconds[n] for n in alone])
    quiet = tuple(n for n in alone if seconds[n] <= limit)
    return Summary(tuple(seconds), quiet, (len(seconds) - len(quiet)) / len(seconds))


def median_ratio(one: Summary, other: Summary) -> float | None:
    """Returns the median of one's seconds over the other's in the rounds quiet for both; None without any.

    Where a machine changes from round to round, this compares what ran side by side.
    """
    both = sorted({*one.quiet_rounds} & {*other.quiet_rounds})
    return statistics.median(one.seconds[n] / other.seconds[n] for n in both) if both else None


def lower_quartile(values: Sequence[float]) -> float:
    """The value below which a quarter lies; of one value, itself."""
    return statistics.quantiles(values, n=4, method="inclusive")[0] if len(values) > 1 else values[0]


@dataclass(frozen=True)
class Limit:
    """How near to the machine's limit programs come.

    Args:
        shares: Of each program, the median over its quiet rounds of limit / time, with the limit as it was
            measured around the round; None if no quiet round had a limit that kept still.
        shares_of_best: The same against the best limit of the whole run.
        changed: Share of the rounds around which the limit moved by more than FACTOR.
    """

    shares: dict[str, float | None]
    shares_of_best: dict[str, float]
    changed: float


def compare_with_limit(limits: Sequence[float], every: int, programs: Mapping[str, Summary]) -> Limit:
    """Compares rounds with the limit, which moves where a machine's memory and clock are shared with others.

    Args:
        limits: Seconds that the work of a round takes at best, as measured before the first round, then after
            every `every` rounds and after the last one.
        every: See above.
        programs: Their rounds.

    Raises:
        ValueError: A program was faster than every limit measured, which therefore is none.
    """
    best = min(limits)
    if below := [
        f"{name} ({min(s.seconds) * 1e3:.1f} ms)" for name, s in programs.items() if min(s.seconds) < best
    ]:
        raise ValueError(
            f"the limit, {best * 1e3:.1f} ms, is above the fastest round of {', '.join(below)}: what was "
            "measured is not the best that this machine can do. Run again when the machine is idle; if the "
            "error stays, machine.py needs a better method for this processor"
        )
    count = len(next(iter(programs.values())).seconds)
    around = [limits[n // every : n // every + 2] for n in range(count)]
    still = [n for n in range(count) if max(around[n]) <= FACTOR * min(around[n])]

    def share(summary: Summary) -> float | None:
        found = [min(around[n]) / summary.seconds[n] for n in summary.quiet_rounds if n in still]
        return statistics.median(found) if found else None

    return Limit(
        {name: share(summary) for name, summary in programs.items()},
        {name: best / summary.median for name, summary in programs.items()},
        (count - len(still)) / count,
    )


def verdict(programs: Mapping[str, Summary], limit: Limit | None = None) -> dict[str, Any]:
    """Whether a comparison is quiet, because all rounds are and the limit kept still; for the JSON line."""
    fields: dict[str, Any] = {}
    if limit:
        fields["share_of_limit"] = {name: _rounded(share) for name, share in limit.shares.items()}
        fields["share_of_best_limit"] = {name: round(each, 3) for name, each in limit.shares_of_best.items()}
        fields["limit_changed"] = round(limit.changed, 2)
    still = limit is None or limit.changed <= MOST_DISTURBED
    return {
        **fields,
        "quiet": still and all(each.quiet for each in programs.values()),
        "disturbed": {name: round(each.disturbed, 2) for name, each in programs.items()},
        "spread": {name: round(each.spread, 2) for name, each in programs.items()},
    }


def report(programs: Mapping[str, Summary], limit: Limit | None = None) -> None:
    """Prints a line a program, and a warning where the result does not count."""
    for name, each in programs.items():
        share = f"; {limit.shares[name]:.2f} of the limit" if limit and limit.shares.get(name) else ""
        print(
            f"{name}: {each.median * 1e3:.4g} ms, median of the quiet rounds{share}; {each.disturbed:.0%} of "
            f"the rounds disturbed, slowest / fastest {each.spread:.2f}"
        )
    noisy = [f"the rounds of {name}" for name, each in programs.items() if not each.quiet]
    if limit and limit.changed > MOST_DISTURBED:
        noisy.append("the measurements of the limit")
    if noisy:
        print(
            f"NOT QUIET: other work disturbed more than {MOST_DISTURBED:.0%} of {', '.join(noisy)}; measure "
            "again when the machine is idle",
            flush=True,
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
