"""The files of a folder of results: records of ranks, and results of checks.

setup.json  report.md  report.json  results/CHECK.json
checks/CHECK/001/MEASUREMENT/rank_0000.json  (and the logs of its processes)
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pangu_alpha.cluster_check.check import Check, Finding, Record, Result
from pangu_alpha.files.reading import ReadError, read_json
from pangu_alpha.files.writing import finite, write_json


def record_file(folder: Path, rank: int) -> Path:
    """Path of a rank's record in the folder of a measurement."""
    return folder / f"rank_{rank:04d}.json"


def write_record(folder: Path, rank: int, values: Record) -> None:
    """Writes what a rank has measured; what is not finite becomes null, as JSON has no word for it."""
    write_json(record_file(folder, rank), finite(dict(values)))


def read_records(folder: Path, ranks: tuple[int, ...] | None = None) -> list[Record]:
    """Reads the records of some ranks, or of all that have written one."""
    if ranks is not None:
        return [read_json(record_file(folder, rank)) for rank in ranks]
    return [read_json(path) for path in sorted(folder.glob("rank_[0-9]*.json"))]


def missing_ranks(folder: Path, ranks: tuple[int, ...]) -> list[int]:
    """The ranks that have no record yet."""
    return [rank for rank in ranks if not record_file(folder, rank).is_file()]


def result_file(out: Path, check: str) -> Path:
    """Path of a check's result."""
    return out / "results" / f"{check}.json"


def write_result(out: Path, result: Result) -> None:
    """Keeps a result, which replaces an earlier one of its check."""
    path = result_file(out, result.check)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, finite(asdict(result)))


def read_result(out: Path, check: str) -> Result | None:
    """Returns a check's result, or None if there is none.

    Raises:
        ReadError: The file is damaged.
    """
    path = result_file(out, check)
    if not path.is_file():
        return None
    try:
        values = read_json(path)
        findings = tuple(Finding(**each) for each in values.pop("findings"))
        return Result(**{**values, "findings": findings, "tail": tuple(values["tail"])})
    except (TypeError, KeyError) as error:
        raise ReadError(f"{path}: is no result of a check; remove it, and the check runs again") from error


def results_of(out: Path, checks: tuple[Check, ...]) -> dict[str, Result]:
    """Returns the results that there are, by check, in the order of the table."""
    found = {check.name: read_result(out, check.name) for check in checks}
    return {name: result for name, result in found.items() if result is not None}
