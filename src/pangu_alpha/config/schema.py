"""From YAML and command line to frozen dataclasses, with every problem reported at once.

Knows types, paths of keys and nearest matches; knows nothing about what the keys mean.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

from pangu_alpha.config.option import option_of
from pangu_alpha.files import yaml_text
from pangu_alpha.files.paths import expand_path
from pangu_alpha.files.reading import MOST_DEPTH, ReadError, read_text
from pangu_alpha.files.shown import quoted, shown


class Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=Dataclass)
PathText = Annotated[str, "path"]  # of a field: `~` and $NAME in it are replaced
_MOST_SHOWN = 30  # problems of one message, and unknown keys of one mapping whose nearest is looked for
_MOST_WHOLE = {int: 2**63, float: 10**300}  # a whole number ends up in 64 bits or in a float


class ConfigError(ValueError):
    """One or more problems of a configuration, reported together.

    Args:
        problems: One sentence each: the key, its value, the rule, the remedy.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        heading = "1 problem in the configuration" if count == 1 else f"{count} problems in the configuration"
        more = [f"and {count - _MOST_SHOWN:,} more"] if count > _MOST_SHOWN else []
        first = (shown(problem, 2000) for problem in self.problems[:_MOST_SHOWN])
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


def _elsewhere(name: object, cls: type, where: str = "") -> Iterator[str]:
    """Dotted paths of the fields of that name in the sections of a dataclass."""
    for section, hint in typing.get_type_hints(cls).items():
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            inside = _join(where, section)
            yield from (_join(inside, field.name) for field in dataclasses.fields(hint) if field.name == name)
            yield from _elsewhere(name, hint, inside)


def _unknowns(keys: Iterable[object], cls: type, where: str) -> list[str]:
    """The errors about keys that are none of a dataclass's fields."""
    names = {field.name for field in dataclasses.fields(cls)}
    keys = [key for key in keys if key not in names]
    problems = [_unknown(key, cls, where) for key in itertools.islice(keys, _MOST_SHOWN)]
    more = len(keys) - len(problems)
    return [*problems, f"{where or cls.__name__}: {more:,} more unknown keys"] if more else problems


def _unknown(key: object, cls: type, where: str) -> str:
    paths = [repr(path) for path in _elsewhere(key, cls, where)]
    known = (field.name for field in dataclasses.fields(cls))
    hint = f"did you mean {' or '.join(paths)}?" if paths else nearest(key, known)
    return f"{_join(where, key)}: unknown key; {hint}"


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
            yield from without_keys(old, value, _join(where, key))
        elif isinstance(value, Mapping) and old is not None:
            yield f"{_join(where, key)}: {quoted(old)} has no keys that an override could change"


@dataclasses.dataclass(frozen=True)
class Choice:
    """Dataclasses that may stand in one place of a configuration: a key of the mapping says which.

    Args:
        key: The key, such as "family".
        types: By the key's value. The first is the one that is meant where the key is left out.
    """

    key: str
    types: dict[str, type]

    def choose(self, values: Any, where: str) -> tuple[type, Any]:
        """The dataclass of some values, and the values without a key that the dataclass does not have.

        Raises:
            ConfigError: The key's value is none of those known.
        """
        own = next((each for each in self.types.values() if type(values) is each), None)
        usual = next(iter(self.types))
        if own is not None or not isinstance(values, Mapping):
            return own or self.types[usual], values
        name = values.get(self.key, usual)
        if not isinstance(name, str) or name not in self.types:
            known = nearest(name, self.types)
            raise ConfigError([f"{_join(where, self.key)}: {quoted(name)} is not known here; {known}"])
        cls = self.types[name]
        if self.key in {field.name for field in dataclasses.fields(cls)}:
            return cls, values
        return cls, {key: value for key, value in values.items() if key != self.key}


_CHOICES: dict[type, Choice] = {}


def let_choose(cls: type, key: str, types: dict[str, type]) -> None:
    """Makes `build` take other dataclasses than `cls` in its place; see Choice.

    Args:
        cls: What the fields of configurations name as their type.
        key: See Choice.
        types: See Choice; may grow later.
    """
    _CHOICES[cls] = Choice(key, types)


def build(cls: type[T], values: Any, where: str = "") -> T:
    """Makes the dataclass `cls` from a nested mapping.

    Args:
        cls: A frozen dataclass whose fields may be dataclasses themselves; or one in whose place others may
            stand, see `let_choose`.
        values: The mapping, as read from YAML; or a file's name, if `cls` has a method `read` for it.
        where: Dotted path of the mapping in the whole, for the errors.

    Raises:
        ConfigError: Unknown, missing, ill-typed or inconsistent keys, all of them in one error.
    """
    if cls in _CHOICES:
        cls, values = _CHOICES[cls].choose(values, where)
    if isinstance(values, cls):
        return values
    if isinstance(values, str) and (read := getattr(cls, "read", None)):
        return read(values)
    if not isinstance(values, Mapping):
        raise ConfigError([f"{where or cls.__name__}: expected a mapping of keys, found {quoted(values)}"])
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = field_types(cls)
    problems = _unknowns(values, cls, where)
    arguments: dict[str, Any] = {}
    bad = set()
    for name, field in fields.items():
        if name in values:
            try:
                arguments[name] = _convert(values[name], hints[name], _join(where, name))
            except ConfigError as error:
                problems.extend(error.problems)
                bad.add(name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{_join(where, name)}: missing; it has no default ({_describe(hints[name])})")
            bad.add(name)
    inside = f"{where}." if where else ""
    problems.extend(inside + problem for problem in _broken_rules(cls, arguments, bad))
    if problems:
        raise ConfigError(problems)
    return cls(**arguments)


def validate(config: Any) -> None:
    """Checks every field's type and the dataclass's own `rules()`; call it from `__post_init__`.

    Raises:
        ConfigError: All problems found.
    """
    hints = field_types(type(config))
    problems: list[str] = []
    values, bad = {}, set()
    for field in dataclasses.fields(config):
        try:
            values[field.name] = _convert(getattr(config, field.name), hints[field.name], field.name)
            object.__setattr__(config, field.name, values[field.name])
        except ConfigError as error:
            problems.extend(error.problems)
            bad.add(field.name)
    problems.extend(_broken_rules(type(config), values, bad))
    if problems:
        raise ConfigError(problems)


def field_types(cls: type) -> dict[str, Any]:
    """Types of the fields of a dataclass, PathText kept apart from str."""
    return _evaluated_hints(cls)


@functools.cache  # to evaluate the names takes longer than all else that a check does
def _evaluated_hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


class _Unknown:
    """Stands for an ill-typed value while the rules of the other fields are checked."""

    def _itself(self, *_: Any) -> _Unknown:
        return self

    def _false(self, *_: Any) -> bool:
        return False

    __mod__ = __rmod__ = __add__ = __radd__ = __mul__ = __rmul__ = _itself
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __bool__ = _false
    __hash__ = None  # type: ignore[assignment]  # Python's own way to say that it has no hash


def _broken_rules(cls: type, values: Mapping[str, Any], bad: set[str]) -> list[str]:
    """What the declarations of the fields and the dataclass's own rules refuse."""
    problems = list(_beyond_bounds(cls, values))
    if not hasattr(cls, "rules"):
        return problems
    probe: Any = object.__new__(cls)
    for field in dataclasses.fields(cls):
        default = field.default if field.default is not dataclasses.MISSING else _Unknown()
        object.__setattr__(
            probe, field.name, _Unknown() if field.name in bad else values.get(field.name, default)
        )
    return problems + [problem for problem in cls.rules(probe) if problem.partition(":")[0] not in bad]


def _beyond_bounds(cls: type, values: Mapping[str, Any]) -> Iterator[str]:
    for field in dataclasses.fields(cls):
        declared = option_of(field)
        fault = declared and field.name in values and declared.fault(values[field.name])
        if fault:
            yield f"{field.name}: {fault}"


def to_mapping(config: Any) -> Any:
    """The inverse of `build`: plain dicts, lists, numbers and strings, fit for JSON and YAML."""
    if dataclasses.is_dataclass(config):
        values = {field: getattr(config, field.name) for field in dataclasses.fields(config)}
        saved = {field: value for field, value in values.items() if not _omitted(field, value)}
        return {field.name: to_mapping(value) for field, value in saved.items()}
    if isinstance(config, Mapping):
        return {key: to_mapping(value) for key, value in config.items()}
    if isinstance(config, tuple | list):
        return [to_mapping(value) for value in config]
    return config


def _omitted(field: dataclasses.Field, value: Any) -> bool:
    declared = option_of(field)
    return declared is not None and declared.omitted and value == field.default


def _join(where: str, key: object) -> str:
    key = shown(key, 80).replace("\n", "\\n")
    return f"{where}.{key}" if where else key


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is PathText and isinstance(value, str):
        return _path(value, where)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, hint, where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if origin is typing.Literal:
        if value in arguments and type(value) in {type(argument) for argument in arguments}:
            return value
        raise ConfigError([f"{where}: {quoted(value)} is not one of {', '.join(map(repr, arguments))}"])
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(item, arguments[1], _join(where, key)) for key, item in value.items()}
    if origin is tuple and isinstance(value, tuple | list):
        return tuple(_convert(item, arguments[0], f"{where}[{index}]") for index, item in enumerate(value))
    if origin is None and hint is not PathText:
        return _convert_plain(value, hint, where)
    raise ConfigError([f"{where}: expected {_describe(hint)}, found {quoted(value)}"])


def _convert_plain(value: Any, hint: type, where: str) -> Any:
    """A number, text or truth value."""
    if hint is bool and isinstance(value, str) and value in _YES_NO:
        return _YES_NO[value]
    if isinstance(value, int) and not isinstance(value, bool) and hint in (int, float):
        if not -_MOST_WHOLE[hint] <= value < _MOST_WHOLE[hint]:
            raise ConfigError([f"{where}: {quoted(value)} is too large a number"])
        return hint(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        remedy = "" if math.isnan(value) else "; where no bound is meant give a large one, such as 1e9"
        raise ConfigError([f"{where}: {value} must be a finite number{remedy}"])
    if isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        return value
    raise ConfigError([f"{where}: expected {_describe(hint)}, found {quoted(value)}"])


def _path(text: str, where: str) -> str:
    try:
        path = expand_path(text)
        path.encode("utf-8")  # a variable may hold other bytes, and no manifest can
    except ReadError as error:
        raise ConfigError([f"{where}: {error}"]) from error
    except UnicodeEncodeError as error:
        raise ConfigError([f"{where}: {quoted(path)} is not UTF-8; give a path with another name"]) from error
    return path


def _convert_union(value: Any, hint: Any, where: str) -> Any:
    options = typing.get_args(hint)
    if value is None and type(None) in options:
        return None
    real = [option for option in options if option is not type(None)]
    for option in real:
        try:
            return _convert(value, option, where)
        except ConfigError:
            if len(real) == 1:
                raise
    raise ConfigError([f"{where}: expected {_describe(hint)}, found {quoted(value)}"])


# YAML 1.1's other words for true and false, which files have; for a text they are text
_YES_NO = {
    form: value
    for word, value in (("yes", True), ("on", True), ("no", False), ("off", False))
    for form in (word, word.capitalize(), word.upper())
}
_PLAIN = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    PathText: "a path",
    type(None): "null",
}


def _describe(hint: Any) -> str:
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple:
        return f"a list of {_describe(arguments[0])}"
    if origin is dict or dataclasses.is_dataclass(hint):
        return "a mapping"
    return getattr(hint, "__name__", str(hint))
