"""Compares two models on the items that both were asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pangu_alpha.evaluation.results.reading import Recorded, read_results
from pangu_alpha.evaluation.results.table import markdown_table
from pangu_alpha.evaluation.statistics import Difference, difference, holm
from pangu_alpha.files.shown import quoted, shown

_HEADER = (
    "Result", "n", "Metric", "A", "B", "B - A", "95 %", "Only A", "Only B", "p", "p (Holm)", "Test",
)  # fmt: skip
_TOLD = 5  # most names in an error


@dataclass(frozen=True)
class Comparison:
    """One figure of two models on the same items.

    Args:
        name: Name of the result.
        key: The figure's key.
        n: Number of items.
        first: The first model's figure.
        second: The second model's figure.
        adjusted: p by Holm over all compared results.
    """

    name: str
    key: str
    n: int
    first: float
    second: float
    difference: Difference
    adjusted: float


def compare_results(first: str | Path, second: str | Path, seed: int = 0) -> tuple[Comparison, ...]:
    """Compares the main figures of all results that two evaluations have in common.

    Args:
        first: Results of the first model, a file or its folder; those of lm-evaluation-harness, too.
        seed: Of the bootstrap and of the randomization test.

    Raises:
        FileNotFoundError: There are no results, or no items.
        ValueError: The two have no result in common, or other items in one of them; lists all of them.
    """
    one, two = read_results(first), read_results(second)
    common = [name for name in one if name in two]
    if not common:
        raise ValueError(
            f"{shown(first)} and {shown(second)} have no result in common: {_names(one)} there, "
            f"{_names(two)} here; evaluate both with the same tasks, template, shots and seed"
        )
    faults = [fault for name in common if (fault := _misfit(one[name], two[name]))]
    if faults:
        heading = f"{shown(first)} and {shown(second)} differ in their items:"
        raise ValueError("\n  - ".join([heading, *faults]))
    found = [_compared(one[name], two[name], seed) for name in common]
    adjusted = holm({each.name: each.difference.p for each in found})
    return tuple(replace(each, adjusted=adjusted[each.name]) for each in found)


def _names(results: dict[str, Recorded]) -> str:
    more = [f"and {len(results) - _TOLD} more"] if len(results) > _TOLD else []
    return ", ".join([*map(shown, [*results][:_TOLD]), *more])


def _misfit(one: Recorded, two: Recorded) -> str | None:
    """What keeps two results from being compared item by item."""
    if len(one.ids) != len(two.ids):
        return (
            f"{one.name}: {len(one.ids):,} items and {len(two.ids):,}; evaluate both with the same files and "
            "the same --limit"
        )
    mine = dict(zip(one.ids, one.docs, strict=True))
    for name, doc in zip(two.ids, two.docs, strict=True):
        if name not in mine:
            return f"{one.name}: item {quoted(name)} is in the second only; evaluate both with the same files"
        if mine[name] != doc:
            return f"{one.name}: item {quoted(name)} has another text or another right answer in the second"
    if not one.figures.keys() & two.figures.keys():
        return f"{one.name}: no figure in common: {', '.join(one.figures)} and {', '.join(two.figures)}"
    return None


def _compared(one: Recorded, two: Recorded, seed: int) -> Comparison:
    key = next(key for key in one.figures if key in two.figures)
    places = {name: place for place, name in enumerate(two.ids)}
    order = [places[name] for name in one.ids]
    first, second = one.figures[key], two.figures[key].subset(order)
    found = difference(first, second, one.groups, seed)
    return Comparison(one.name, key, len(one.ids), first.value, second.value, found, found.p)


def format_comparison(found: Sequence[Comparison], first: str, second: str) -> str:
    """Returns a Markdown page of the comparison.

    Args:
        first: Name of the first model.
        second: Name of the second model.
    """
    rows = [_row(each) for each in found]
    notes = (
        "The interval is of B - A, by the bootstrap over passages. p is two-sided: McNemar's exact test "
        "where independent items are right or wrong, else approximate randomization over passages. Holm's p "
        f"allows for the {len(found)} results compared: below 0.05, the difference is unlikely to be chance."
    )
    table = markdown_table(_HEADER, rows, (1, 3, 4, 5, 7, 8, 9, 10))
    return "\n\n".join([f"A: {shown(first)}  \nB: {shown(second)}", table, notes])


def _row(each: Comparison) -> tuple[str, ...]:
    found = each.difference
    shares = not each.key.startswith("ppl,")

    def show(value: float, sign: str = "") -> str:
        return f"{100 * value if shares else value:{sign}.2f}"

    only = ("", "") if found.discordant is None else tuple(map(str, found.discordant))
    ends = f"{show(found.interval.low, '+')} to {show(found.interval.high, '+')}"
    return (
        each.name,
        f"{each.n:,}",
        each.key,
        show(each.first),
        show(each.second),
        show(found.value, "+"),
        ends,
        *only,
        f"{found.p:.2g}",
        f"{each.adjusted:.2g}",
        found.test,
    )
