"""Reads results that `files` wrote, and those of lm-evaluation-harness itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pangu_alpha.evaluation.metrics import Figure
from pangu_alpha.evaluation.metrics.figure import COMBINATIONS
from pangu_alpha.evaluation.results.files import samples_name
from pangu_alpha.files.reading import ReadError, read_json, read_json_lines
from pangu_alpha.files.shown import quoted, shown


@dataclass(frozen=True)
class Recorded:
    """One result as its files have it.

    Args:
        name: Name of the result, as in the names of its files.
        task: Name of the task.
        title: The set's name for people.
        ids: Names of the items.
        docs: Digest of each item with its right answer.
        groups: The group of each item; an item without one is its own.
        figures: What each item contributes, by the figure's key; the first is the one the paper prints.
    """

    name: str
    task: str
    title: str
    ids: tuple[str, ...]
    docs: tuple[str, ...]
    groups: tuple[str, ...]
    figures: Mapping[str, Figure]


def read_results(path: str | Path) -> dict[str, Recorded]:
    """Reads a results file and the samples files beside it.

    Args:
        path: A results file, or a folder that holds results, of which the newest is taken.

    Returns:
        Results by name, in the order of the file.

    Raises:
        FileNotFoundError: There are no results, or a samples file is missing.
        ReadError: A file is damaged.
    """
    file = newest_results(path)
    content = read_json(file)
    names = content.get("results") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names:
        raise ReadError(f"{shown(file)}: holds no results; give a results file or its folder")
    ours = content.get("config", {}).get("pangu_alpha", {}).get("results", {})
    time = file.stem.removeprefix("results_")
    return {name: _read(file.with_name(samples_name(name, time)), name, ours.get(name, {})) for name in names}


def newest_results(path: str | Path) -> Path:
    """Returns the newest results file of a folder or of a folder in it, or the file itself.

    Raises:
        FileNotFoundError: There is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    found = sorted(path.rglob("results_*.json"), key=lambda file: file.name)
    if not found:
        raise FileNotFoundError(f"{shown(path)}: no results_*.json in it; evaluate with --out {shown(path)}")
    return found[-1]


def _read(path: Path, name: str, ours: Mapping[str, Any]) -> Recorded:
    if not path.is_file():
        raise FileNotFoundError(f"{shown(path)}: no such file; the items of {quoted(name)} are needed")
    ids, docs, groups = {}, {}, {}
    sums: dict[str, list[list[float]]] = {}
    combinations: dict[str, str] = {}
    for line, row in read_json_lines(path):
        if isinstance(row, ReadError):
            raise row
        try:
            number, extra = int(row["doc_id"]), row.get("pangu_alpha", {})
            ids[number] = str(extra.get("id", number))
            docs[number] = f"{row['doc_hash']}{row['target_hash']}"
            groups[number] = str(extra.get("group") or f"item {number}")
            for key, combination, values in _contributions(row, extra):
                combinations[key] = combination
                sums.setdefault(key, []).append(values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ReadError(
                f"{shown(path)}, line {line}: not an item of results ({quoted(error)}); evaluate again"
            ) from error
    figures = _figures(path, sums, combinations, len(ids))
    return Recorded(
        name,
        str(ours.get("task", name)),
        str(ours.get("title", name)),
        tuple(ids.values()),
        tuple(docs.values()),
        tuple(groups.values()),
        figures,
    )


def _contributions(
    row: Mapping[str, Any], extra: Mapping[str, Any]
) -> Iterator[tuple[str, str, list[float]]]:
    """(key, formula, sums) of each figure of an item; the harness's own files hold means of items only."""
    if "sums" in extra:
        for key, values in extra["sums"].items():
            if extra["combinations"][key] not in COMBINATIONS:
                raise ValueError(f"unknown formula {extra['combinations'][key]}")
            yield key, extra["combinations"][key], [float(value) for value in values]
        return
    for metric in row["metrics"]:
        if isinstance(row[metric], int | float):
            yield f"{metric},{row['filter']}", "ratio", [float(row[metric]), 1.0]


def _figures(
    path: Path, sums: Mapping[str, list[list[float]]], combinations: Mapping[str, str], items: int
) -> dict[str, Figure]:
    short = [key for key, rows in sums.items() if len(rows) != items or len({*map(len, rows)}) != 1]
    if short or not sums:
        what = f"{quoted(short[0])} is not there once for every item" if short else "it holds no figure"
        raise ReadError(f"{shown(path)}: {what}; evaluate again")
    return {key: Figure.of_key(key, rows, combinations[key]) for key, rows in sums.items()}
