"""One pass over the measures of all documents: distributions, overlap of rules, and documents to show."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pangu_alpha.corpus.hashing import drawn
from pangu_alpha.corpus.report.finished import FinishedRun
from pangu_alpha.corpus.rules import RULE_NAMES, RULES, Rule

SAMPLES = 20  # documents of each kind that are shown for a rule
# Measures that are no shares. Their bars are one number wide up to 10.
NUMBERS = (
    "body_characters", "characters", "advertisement_words", "sensitive_words", "sensitive_hits",
    "personal_data", "stop_characters", "mean_line",
)  # fmt: skip
_SHARES = np.linspace(0, 1, 51)
_COUNTS = np.unique(np.rint(np.concatenate([np.arange(11), np.geomspace(10, 1e7, 49)])))


class Distribution:
    """How often a measure takes which values, where its rule applies.

    Args:
        bound: Of the rule; the border of a bar lies at it.
    """

    def __init__(self, rule: Rule, bound: float) -> None:
        self.rule, self.bound = rule, bound
        self.is_share = rule.name not in NUMBERS
        borders = _SHARES if self.is_share else _COUNTS
        if rule.direction == "at_least":
            borders = np.union1d(borders, [bound])
        elif self.is_share and 0 < bound < 1:
            # the bound itself is allowed, so the bar that is not begins behind it
            borders = np.union1d(borders[borders != bound], [np.nextafter(bound, 1)])
        self.borders = borders
        self.counts = np.zeros(len(borders) - 1, np.int64)

    @property
    def wrong(self) -> np.ndarray:
        """Whether the values of a bar are on the wrong side of the bound, bool [bars]."""
        return (
            self.borders[1:] <= self.bound
            if self.rule.direction == "at_least"
            else self.borders[:-1] > self.bound
        )

    def add(self, values: np.ndarray) -> None:
        """Counts values, float32 [documents]; what lies beyond the borders counts in the last bar."""
        self.counts += np.histogram(np.minimum(values, self.borders[-1]), self.borders)[0]


@dataclass
class Chosen:
    """The documents with the least keys, of all that are offered; each is a key with a row."""

    most: int = SAMPLES
    held: list[tuple[float, float, int, float]] = field(default_factory=list)

    def offer(self, key: np.ndarray, tie: np.ndarray, ids: np.ndarray, values: np.ndarray) -> None:
        """Offers documents; `tie` decides between equal keys."""
        order = np.lexsort((tie, key))[: self.most]
        rows = zip(*(each[order].tolist() for each in (key, tie, ids, values)), strict=True)
        self.held = heapq.nsmallest(self.most, [*self.held, *rows])


@dataclass
class Measured:
    """What the pass found.

    Args:
        by_rule: Of each rule that applies to a source.
        overlap: Documents that break rule i and rule j, int64 [rules, rules].
        dropped: Of each rule, some documents for which it was the reason, by least hash of id and rule.
        kept: Of each rule, some that were kept and come nearest to the bound.
        documents: All that were measured.
    """

    by_rule: dict[str, Distribution] = field(default_factory=dict)
    overlap: np.ndarray = field(default_factory=lambda: np.zeros((len(RULES), len(RULES)), np.int64))
    dropped: dict[str, Chosen] = field(default_factory=dict)
    kept: dict[str, Chosen] = field(default_factory=dict)
    documents: int = 0


def measure_run(run: FinishedRun) -> Measured:
    """Reads the measures of a run."""
    found = Measured()
    for source, table in run.tables("filter", "measures"):
        bounds = run.profile.bounds_of(run.kinds[source])
        ids, mask = table["id"].to_numpy(), table["mask"].to_numpy()
        broken = mask[:, None] >> np.arange(len(RULES)) & 1
        found.overlap += broken.T @ broken
        found.documents += len(ids)
        for place in np.flatnonzero(~np.isnan(bounds)).tolist():
            _add_rule(found, place, float(bounds[place]), table, ids, mask)
    return found


def _add_rule(
    found: Measured, place: int, bound: float, table: Any, ids: np.ndarray, mask: np.ndarray
) -> None:
    name = RULE_NAMES[place]
    values = table[name].to_numpy()
    found.by_rule.setdefault(name, Distribution(RULES[place], bound)).add(values)
    hashes = drawn(ids, place)
    gone = pc.equal(table["reason"], name).fill_null(False).to_numpy()
    for chosen, rows, keys in (
        (found.dropped, gone, hashes),
        (found.kept, mask == 0, np.abs(values - bound)),
    ):
        picked = chosen.setdefault(name, Chosen())
        picked.offer(keys[rows], hashes[rows], ids[rows], values[rows])


def cluster_sizes(run: FinishedRun, stage: str) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of clusters of duplicates above 1, and the number of clusters of each, int64 [sizes] each."""
    counts: dict[int, int] = {}
    for _, table in run.tables(stage, "removals", ["id", "kept_id", "cluster_size"]):
        kept = table.filter(pc.equal(table["id"], table["kept_id"]))
        sizes, times = np.unique(kept["cluster_size"].to_numpy(), return_counts=True)
        for size, number in zip(sizes.tolist(), times.tolist(), strict=True):
            counts[size] = counts.get(size, 0) + number
    sizes = np.array(sorted(counts), np.int64)
    return sizes, np.array([counts[size] for size in sizes.tolist()], np.int64)


def some_removals(run: FinishedRun, stage: str) -> list[tuple[int, int]]:
    """Some removed documents with the copy that was kept, by least hash of the id."""
    chosen = Chosen()
    for _, table in run.tables(stage, "removals", ["id", "kept_id"]):
        gone = table.filter(pc.not_equal(table["id"], table["kept_id"]))
        ids = gone["id"].to_numpy()
        hashes = drawn(ids, len(RULES))
        # the kept id does not fit into a float exactly, so it is looked up by the place
        chosen.offer(hashes, hashes, ids, ids.astype(np.float64))
    wanted = {id for _, _, id, _ in chosen.held}
    pairs: dict[int, int] = {}
    for _, table in run.tables(stage, "removals", ["id", "kept_id"]):
        gone = table.filter(pc.not_equal(table["id"], table["kept_id"]))
        for id, kept in zip(gone["id"].to_pylist(), gone["kept_id"].to_pylist(), strict=True):
            if id in wanted:
                pairs[id] = kept
    return [(id, pairs[id]) for _, _, id, _ in chosen.held]
