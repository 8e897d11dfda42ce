"""report.md and report.json of a folder of results, with pictures of what was measured by size or step."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pangu_alpha
from pangu_alpha.cluster.tables.rank_table import read
from pangu_alpha.cluster_check.check import Finding, Record, Result
from pangu_alpha.cluster_check.records import read_records, results_of
from pangu_alpha.cluster_check.reporting import pictures
from pangu_alpha.cluster_check.reporting.anonymous import Anonymous
from pangu_alpha.cluster_check.setup import Setup
from pangu_alpha.cluster_check.table import CHECKS, PARTS
from pangu_alpha.files.reading import ReadError
from pangu_alpha.files.writing import finite, write_json, write_text

_MOST_FIGURES = 40  # findings of a check that have no bound and are shown


def write_report(out: Path, anonymous: bool = False) -> None:
    """Writes the report of the results that there are.

    Args:
        anonymous: Replace host names, addresses and folders.
    """
    setup, results = Setup.load(out), results_of(out, CHECKS)
    drawn = pictures.draw(out, {name: _records(out, result) for name, result in results.items()})
    values = finite(_values(setup, results, drawn))
    if anonymous:
        values = Anonymous(host_names(out, setup, results), _folders(out, setup)).value(values)
    write_json(out / "report.json", values)
    write_text(out / "report.md", "\n".join(_lines(values)) + "\n")


def _records(out: Path, result: Result) -> dict[str, list[Record]]:
    """By measurement, the records that were written; those that cannot be read are left out."""
    found: dict[str, list[Record]] = {}
    for name, folder in result.records.items():
        with suppress(ReadError, OSError):
            found[name] = read_records(out / folder)
    return found


def _folders(out: Path, setup: Setup) -> dict[str, str]:
    """Paths that may occur in a report, and the words that stand for them."""
    source = Path(pangu_alpha.__file__).parents[1]
    found = {str(out.resolve()): "/out", str(source): "/source", sys.prefix: "/python"}
    named = {name: getattr(setup, name) for name in ("rank_table", "oracle", "released", "text")}
    return found | {path: f"/{name}" for name, path in named.items() if path}


def host_names(out: Path, setup: Setup, results: Mapping[str, Result]) -> set[str]:
    """Names of hosts that may occur in a report: those of the ranks' machines, and of the rank table."""
    names: set[str] = set()
    if (result := results.get("environment")) is not None:
        records = _records(out, result).get("machine", ())
        names |= {str(each["host"]) for each in records if "host" in each}
    if setup.rank_table:
        names |= {server.server_id for server in read(setup.rank_table).servers}
    return names | {socket.gethostname()}


def _values(setup: Setup, results: Mapping[str, Result], drawn: Sequence[str]) -> dict[str, Any]:
    """The report as plain values; report.json has them as they are."""
    return {
        "program": f"pangu_alpha {pangu_alpha.__version__}",
        "setup": {**asdict(setup), "oracle": bool(setup.oracle)},
        "checks": [
            {
                "name": check.name,
                "part": check.part,
                "shows": check.shows,
                "bounds": dict(check.bounds[setup.device]),
                **(asdict(results[check.name]) if check.name in results else {"verdict": "not run"}),
            }
            for check in CHECKS
        ],
        "pictures": list(drawn),
    }


def _lines(values: Mapping[str, Any]) -> Iterator[str]:
    setup, checks = values["setup"], values["checks"]
    nodes, ranks = len(setup["nodes"]), sum(map(len, setup["nodes"]))
    yield "# Check of a cluster"
    yield ""
    size = f"{_number(nodes, 'node')}, {_number(ranks, 'rank')}"
    yield f"{values['program']}, device {setup['device']}, {size}."
    yield ""
    yield _summary(checks)
    yield ""
    total = sum(each.get("seconds") or 0.0 for each in checks)
    yield f"The checks took {total / 60:.0f} minutes." if total >= 60 else f"The checks took {total:.0f} s."
    yield ""
    yield "| check | verdict | seconds | what it shows |"
    yield "| --- | --- | --- | --- |"
    for each in checks:
        seconds = f"{each['seconds']:.0f}" if each.get("seconds") else ""
        yield f"| {each['name']} | {_mark(each['verdict'])} | {seconds} | {each['shows']} |"
    for part in PARTS:
        yield from ("", f"## {part}")
        for each in checks:
            if each["part"] == part:
                yield from _check_lines(each)
    if values["pictures"]:
        yield from ("", "## Pictures", "")
        for name in values["pictures"]:
            yield f"![{name}]({name})"


def _summary(checks: Sequence[Mapping[str, Any]]) -> str:
    failed = [each["name"] for each in checks if each["verdict"] in ("failed", "died", "late")]
    passed = sum(each["verdict"] == "passed" for each in checks)
    left = [each["name"] for each in checks if each["verdict"] in ("skipped", "not run")]
    text = f"**{passed} of {len(checks)} checks passed.**"
    if failed:
        text += f" Not passed: {', '.join(failed)}."
    return text + (f" Not run: {', '.join(left)}." if left else "")


def _mark(verdict: str) -> str:
    return verdict if verdict in ("passed", "skipped", "not run") else f"**{verdict.upper()}**"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _check_lines(check: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", f"### {check['name']}: {check['verdict']}", "")
    if check.get("why"):
        yield from (_cell(check["why"]), "")
    if parts := check.get("parts"):
        took = ", ".join(f"{name} {seconds:.0f}" for name, seconds in parts.items())
        yield from (f"Seconds of its measurements, with the start of their processes: {took}.", "")
    findings = [Finding(**each) for each in check.get("findings", ())]
    judged = sorted((each for each in findings if each.rule), key=lambda each: each.passed)
    figures = [each for each in findings if not each.rule]
    if judged:
        yield from ("| what | found | must be | |", "| --- | --- | --- | --- |")
        for each in judged:
            yield f"| {_cell(each.what)} | {_text(each.value)} | {_cell(each.rule)} | {_good(each.passed)} |"
    if figures:
        yield from ("", "| figure | value |", "| --- | --- |")
        for each in figures[:_MOST_FIGURES]:
            yield f"| {_cell(each.what)} | {_text(each.value)} |"
        if len(figures) > _MOST_FIGURES:
            yield f"| ({len(figures) - _MOST_FIGURES} more in report.json) | |"
    if check.get("tail"):
        yield from ("", f"The end of {check['log']}:", "", *(f"    {line}" for line in check["tail"]))


def _good(passed: bool) -> str:
    return "passed" if passed else "**FAILED**"


def _text(value: float | str | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:.4g}" if isinstance(value, float) else _cell(str(value))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
