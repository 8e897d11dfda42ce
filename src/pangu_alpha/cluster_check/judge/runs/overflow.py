"""Whether an overflow on one rank skips the step on all, and whether the loss scale follows its schedule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from pangu_alpha.cluster_check.cases.overflow import OVERFLOWS, SCALE, STEPS
from pangu_alpha.cluster_check.check import Evidence, Finding, Record

_Take = Callable[[Sequence[Record]], list[Any]]


def judge(evidence: Evidence) -> Iterator[Finding]:
    """Yields the findings about skipped steps, unchanged values and loss scales, of all ranks."""
    yield Finding("runs", len(evidence.records), "at least 1", len(evidence.records) > 0)
    for name, records in evidence.records.items():
        yield _everywhere(f"{name}: steps that were skipped", records, _skipped, sorted(OVERFLOWS))
        yield _everywhere(f"{name}: steps whose norm was not finite", records, _infinite, sorted(OVERFLOWS))
        applied = [step for step in range(STEPS) if step not in OVERFLOWS]
        yield _everywhere(f"{name}: steps that changed weights or moments", records, _changed, applied)
        scales = schedule(SCALE.initial, SCALE.factor, SCALE.window, OVERFLOWS, STEPS)
        yield _everywhere(f"{name}: loss scales", records, _scales, scales)
        if all(each["copies"] for each in records):
            number = len({each["digest"] for each in records})
            yield Finding(f"{name}: different weights and moments at the end", number, "one", number == 1)


def schedule(
    initial: float, factor: float, window: int, overflows: Collection[int], steps: int
) -> list[float]:
    """The loss scale at each step: divided after an overflow, but never below 1; multiplied after a window.

    Written from the recipe's description (docs/training.md), apart from training's own code.
    """
    scales, scale, clean = [], initial, 0
    for step in range(steps):
        scales.append(scale)
        if step in overflows:
            scale, clean = max(scale / factor, 1.0), 0
            continue
        clean += 1
        if clean == window:
            scale, clean = scale * factor, 0
    return scales


def _everywhere(what: str, records: Sequence[Record], take: _Take, expected: Sequence[float]) -> Finding:
    """Compares a list of every rank with the expected one, and names the first rank that has another."""
    found = [take(each["steps"]) for each in records]
    wrong = [rank for rank, each in enumerate(found) if each != list(expected)]
    text = f"rank {wrong[0]}: {_words(found[wrong[0]])}" if wrong else "on every rank"
    return Finding(what, text, _words(expected), not wrong)


def _words(numbers: Sequence[float]) -> str:
    return ", ".join(f"{each:g}" for each in numbers) or "none"


def _skipped(steps: Sequence[Record]) -> list[int]:
    return [number for number, each in enumerate(steps) if not each["applied"]]


def _infinite(steps: Sequence[Record]) -> list[int]:
    return [number for number, each in enumerate(steps) if not each["finite"]]


def _changed(steps: Sequence[Record]) -> list[int]:
    return [number for number, each in enumerate(steps) if each["changed"]]


def _scales(steps: Sequence[Record]) -> list[float]:
    return [each["scale"] for each in steps]
