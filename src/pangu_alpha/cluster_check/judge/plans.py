"""Whether the planner puts measured plans in their order, and how far its seconds are off."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from pangu_alpha.cluster_check.check import Evidence, Finding, Record
from pangu_alpha.planner.calibration.calibrate import spearman

# What the planner's numbers are made of, and the bound of the mean factor with them; "" for none.
NUMBERS = {
    "shipped": ("shipped numbers", ""),
    "parts": ("measured numbers of products, memory and links", "factor"),
    "left out": ("constants fitted to the other plans' steps", "fitted_factor"),
    "steps": ("constants fitted to all steps", ""),
}
LEAST = 3  # plans whose order says something


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields the measured steps, and by kind of numbers the factor and whether the order is kept."""
    record = evidence.one("predicted")
    measured = record["measured"]
    yield Finding("plans that were measured", len(measured), f"at least {LEAST}", len(measured) >= LEAST)
    for name, seconds, spread in zip(record["cases"], measured, record["spread"], strict=True):
        yield Finding(f"{name}: measured s a step", seconds)
        yield Finding(f"{name}: spread of the steps, half the distance of the quartiles", round(spread, 3))
    for kind, (words, bound) in NUMBERS.items():
        if kind in record["predicted"]:
            yield from _against(evidence, record, kind, words, bound)
    yield Finding("constants that the steps determine", ", ".join(record["fitted"]) or "none")


def _against(evidence: Evidence, record: Record, kind: str, words: str, bound: str) -> Iterator[Finding]:
    measured, predicted = record["measured"], record["predicted"][kind]
    for name, seconds in zip(record["cases"], predicted, strict=True):
        yield Finding(f"{words}: {name}, predicted s a step", seconds)
    factor, order = mean_factor(predicted, measured), round(spearman(predicted, measured), 3)
    what = f"{words}: factor between predicted and measured steps, mean"
    yield evidence.at_most(what, factor, bound) if bound else Finding(what, factor)
    what = f"{words}: rank correlation of predicted and measured steps"
    yield evidence.at_least(what, order, "order") if bound else Finding(what, order)
    kept = _order(predicted) == _order(measured)
    yield Finding(f"{words}: order of the plans", "kept" if kept else "changed")


def mean_factor(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """Mean of the larger one of two times over the smaller one: too little counts as too much does."""
    pairs = zip(predicted, measured, strict=True)
    return statistics.fmean(max(one / other, other / one) for one, other in pairs)


def _order(seconds: Sequence[float]) -> list[int]:
    return sorted(range(len(seconds)), key=lambda place: seconds[place])
