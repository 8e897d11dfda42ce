"""Turns nested mappings into frozen dataclasses and back, and reports every problem at once.

Knows types, paths of keys and similar names; knows nothing about what the keys mean.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

from pangu_alpha.config.option import Option, option_of
from pangu_alpha.config.schema.mappings import MOST_SHOWN, ConfigError, joined, nearest
from pangu_alpha.files.paths import expand_path
from pangu_alpha.files.reading import ReadError
from pangu_alpha.files.shown import quoted


class Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=Dataclass)
PathText = Annotated[str, "path"]  # type of a field in whose value `~` and $NAME are replaced
_MOST_WHOLE = {int: 2**63, float: 10**300}  # a whole number must fit into 64 bits or a float


def _elsewhere(name: object, cls: type, where: str = "") -> Iterator[str]:
    """Yields the dotted paths of the fields with that name in the sections of a dataclass."""
    for section, hint in typing.get_type_hints(cls).items():
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            inside = joined(where, section)
            yield from (
                joined(inside, field.name) for field in dataclasses.fields(hint) if field.name == name
            )
            yield from _elsewhere(name, hint, inside)


def _unknowns(keys: Iterable[object], cls: type, where: str) -> list[str]:
    """Returns the errors about keys that are not fields of a dataclass."""
    names = {field.name for field in dataclasses.fields(cls)}
    keys = [key for key in keys if key not in names]
    problems = [_unknown(key, cls, where) for key in itertools.islice(keys, MOST_SHOWN)]
    more = len(keys) - len(problems)
    return [*problems, f"{where or cls.__name__}: {more:,} more unknown keys"] if more else problems


def _unknown(key: object, cls: type, where: str) -> str:
    paths = [repr(path) for path in _elsewhere(key, cls, where)]
    known = (field.name for field in dataclasses.fields(cls))
    hint = f"did you mean {' or '.join(paths)}?" if paths else nearest(key, known)
    return f"{joined(where, key)}: unknown key; {hint}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """Several dataclasses that may stand in one place of a configuration; a key of the mapping chooses one.

    Args:
        key: The key, such as "family".
        types: Dataclasses by the key's value. The first is used if the key is left out.
    """

    key: str
    types: dict[str, type]

    def choose(self, values: Any, where: str) -> tuple[type, Any]:
        """Returns the dataclass for some values, and the values, without a key that it has no field for.

        Raises:
            ConfigError: The key's value is not known.
        """
        own = next((each for each in self.types.values() if type(values) is each), None)
        usual = next(iter(self.types))
        if own is not None or not isinstance(values, Mapping):
            return own or self.types[usual], values
        name = values.get(self.key, usual)
        if not isinstance(name, str) or name not in self.types:
            known = nearest(name, self.types)
            raise ConfigError([f"{joined(where, self.key)}: {quoted(name)} is not known here; {known}"])
        cls = self.types[name]
        if self.key in {field.name for field in dataclasses.fields(cls)}:
            return cls, values
        return cls, {key: value for key, value in values.items() if key != self.key}


_CHOICES: dict[type, Choice] = {}


def let_choose(cls: type, key: str, types: dict[str, type]) -> None:
    """Lets `build` make other dataclasses in the place of `cls`; see Choice.

    Args:
        cls: The type that fields of configurations are annotated with.
        types: See Choice; entries may be added later.
    """
    _CHOICES[cls] = Choice(key, types)


def build(cls: type[T], values: Any, where: str = "") -> T:
    """Makes the dataclass `cls` from a nested mapping.

    Args:
        cls: A frozen dataclass, whose fields may be dataclasses too; or one for which `let_choose` allows
            others.
        values: The mapping, as read from YAML; or a file's name, if `cls` has a method `of_file` for it.
        where: Dotted path of this mapping in the whole, for error messages.

    Raises:
        ConfigError: Lists all unknown, missing, ill-typed or inconsistent keys in one error.
    """
    if cls in _CHOICES:
        cls, values = _CHOICES[cls].choose(values, where)
    if isinstance(values, cls):
        return values
    read = getattr(cls, "of_file", None)
    if read is not None and isinstance(values, str):
        return _of_file(read, values, where)
    if not isinstance(values, Mapping):
        wanted = "a mapping of keys" if read is None else "a path or a mapping of keys"
        raise ConfigError([f"{where or cls.__name__}: expected {wanted}, found {quoted(values)}"])
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = field_types(cls)
    problems = _unknowns(values, cls, where)
    arguments: dict[str, Any] = {}
    bad = set()
    for name, field in fields.items():
        if name in values:
            try:
                arguments[name] = _convert(values[name], hints[name], joined(where, name))
            except ConfigError as error:
                problems.extend(error.problems)
                bad.add(name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{joined(where, name)}: missing; it has no default ({_describe(hints[name])})")
            bad.add(name)
    inside = f"{where}." if where else ""
    problems.extend(inside + problem for problem in _broken_rules(cls, arguments, bad))
    if problems:
        raise ConfigError(problems)
    return cls(**arguments)


def _of_file(read: Callable[[str], T], path: str, where: str) -> T:
    """What a file holds; the errors also name the key that names the file."""
    try:
        return read(path)
    except ConfigError as error:
        key = f"{where}: " if where else ""
        raise ConfigError([f"{key}{problem}" for problem in error.problems]) from error


def validate(config: Any) -> None:
    """Checks every field's type and the dataclass's own `rules()`; call it from `__post_init__`.

    It also converts values, such as lists to tuples, and stores them in the fields.

    Raises:
        ConfigError: Lists all problems found.
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
    """Types of the fields of a dataclass, in which PathText is not replaced by str."""
    return _evaluated_hints(cls)


@functools.cache  # evaluating the annotations takes longer than everything else in a check
def _evaluated_hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


class _Unknown:
    """Stands for a value of the wrong type while the rules of the other fields are checked."""

    def _itself(self, *_: Any) -> _Unknown:
        return self

    def _false(self, *_: Any) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    __mod__ = __rmod__ = __add__ = __radd__ = __mul__ = __rmul__ = _itself
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __bool__ = _false
    __hash__ = None  # type: ignore[assignment]  # Python's own way to say that it has no hash


def _broken_rules(cls: type, values: Mapping[str, Any], bad: set[str]) -> list[str]:
    """Returns what the declarations of the fields and the dataclass's own rules refuse."""
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
    for name, declared in _declarations(cls):
        fault = declared.fault(values[name]) if name in values else None
        if fault:
            yield f"{name}: {fault}"


@functools.cache
def _declarations(cls: type) -> tuple[tuple[str, Option], ...]:
    fields = ((field.name, option_of(field)) for field in dataclasses.fields(cls))
    return tuple((name, declared) for name, declared in fields if declared is not None)


def to_mapping(config: Any) -> Any:
    """The inverse of `build`: returns plain dicts, lists, numbers and strings, fit for JSON and YAML."""
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
        return {str(key): _convert(item, arguments[1], joined(where, key)) for key, item in value.items()}
    if origin is tuple and isinstance(value, tuple | list):
        return tuple(_convert(item, arguments[0], f"{where}[{index}]") for index, item in enumerate(value))
    if origin is None and hint is not PathText:
        return _convert_plain(value, hint, where)
    raise ConfigError([f"{where}: expected {_describe(hint)}, found {quoted(value)}"])


def _convert_plain(value: Any, hint: type, where: str) -> Any:
    """Converts a number, a string or a truth value."""
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
        path.encode("utf-8")  # an environment variable may hold other bytes, which a manifest cannot store
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


# YAML 1.1's other words for true and false, which occur in files. In a field for text they stay text.
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
_PLURAL = {int: "whole numbers", float: "numbers", str: "texts", PathText: "paths", type(None): "nulls"}


def _describe(hint: Any) -> str:
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple:
        return f"a list of {_describe_several(arguments[0])}"
    if origin is dict or dataclasses.is_dataclass(hint):
        return "a mapping"
    return getattr(hint, "__name__", str(hint))


def _describe_several(hint: Any) -> str:
    """What the elements of a list are."""
    if hint in _PLURAL:
        return _PLURAL[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return f"lists of {_describe_several(arguments[0])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_describe_several, arguments))
    return _describe(hint)
