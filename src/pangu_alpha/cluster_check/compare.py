"""Compares two reports: verdicts that changed, and figures that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    before, after = (
        {each["what"]: each for each in found.get("findings", ()) if isinstance(each["value"], int | float)}
        for found in (first, second)
    )
    for what in before.keys() & after.keys():
        one, other = (float(each[what]["value"]) for each in (before, after))
        changed = before[what]["passed"] != after[what]["passed"]
        if changed or abs(one - other) > share * max(abs(one), abs(other)):
            times = f" ({other / one:.2f} times)" if one else ""
            yield f"{shown(what)}: {one:.4g} -> {other:.4g}{times}"


def _short(value: Any) -> str:
    text = shown(str(value))
    return text if len(text) <= 120 else f"{text[:117]}..."
