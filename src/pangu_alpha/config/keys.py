"""The keys of a configuration as users see them: dotted name, type, default and meaning."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pangu_alpha.config.option import Option, option_of
from pangu_alpha.config.schema import PathText, field_types, to_mapping

_PLAIN = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    PathText: "path",
    type(None): "null",
}


@dataclass(frozen=True)
class Key:
    """One key of a configuration.

    Args:
        name: Dotted path from the top of the YAML; NAME stands for a word that the user chooses.
        kind: Type and bounds in words; words that may stand in a YAML file are in backquotes.
        default: Default as it is written in YAML, or "required" if there is none.
        declared: Its declaration.
    """

    name: str
    kind: str
    default: str
    declared: Option


def keys_of(cls: type, where: str = "") -> Iterator[Key]:
    """Yields all keys of a dataclass and of the dataclasses in it, in order.

    Args:
        where: Dotted path of the dataclass itself, with a dot at the end.
    """
    hints = field_types(cls)
    for field in dataclasses.fields(cls):
        hint, name = hints[field.name], where + field.name
        if typing.get_origin(hint) is dict:
            hint, name = typing.get_args(hint)[1], f"{name}.NAME"
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from keys_of(hint, f"{name}.")
        elif (declared := option_of(field)) is not None:
            yield Key(name, kind_words(hint, declared), default_words(field), declared)


def kind_words(hint: Any, declared: Option) -> str:
    """Type and bounds of a field, in words."""
    words = _choices(hint, declared) or _type_words(hint)
    if not (bounds := declared.bounds()):
        return words
    plain = words.removesuffix(" or null")
    each = "each " if plain.startswith("list of") else ""
    return f"{plain}, {each}{bounds}{', or null' if plain != words else ''}"


def _choices(hint: Any, declared: Option) -> str:
    words = ", ".join(f"`{word}`" for word in declared.choices)
    lists = any(typing.get_origin(each) is tuple for each in (hint, *typing.get_args(hint)))
    return f"{words}, or a list of them" if words and lists else words


def _type_words(hint: Any) -> str:
    if hint in _PLAIN:
        return _PLAIN[hint]
    if dataclasses.is_dataclass(hint):  # a section that may be in a file of its own
        return "path or mapping"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return ", ".join(f"`{word}`" for word in arguments)
    if origin is tuple:
        return f"list of {_type_words(arguments[0])}s"
    assert origin in (typing.Union, types.UnionType), hint
    return " or ".join(map(_type_words, arguments))


def default_words(field: dataclasses.Field) -> str:
    """The default of a field as it is written in YAML, or "required" if there is none."""
    if field.default is dataclasses.MISSING:
        return "required"
    return yaml_word(to_mapping(field.default))


def yaml_word(value: Any) -> str:
    """A plain value as YAML has it, with an exponent for small numbers: null, true, 1e-5, text, [1, 2]."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(yaml_word, value))}]"
    if isinstance(value, float) and 0.0 < abs(value) < 1e-3:
        digits, _, exponent = f"{value:e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
    return str(value)
