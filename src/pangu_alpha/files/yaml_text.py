"""Reads YAML from users within bounds: each key once, and plain scalars as YAML 1.2 defines them.

Text that older YAML versions take for another type stays text (yes, 1:30, 2026-11-26, 010); 1_000 and 0b11
are still numbers. Keys are always text. Merge keys (<<) work.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from pangu_alpha.files.reading import MOST_DEPTH, ReadError
from pangu_alpha.files.shown import quoted, shown

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MOST_LETTERS = 1 << 24 if yaml.__with_libyaml__ else 1 << 18  # PyYAML without libyaml is ten times slower
_MOST_COPIES = 100_000  # values repeated by references, whose number can grow exponentially
_MOST_DIGITS = 300  # of a whole number; a float has no larger exponent
_MOST_PROBLEMS = 20
_TOO_DEEP = f"mappings and lists in one another more than {MOST_DEPTH} deep; such YAML is not read"

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"([-+]?)(?:(0|[1-9][0-9_]*)|0x([0-9a-fA-F_]+)|0o([0-7]+)|0b([01_]+))")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(?:(inf|Inf|INF)|nan|NaN|NAN)")
_TAG = "tag:yaml.org,2002:"
_KINDS = {"null": type(None), "bool": bool, "int": int, "float": float}
_NO_KEY, _MERGE = object(), object()


class YamlError(ReadError):
    """A text is not valid YAML, or breaks a rule of `parse_yaml`.

    Args:
        problems: One sentence each, with file and line.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


def parse_yaml(text: str, where: object) -> Any:
    """Returns the value of a YAML text: mappings, lists, text, numbers, true, false and null.

    Args:
        text: A single document.
        where: File or option that the text comes from, for errors.

    Raises:
        YamlError: The text is not YAML, a mapping has a key twice, or a tag, number or nesting depth is not
            supported.
    """
    if len(text) > MOST_LETTERS:
        raise YamlError([f"{shown(where)}: more than {MOST_LETTERS:,} characters; such YAML is not read"])
    if text.count("\n%TAG") > _MOST_PROBLEMS:  # libyaml's time is quadratic in their number
        raise YamlError([f"{shown(where)}: names many tags by %TAG; no tag is read here, leave them out"])
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise YamlError([f"{shown(where)}: holds bytes that are not UTF-8; write it as UTF-8"]) from error
    reading = _Reading(shown(where))
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            reading.take(event)
    except yaml.YAMLError as error:
        raise YamlError([*reading.problems, reading.not_yaml(error)]) from error
    except RecursionError as error:
        raise YamlError([f"{shown(where)}: {_TOO_DEEP}"]) from error
    if reading.problems:
        raise YamlError(reading.problems)
    return reading.value


@dataclass
class _Open:
    """A mapping or list whose end has not been read yet.

    Args:
        value: The entries read so far.
        anchor: Name by which later references may mean it.
        before: Number of values read before it, from which its size follows at its end.
        key: In a mapping, the key whose value comes next.
        lines: Line of each key.
        merged: Entries that its merge key adds.
    """

    value: dict[str, Any] | list[Any]
    anchor: str | None
    before: int
    key: Any = _NO_KEY
    lines: dict[Any, int] = field(default_factory=dict)
    merged: dict[str, Any] = field(default_factory=dict)


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None  # the parser sets it for every event
    return event.start_mark.line + 1


class _Reading:
    """Builds values from the parser's events without recursion: deep nesting cannot overflow the stack."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.value: Any = None
        self.problems: list[str] = []
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}  # the value, and the number of values in it
        self._values = self._copies = self._documents = 0

    def take(self, event: yaml.Event) -> None:
        """Processes the next event of yaml.parse."""
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(event, "a second document begins; give one")

    def not_yaml(self, error: yaml.YAMLError) -> str:
        """Returns the parser's error as a sentence with its place."""
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        if mark is None or problem is None:
            return f"{self.where}: not valid YAML: {shown(' '.join(str(error).split()), 200)}"
        place = f"line {mark.line + 1}, column {mark.column + 1}"
        return f"{self.where}, {place}: not valid YAML: {shown(problem, 200)}"

    @property
    def _wants_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and self._open[-1].key is _NO_KEY

    def _say(self, event: yaml.Event, problem: str) -> None:
        self.problems.append(f"{self.where}, line {_line(event)}: {problem}")
        if len(self.problems) >= _MOST_PROBLEMS:
            raise YamlError([*self.problems, f"{self.where}: perhaps more; these are the first"])

    def _stop(self, event: yaml.Event, problem: str) -> None:
        self._say(event, problem)
        raise YamlError(self.problems)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._values += 1
        plain = event.implicit[0] and event.tag is None
        if self._wants_key:
            self._key(event, _MERGE if plain and event.value == "<<" else event.value)
            return
        try:
            value = _plain(event.value) if plain else _tagged(event.value, event.tag)
        except ValueError as error:
            self._say(event, str(error))
            value = None
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        self._add(event, value)

    def _key(self, event: yaml.ScalarEvent, key: Any) -> None:
        top, line = self._open[-1], _line(event)
        if event.tag not in (None, "!", _TAG + "str"):
            self._say(event, f"key {quoted(event.value)} has a tag; keys are text, leave it out")
        if key in top.lines:
            name = "<<" if key is _MERGE else self._path(key)
            remedy = "write one `<<: [*a, *b]`" if key is _MERGE else "keep one of the two"
            self._say(event, f"key {quoted(name)} stands in line {top.lines[key]} already; {remedy}")
        top.lines.setdefault(key, line)
        top.key = key
        if event.anchor is not None:
            self._anchors[event.anchor] = (event.value, 1)

    def _path(self, key: str) -> str:
        """Returns a key with the keys above it, joined by dots."""
        above = (
            each.key if isinstance(each.value, dict) else str(len(each.value)) for each in self._open[:-1]
        )
        return ".".join(shown("<<" if each is _MERGE else each, 40) for each in (*above, key))

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        self._values += 1
        if self._wants_key:
            self._stop(event, "a mapping or list stands where a key is expected; keys are text")
        if len(self._open) >= MOST_DEPTH:
            self._stop(event, _TOO_DEEP)
        maps = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", _TAG + ("map" if maps else "seq")):
            self._say(event, _no_tag(event.tag))
        self._open.append(_Open({} if maps else [], event.anchor, self._values - 1))

    def _end(self, event: yaml.Event) -> None:
        done = self._open.pop()
        value = done.value
        if done.merged and isinstance(value, dict):
            value = {**done.merged, **value}
        if done.anchor is not None:
            self._anchors[done.anchor] = (value, self._values - done.before)
        self._add(event, value)

    def _alias(self, event: yaml.AliasEvent) -> None:
        anchor = str(event.anchor)
        if any(each.anchor == anchor for each in self._open):
            self._stop(event, f"*{shown(anchor, 40)} stands inside of what it refers to")
        if anchor not in self._anchors:
            self._stop(event, f"*{shown(anchor, 40)} refers to nothing above it")
        value, size = self._anchors[anchor]
        self._values, self._copies = self._values + size, self._copies + size
        if self._copies > _MOST_COPIES:
            self._stop(event, f"references repeat more than {_MOST_COPIES:,} values; write out what is meant")
        if self._wants_key:
            self._stop(event, "a reference stands where a key is expected; write the key out")
        self._add(event, value)

    def _add(self, event: yaml.Event, value: Any) -> None:
        """Puts a complete value into the mapping or list that is open."""
        if not self._open:
            self.value = value
            return
        top = self._open[-1]
        if isinstance(top.value, list):
            top.value.append(value)
            return
        if top.key is _MERGE:
            self._merge(event, value)
        else:
            top.value.setdefault(top.key, value)
        top.key = _NO_KEY

    def _merge(self, event: yaml.Event, value: Any) -> None:
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, dict):
                self._say(event, "<< takes a mapping or a list of mappings")
                return
            for key, item in each.items():  # the first of several wins, as YAML's merge key says
                self._open[-1].merged.setdefault(key, item)


def _plain(text: str) -> Any:
    """Returns the value of an unquoted scalar by YAML 1.2."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if text[0] in "-+.0123456789":
        return _number(text)
    return text


def _number(text: str) -> Any:
    """Returns the number that a scalar denotes, or the text itself if it is not a number."""
    if (whole := _WHOLE.fullmatch(text)) is not None:
        return _whole(text, whole)
    if (special := _SPECIAL.fullmatch(text)) is not None:
        return float(special[1] + ("inf" if special[2] else "nan"))
    if not _FLOAT.fullmatch(text) or not any(sign in text for sign in ".eE"):
        return text
    value = float(text.replace("_", ""))
    if math.isinf(value):
        raise ValueError(f"{quoted(text, 40)} is beyond what a number here can hold; put text in quotes")
    return value


def _whole(text: str, found: re.Match[str]) -> int:
    sign, *digits = found.groups()
    base, word = next((base, word) for base, word in zip((10, 16, 8, 2), digits, strict=True) if word)
    word = word.replace("_", "")
    if len(word) > _MOST_DIGITS:
        raise ValueError(f"a whole number of {len(word):,} digits; no value here is so large")
    if not word:
        raise ValueError(f"{quoted(text)} is no number; put text in quotes")
    return int(sign + word, base)


def _tagged(text: str, tag: str | None) -> Any:
    """Returns the value of a quoted scalar, or of one with an explicit type, as in `!!str 5`."""
    if tag in (None, "!", f"{_TAG}str"):
        return text
    name = tag.removeprefix(_TAG)
    if name not in _KINDS or not tag.startswith(_TAG):
        raise ValueError(_no_tag(tag))
    value = _plain(text)
    if name == "float" and type(value) is int:
        value = float(value)
    if type(value) is not _KINDS[name]:
        raise ValueError(
            f"{quoted(text)} is not what its tag !!{name} says; leave the tag out, or correct it"
        )
    return value


def _no_tag(tag: str) -> str:
    name = "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag
    return f"the tag {shown(name, 60)} is not supported; leave it out, and write text in quotes"


class _Dumper(yaml.SafeDumper):
    """A dumper that also quotes text which `parse_yaml` would take for a number."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always true: a value that occurs twice is written out twice."""
        return True


for _pattern in (_FLOAT, re.compile("0o[0-7]+")):
    _Dumper.add_implicit_resolver(
        f"{_TAG}number", re.compile(f"(?:{_pattern.pattern})$"), list("-+.0123456789")
    )


def yaml_text(value: Any) -> str:
    """Returns a value as YAML that `parse_yaml` and other programs read back unchanged, keys in order."""
    return yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False)
