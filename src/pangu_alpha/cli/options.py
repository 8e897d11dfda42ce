"""What the options of all commands consist of.

The functions for argparse's `type=` refuse a wrong word with a sentence; argparse puts the name of the option
in front of it, and ends with exit code 2. Options that set a field of a configuration take their name, type,
bounds, default and help from the declaration of the field.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import re
import types
import typing
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.config.keys import default_words, yaml_word
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.option import KEY, Option, option_of
from pangu_alpha.config.parallel import ParallelPlan, plan_section
from pangu_alpha.config.schema import Dataclass, PathText, build, field_types, read_yaml
from pangu_alpha.files.paths import expand_path
from pangu_alpha.files.shown import quoted

T = TypeVar("T", bound=Dataclass)
_MOST = 2**63 - 1  # numbers are stored in 64 bits
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def whole(text: str, least: int, most: int = _MOST) -> int:
    """Reads a whole number from `least` to `most`.

    Raises:
        ArgumentTypeError: It is not such a number.
    """
    try:
        number = int(text)
    except ValueError:  # also raised for more digits than Python converts
        number = None
    if number is None or not least <= number <= most:
        bounds = f"of at least {least}" if most == _MOST else f"from {least} to {most}"
        raise ArgumentTypeError(f"{quoted(text)} is not a whole number {bounds}")
    return number


def positive(text: str) -> int:
    """Reads a whole number of at least 1."""
    return whole(text, 1)


def natural(text: str) -> int:
    """Reads a whole number of at least 0."""
    return whole(text, 0)


def port(text: str) -> int:
    """Reads a TCP port."""
    return whole(text, 1, 65535)


def naturals(text: str) -> tuple[int, ...]:
    """Reads different whole numbers of at least 0 with commas between them: 0,1,3.

    Raises:
        ArgumentTypeError: One is not such a number, or occurs twice.
    """
    found = tuple(natural(word) for word in text.split(","))
    if len(set(found)) < len(found):
        raise ArgumentTypeError(f"{text!r} names a number twice")
    return found


def example_counts(text: str) -> tuple[int | str, ...]:
    """Reads different whole numbers of at least 0, or the letter K, with commas between them: 0,1,K.

    Raises:
        ArgumentTypeError: One is neither, or occurs twice.
    """
    found = tuple("K" if word == "K" else natural(word) for word in text.split(","))
    if len(set(found)) < len(found):
        raise ArgumentTypeError(f"{text!r} names a number twice")
    return found


def words(text: str) -> tuple[str, ...]:
    """Reads words with commas between them.

    Raises:
        ArgumentTypeError: One is empty.
    """
    found = tuple(word.strip() for word in text.split(","))
    if not all(found):
        raise ArgumentTypeError(f"{quoted(text)} has an empty word; write them as one,two")
    return found


def part(text: str) -> tuple[int, int]:
    """Reads a part of a whole: 0/4 is the first of four.

    Raises:
        ArgumentTypeError: It is not of that form, or there is no such part.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise ArgumentTypeError(f"{quoted(text)} is no part; write it as 0/4, the first of four")
    return int(found[1]), int(found[2])


def number(text: str) -> float:
    """Reads any finite number.

    Raises:
        ArgumentTypeError: It is not a number, is NaN, or is too large for a float.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ArgumentTypeError(f"{quoted(text)} is not a finite number")
    return value


def positive_number(text: str) -> float:
    """Reads a finite number above 0."""
    value = number(text)
    if value <= 0.0:
        raise ArgumentTypeError(f"{quoted(text)} is not a number above 0")
    return value


def nonnegative_number(text: str) -> float:
    """Reads a finite number of at least 0."""
    value = number(text)
    if value < 0.0:
        raise ArgumentTypeError(f"{quoted(text)} is not a number of at least 0")
    return value


def byte_size(text: str) -> int:
    """Reads a size such as 2GB, 500MB or 120e6, in decimal units; returns bytes, at least 1.

    Raises:
        ArgumentTypeError: It is not a size.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?(?:E[0-9]{1,2})?)\s*([KMGT]?B?)", text.upper())
    size = 0
    if match:
        unit = match[2] if match[2] in _UNITS else match[2] + "B"
        size = int(float(match[1]) * _UNITS.get(unit, 1))
    if not 1 <= size <= _MOST:
        raise ArgumentTypeError(f"{quoted(text)} is not a size such as 2GB or 500MB")
    return size


def path_text(text: str) -> str:
    """Reads a path, or a name that may be given instead of one, and replaces `~` and `$NAME` in it.

    Raises:
        ArgumentTypeError: It is empty, or names a variable or a user that does not exist.
    """
    if not text:
        raise ArgumentTypeError("'' is no path; give one, or leave the option out")
    try:
        return expand_path(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def user_path(text: str) -> Path:
    """Like `path_text`, but returns a Path."""
    return Path(path_text(text))


def whole_number(text: str) -> int:
    """Reads any whole number, for an option whose bounds are checked elsewhere.

    Raises:
        ArgumentTypeError: It is not a whole number.
    """
    try:
        return int(text)
    except ValueError as error:  # also raised for more digits than Python converts
        raise ArgumentTypeError(f"{quoted(text)} is not a whole number") from error


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


def add_plan_options(parser: argparse.ArgumentParser, title: str, *names: str) -> None:
    """Adds --plan and the options of a plan's fields, for `plan_fields` and `given_fields`.

    Args:
        title: Heading of their group in the help.
        names: The fields; none means all.
    """
    group = parser.add_argument_group(title)
    group.add_argument("--plan", type=path_text, metavar="YAML", help="a YAML with the fields of a plan, or "
        "that of a run with a section parallel; the options below change single fields")  # fmt: skip
    differing = {
        "micro_batches": Differs(shown="the least that fills the stages, pp"),
        "layers_per_stage": Differs(shown="spread evenly"),
    }
    chosen: dict[str, Any] = {
        name: differs for name, differs in differing.items() if not names or name in names
    }
    add_options(group, ParallelPlan, *(names or ("*",)), **chosen)


def plan_fields(file: str | None) -> dict[str, Any]:
    """Returns the fields of a plan in a YAML file, at the top or in its section parallel.

    The result is empty without a file, and for a run's YAML file without that section.

    Raises:
        ValueError: The file does not hold fields of a plan.
    """
    if file is None:
        return {}
    document = read_yaml(file)
    values = plan_section(document)
    if not isinstance(values, dict) or (not values and "parallel" in document) or not document:
        raise ValueError(f"{file}: no fields of a plan (dp, tp, pp, ...), but {quoted(values)}")
    return dict(values)


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for `source_options`."""
    group = parser.add_argument_group("for checkpoints that do not describe themselves")
    group.add_argument("--model", type=path_text, metavar="NAME|YAML", help="shape of the network: a shipped "
        "model, or a YAML with a section model")  # fmt: skip
    group.add_argument("--strategy", type=user_path, metavar="FILE", help="MindSpore's strategy file")
    add_options(group, ModelConfig, norm_order=Differs(shown="what the checkpoint says"))


def source_options(options: argparse.Namespace) -> OpenOptions:
    """Returns what the user states about a checkpoint that does not describe itself."""
    return OpenOptions(options.model, options.strategy, options.norm_order)


def add_checkpoint_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option of the weights that a command reads."""
    parser.add_argument("--checkpoint", required=True, type=path_text, metavar="PATH",
        help="a run's output folder (its newest whole checkpoint is taken), or a checkpoint that "
        "checkpoint.py opens")  # fmt: skip


def add_vocabulary_option(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """Adds the option of the vocabulary, which is `data.vocabulary` in a run's YAML."""
    default = "" if required else " (default: vocab.model beside the checkpoint)"
    parser.add_argument("--vocabulary", "--tokenizer", dest="tokenizer", required=required, type=path_text,
        metavar="FILE", help=f"the vocabulary, a SentencePiece model{default}")  # fmt: skip


def add_rack_option(parser: argparse.ArgumentParser) -> None:
    """Adds --servers-per-rack."""
    parser.add_argument("--servers-per-rack", type=positive, metavar="N", help="servers in one rack "
        "(default: one rack holds all)")  # fmt: skip


def add_output_folder(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds --output for a folder, with its former name --out."""
    parser.add_argument("--output", "--out", dest="out", type=user_path, metavar="DIR", help=what)


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
        least = -_MOST if declared.at_least is None else int(declared.at_least)
        value = whole(text, least, _MOST if declared.below is None else int(declared.below) - 1)
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
