"""Options that set fields of a configuration.

They take their name, type, bounds, default and help from the declaration of the field.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import types
import typing
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pangu_alpha.cli.options.value_types import MOST, number, path_text, whole, whole_number
from pangu_alpha.config.keys import default_words, yaml_word
from pangu_alpha.config.option import KEY, Option, option_of
from pangu_alpha.config.schema import Dataclass, PathText, build, field_types

T = TypeVar("T", bound=Dataclass)


@dataclasses.dataclass(frozen=True)
class Differs:
    """How one command's option differs from the field that it sets.

    Args:
        shown: Text for the default in the help, if the default depends on something; "" shows the field's.
        default: Value if the option is not given; None lets `config_from` take the field's own default.
        older: A former name that is still accepted.
        required: Whether the command needs the option.
        read: Reads the value, if people write it in another way than in YAML.
    """

    shown: str = ""
    default: Any = None
    older: str = ""
    required: bool = False
    read: Callable[[str], Any] | None = None


def add_options(
    parser: argparse._ActionsContainer, cls: type, *names: str, bounds: bool = True, **differing: Differs
) -> None:
    """Adds options that set fields of a configuration; for example, `--micro-batches` sets micro_batches.

    Args:
        parser: A parser or a group of one.
        cls: The dataclass, whose fields are declared by `config.option.option`.
        names: The fields, in addition to those in `differing`; "*" stands for all that are declared.
        bounds: Whether a number outside its bounds is refused as soon as it is read. False leaves that to
            `config_from`, which reports all problems together.
        differing: How the option of a field differs, by field.
    """
    known = {field.name: field for field in dataclasses.fields(cls) if option_of(field) is not None}
    chosen = {*names, *differing} - {"*"}
    assert chosen <= known.keys(), f"{cls.__name__} declares no {chosen - known.keys()}"
    for name, field in known.items():
        if name in chosen or "*" in names:
            declared, differs = field.metadata[KEY], differing.get(name, Differs())
            reading = _reading(field_types(cls)[name], declared, bounds)
            _add_option(parser, field, declared, differs, reading)


def given_fields(options: argparse.Namespace, cls: type) -> dict[str, Any]:
    """Returns the fields of a configuration that are given on the command line."""
    names = [field.name for field in dataclasses.fields(cls) if option_of(field) is not None]
    values = {name: getattr(options, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def config_from(options: argparse.Namespace, cls: type[T], base: Mapping[str, Any] | None = None) -> T:
    """Makes the configuration of a command line.

    Args:
        base: Values of fields that are not given on the command line.

    Raises:
        ConfigError: Lists every problem of the values.
    """
    return build(cls, {**(base or {}), **given_fields(options, cls)})


def _add_option(
    parser: argparse._ActionsContainer,
    field: dataclasses.Field,
    declared: Option,
    differs: Differs,
    reading: dict[str, Any],
) -> None:
    default = default_words(field) if differs.default is None else yaml_word(differs.default)
    shown = differs.shown or default
    told = "" if shown in ("null", "required", "[]") or differs.required else f" (default: {shown})"
    again = "; may be repeated" if reading.get("action") == "append" else ""
    names = [f"--{field.name.replace('_', '-')}", *([differs.older] if differs.older else [])]
    parser.add_argument(
        *names,
        dest=field.name,
        default=differs.default,
        required=differs.required,
        help=f"{declared.plain()}{again}{told}".replace("%", "%%"),
        **({**reading, "type": differs.read} if differs.read else reading),
    )


def _reading(hint: Any, declared: Option, bounds: bool) -> dict[str, Any]:
    """Arguments for argparse that read a field's value."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if hint is PathText or dataclasses.is_dataclass(hint):  # a section is given as a file of its own
        return {"type": path_text, "metavar": declared.metavar or "PATH"}
    if origin is typing.Literal:
        return {"choices": arguments}
    if origin is tuple and arguments[0] is str:
        return {"action": "append", "metavar": declared.metavar or "TEXT"}
    if origin in (typing.Union, types.UnionType):
        real = [each for each in arguments if each is not type(None)]
        if len(real) == 1:
            return _reading(real[0], declared, bounds)
        return {"type": _word_or_words, "metavar": declared.metavar}
    if hint is str:
        return {"choices": declared.choices} if declared.choices else {"metavar": declared.metavar or "TEXT"}
    return _number_reading(hint, declared, bounds)


def _number_reading(hint: Any, declared: Option, bounds: bool) -> dict[str, Any]:
    several = typing.get_origin(hint) is tuple
    kind = typing.get_args(hint)[0] if several else hint
    letter = "X" if kind is float else "N"
    read = functools.partial(_bounded, kind, declared) if bounds else _KINDS[kind]
    if not several:
        return {"type": read, "metavar": declared.metavar or letter}
    return {
        "type": functools.partial(_several, read),
        "metavar": declared.metavar or f"{letter},{letter},...",
    }


def _bounded(kind: type, declared: Option, text: str) -> int | float:
    """Reads a number within the bounds of its field."""
    value: int | float
    if kind is int:
        least = -MOST if declared.at_least is None else int(declared.at_least)
        value = whole(text, least, MOST if declared.below is None else int(declared.below) - 1)
    else:
        value = number(text)
    if fault := declared.fault(value):
        raise ArgumentTypeError(fault)
    return value


def _several(read: Callable[[str], Any], text: str) -> tuple[Any, ...]:
    return tuple(read(word) for word in text.split(","))


def _word_or_words(text: str) -> str | tuple[str, ...]:
    """Reads one word, or several with commas between them."""
    return tuple(text.split(",")) if "," in text else text


_KINDS: dict[type, Callable[[str], Any]] = {int: whole_number, float: number}
