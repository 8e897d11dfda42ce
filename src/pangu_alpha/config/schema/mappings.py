"""Nested mappings from YAML and from words key=value, and the error that all configurations raise."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pangu_alpha.files import yaml_text
from pangu_alpha.files.reading import MOST_DEPTH, ReadError, read_text
from pangu_alpha.files.shown import quoted, shown

MOST_SHOWN = 30  # most problems in one message, and most unknown keys for which a similar one is looked up


class ConfigError(ValueError):
    """One or more problems of a configuration, reported together.

    Args:
        problems: One sentence for each: the key, its value, the rule, the remedy.
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
        where: File or option that the text comes from, for the error message.

    Raises:
        ConfigError: The text is not YAML, or a key occurs twice.
    """
    try:
        return yaml_text.parse_yaml(text, where)
    except yaml_text.YamlError as error:
        raise ConfigError(error.problems) from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file that holds one mapping.

    Raises:
        ConfigError: The file does not exist, is not YAML in UTF-8, or does not hold a mapping.
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
    """The end of an error message: the known word most similar to `name`, or all known words."""
    known = list(known)
    match = difflib.get_close_matches(str(name)[:80], known, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else f"known are: {', '.join(known)}"


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with `changes` applied, mapping by mapping; neither argument is changed."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if both else value
    return result


def parse_overrides(words: Iterable[str]) -> dict[str, Any]:
    """Turns `["optim.learning_rate=1e-3", "model=tiny"]` into a nested mapping; later words take precedence.

    Raises:
        ConfigError: Lists all words without a key or an equals sign, or whose value is not YAML.
    """
    values: dict[str, Any] = {}
    for change in each_override(words):
        values = merge(values, change)
    return values


def each_override(words: Iterable[str]) -> list[dict[str, Any]]:
    """Returns a nested mapping for each override, in order.

    Raises:
        ConfigError: See `parse_overrides`.
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
    """Whether a part of an override's value would be lost as a comment."""
    if text.lstrip().startswith("#"):
        return True
    try:
        return " #" in text and parse_yaml(text.partition(" #")[0], "") == value
    except ConfigError:  # the # is inside quotes
        return False


def without_keys(base: Mapping[str, Any], changes: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yields why `changes` cannot be applied to `base`: they set keys in a value that is not a mapping."""
    for key, value in changes.items():
        old = base.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            yield from without_keys(old, value, joined(where, key))
        elif isinstance(value, Mapping) and old is not None:
            yield f"{joined(where, key)}: {quoted(old)} has no keys that an override could change"


def joined(where: str, key: object) -> str:
    key = shown(key, 80).replace("\n", "\\n")
    return f"{where}.{key}" if where else key
