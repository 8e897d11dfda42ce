"""Nested mappings from YAML and from words key=value; the error that all configurations raise."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pangu_alpha.files import yaml_text
from pangu_alpha.files.reading import MOST_DEPTH, ReadError, read_text
from pangu_alpha.files.shown import quoted, shown

MOST_SHOWN = 30  # problems of one message, and unknown keys of one mapping whose nearest is looked for


class ConfigError(ValueError):
    """One or more problems of a configuration, reported together.

    Args:
        problems: One sentence each: the key, its value, the rule, the remedy.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        heading = "1 problem in the configuration" if count == 1 else f"{count} problems in the configuration"
        more = [f"and {count - MOST_SHOWN:,} more"] if count > MOST_SHOWN else []
        first = (shown(problem, 2000) for problem in self.problems[:MOST_SHOWN])
        super().__init__("\n  - ".join([f"{heading}:", *first, *more]))


def parse_yaml(text: str, where: str) -> Any:
    """Parses YAML 1.2 scalars and mappings; see `pangu_alpha.files.yaml_text`.

    Args:
        text: The YAML text.
        where: File or option it comes from, for the error.

    Raises:
        ConfigError: The text is not YAML, or names a key twice.
    """
    try:
        return yaml_text.parse_yaml(text, where)
    except yaml_text.YamlError as error:
        raise ConfigError(error.problems) from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file that holds one mapping.

    Raises:
        ConfigError: The file does not exist, is not UTF-8 YAML or is not a mapping.
    """
    path = Path(path)
    try:
        text = read_text(path, most=4 * yaml_text.MOST_LETTERS)
    except ReadError as error:
        raise ConfigError([str(error)]) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError([f"{path}: cannot be read ({reason}); give the path of a YAML file"]) from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError([f"{path}: expected a mapping of keys, found {quoted(values)}"])
    return values


def nearest(name: object, known: Iterable[str]) -> str:
    """Names the known word most like `name`, as the tail of an error message."""
    known = list(known)
    match = difflib.get_close_matches(str(name)[:80], known, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else f"known are: {', '.join(known)}"


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lays `changes` over `base`, mapping by mapping; neither argument is changed."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if both else value
    return result


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """Turns `["optim.learning_rate=1e-3", "model=tiny"]` into a nested mapping; the last of two wins.

    Raises:
        ConfigError: Words without a key or an equals sign, or whose value is no YAML, all of them named.
    """
    values: dict[str, Any] = {}
    for change in each_override(words):
        values = merge(values, change)
    return values


def each_override(words: Iterable[str]) -> list[dict[str, Any]]:
    """The nested mapping of every single override, in their order.

    Raises:
        ConfigError: As `parse_overrides`.
    """
    changes: list[dict[str, Any]] = []
    problems: list[str] = []
    for word in words:
        try:
            changes.append(_override(word))
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)
    return changes


def _override(word: str) -> dict[str, Any]:
    key, equals, text = word.partition("=")
    parts, where = key.split("."), f"override {quoted(word)}"
    if not equals or not all(parts) or len(parts) > MOST_DEPTH:
        raise ConfigError([f"{where}: write it as key=value or section.key=value"])
    nested: Any = parse_yaml(text, where) if text else ""
    if _commented(text, nested):
        raise ConfigError(
            [f"{where}: YAML takes all from # on for a comment; put the value in quotes: {key}='\"...\"'"]
        )
    for part in reversed(parts):
        nested = {part: nested}
    return nested


def _commented(text: str, value: Any) -> bool:
    """Whether a part of an override's value is lost as a comment."""
    if text.lstrip().startswith("#"):
        return True
    try:
        return " #" in text and parse_yaml(text.partition(" #")[0], "") == value
    except ConfigError:  # the sign stands in quotes
        return False


def without_keys(base: Mapping[str, Any], changes: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yields why `changes` cannot be laid over `base`: a key is changed inside of what is no mapping."""
    for key, value in changes.items():
        old = base.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            yield from without_keys(old, value, joined(where, key))
        elif isinstance(value, Mapping) and old is not None:
            yield f"{joined(where, key)}: {quoted(old)} has no keys that an override could change"


def joined(where: str, key: object) -> str:
    key = shown(key, 80).replace("\n", "\\n")
    return f"{where}.{key}" if where else key
