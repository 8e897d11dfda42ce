"""Reads rows of evaluation files and their keys, and notes every problem instead of raising the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pangu_alpha.evaluation.tasks.item import Problems
from pangu_alpha.files.reading import ReadError, read_json, read_json_lines, read_text
from pangu_alpha.files.shown import quoted, shown

_WORDS = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


class Row(NamedTuple):
    """A JSON object of a file, and where it stands."""

    where: str
    values: Mapping[str, Any]


def rows_of_lines(path: Path, problems: Problems) -> Iterator[Row]:
    """Yields the objects of a file with one on each line."""
    empty = True
    try:
        for number, value in read_json_lines(path):
            empty, where = False, f"{path}, line {number}"
            if isinstance(value, ReadError):
                problems.found.append(str(value))
            elif isinstance(value, dict):
                yield Row(where, value)
            else:
                problems.add(where, f"must be an object with keys, not {quoted(value)}")
    except ReadError as error:
        problems.found.append(str(error))
        return
    if empty:
        problems.add(path, "holds no item; it is empty or was cut off")


def json_file(path: Path, kind: type, problems: Problems) -> Any:
    """Returns the value of a JSON file, or None if it is not JSON or not of the kind."""
    try:
        value = read_json(path)
    except ReadError as error:
        problems.found.append(str(error))
        return None
    if not isinstance(value, kind):
        problems.add(path, f"must hold {_WORDS[kind]}, not {quoted(value)}")
        return None
    return value


def text_lines(path: Path, problems: Problems) -> Iterator[tuple[str, str]]:
    """Yields (where, line) for the lines of a text file that are not blank."""
    try:
        lines = read_text(path).split("\n")
    except ReadError as error:
        problems.found.append(str(error))
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{path}, line {number}", line


def take(row: Row, key: str, kind: type, problems: Problems) -> Any:
    """Returns the value of a key, or None after noting that it is missing or of another type."""
    if key not in row.values:
        known = ", ".join(map(shown, list(row.values)[:12]))
        problems.add(row.where, f"no key {quoted(key)}; the row has {known or 'none'}")
        return None
    value = row.values[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        problems.add(row.where, f"{quoted(key)} must be {_WORDS[kind]}, not {quoted(value)}")
        return None
    return value


def take_text(row: Row, key: str, problems: Problems) -> str | None:
    """Returns a text that is not blank, or None after noting the problem."""
    value = take(row, key, str, problems)
    if value is not None and not value.strip():
        problems.add(row.where, f"{quoted(key)} is empty")
        return None
    return value


def take_texts(row: Row, key: str, problems: Problems, least: int = 1) -> list[str] | None:
    """Returns a list of at least `least` texts that are not blank, or None after noting the problem."""
    values = take(row, key, list, problems)
    if values is None:
        return None
    if len(values) < least:
        problems.add(row.where, f"{quoted(key)} must have at least {least} entries, not {len(values)}")
        return None
    for place, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            problems.add(
                row.where,
                f"{quoted(key)}: entry {place} must be a text that is not empty, not {quoted(value)}",
            )
            return None
    return values


def take_fields(row: Row, fields: Mapping[str, str], problems: Problems) -> dict[str, str] | None:
    """Returns the template's fields from the keys of a row; a list of texts is joined by commas."""
    values: dict[str, str | None] = {}
    for name, key in fields.items():
        if isinstance(row.values.get(key), list):
            texts = take_texts(row, key, problems)
            values[name] = None if texts is None else ",".join(texts)
        else:
            values[name] = take_text(row, key, problems)
    found = {name: value for name, value in values.items() if value is not None}
    return found if len(found) == len(values) else None


def take_index(row: Row, key: str, count: int, problems: Problems) -> int | None:
    """Returns a whole number below `count`, or None after noting the problem."""
    value = take(row, key, int, problems)
    if value is not None and not 0 <= value < count:
        problems.add(row.where, f"{quoted(key)} must be from 0 to {count - 1}, not {value}")
        return None
    return value


def unique(where_of: Sequence[tuple[str, str]], problems: Problems) -> None:
    """Notes ids that occur twice.

    Args:
        where_of: (id, where) of every item.
    """
    seen: dict[str, str] = {}
    for name, where in where_of:
        if name in seen:
            problems.add(where, f"the same id {quoted(name)} as {seen[name]}")
        seen.setdefault(name, where)
