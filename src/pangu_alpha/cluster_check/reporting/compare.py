"""Compares two reports: verdicts that changed, and figures that differ."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pangu_alpha.files.reading import ReadError, read_json, require_file
from pangu_alpha.files.shown import shown


def read_report(path: Path) -> dict[str, Any]:
    """Reads report.json, of a folder of results or by its own path.

    Raises:
        ReadError: There is none, or it is no report.
    """
    file = path / "report.json" if path.is_dir() else path
    values = read_json(require_file(file))
    if not isinstance(values, dict) or not isinstance(values.get("checks"), list):
        raise ReadError(f"{shown(file)}: is no report of check-cluster")
    return values


def compared(one: Mapping[str, Any], other: Mapping[str, Any], share: float) -> Iterator[str]:
    """Yields a line for every difference of two reports.

    Args:
        share: Relative difference of two figures from which they are named.
    """
    for name in ("program", "setup"):
        if one.get(name) != other.get(name):
            yield f"{name}: {_short(one.get(name))} -> {_short(other.get(name))}"
    before, after = (_by_name(report) for report in (one, other))
    for name in dict.fromkeys([*before, *after]):
        first, second = before.get(name, {}), after.get(name, {})
        verdicts = first.get("verdict", "not there"), second.get("verdict", "not there")
        if verdicts[0] != verdicts[1]:
            why = second.get("why") or ""
            yield f"{name}: {verdicts[0]} -> {verdicts[1]}{f' ({shown(why)})' if why else ''}"
        yield from (f"{name}: {line}" for line in _figures(first, second, share))


def changed_for_worse(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the checks that passed in the first report and do not in the second."""
    before, after = (_by_name(report) for report in (one, other))
    return [
        name
        for name, each in before.items()
        if each["verdict"] == "passed" and after.get(name, {}).get("verdict") not in ("passed", "skipped")
    ]


def _by_name(report: Mapping[str, Any]) -> dict[str, Any]:
    return {each["name"]: each for each in report["checks"]}


def _figures(first: Mapping[str, Any], second: Mapping[str, Any], share: float) -> Iterator[str]:
    """Yields a line for every finding that differs or that one of the two lacks, if both were judged."""
    if not (first.get("findings") and second.get("findings")):
        return
    before, after = (_by_what(each["findings"]) for each in (first, second))
    for what in dict.fromkeys([*before, *after]):
        if what in before and what in after:
            yield from _difference(what, before[what], after[what], share)
        else:
            there = "second" if what in after else "first"
            yield f"{shown(what)}: only in the {there} report"


def _by_what(findings: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Findings by what they compare, without what stands in brackets, such as the slowest rank."""
    counts = Counter(_plain(each["what"]) for each in findings)
    return {
        each["what"] if counts[_plain(each["what"])] > 1 else _plain(each["what"]): each for each in findings
    }


def _plain(what: str) -> str:
    return re.sub(r" *\([^()]*\)", "", what)


def _difference(
    what: str, before: Mapping[str, Any], after: Mapping[str, Any], share: float
) -> Iterator[str]:
    one, other = before["value"], after["value"]
    changed = before["passed"] != after["passed"]
    if not all(isinstance(each, int | float) for each in (one, other)):
        if changed or one != other:
            yield f"{shown(what)}: {_value(one)} -> {_value(other)}"
    elif changed or abs(one - other) > share * max(abs(one), abs(other)):
        times = f" ({other / one:.2f} times)" if one else ""
        yield f"{shown(what)}: {one:.4g} -> {other:.4g}{times}"


def _value(value: Any) -> str:
    """A value in words; null is what JSON has for a number that is not finite."""
    if value is None:
        return "not finite"
    return f"{value:.4g}" if isinstance(value, float) else _short(value)


def _short(value: Any) -> str:
    text = shown(str(value))
    return text if len(text) <= 120 else f"{text[:117]}..."
