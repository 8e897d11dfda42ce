"""Types of options that commands share: each refuses a wrong word in a sentence.

For `type=` of argparse, which puts the option's name in front of the sentence and ends with exit code 2.
"""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from pathlib import Path

from pangu_alpha.files.paths import expand_path
from pangu_alpha.files.shown import quoted

_MOST = 2**63 - 1  # what the numbers end up in has 64 bits
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def whole(text: str, least: int, most: int = _MOST) -> int:
    """A whole number from `least` to `most`.

    Raises:
        ArgumentTypeError: It is none.
    """
    try:
        number = int(text)
    except ValueError:  # also of more digits than Python converts
        number = None
    if number is None or not least <= number <= most:
        bounds = f"of at least {least}" if most == _MOST else f"from {least} to {most}"
        raise ArgumentTypeError(f"{quoted(text)} is not a whole number {bounds}")
    return number


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return whole(text, 1)


def natural(text: str) -> int:
    """A whole number of at least 0."""
    return whole(text, 0)


def port(text: str) -> int:
    """A TCP port."""
    return whole(text, 1, 65535)


def positives(text: str) -> tuple[int, ...]:
    """Whole numbers of at least 1 with commas between them: 3,4,4."""
    return tuple(positive(word) for word in text.split(","))


def naturals(text: str) -> tuple[int, ...]:
    """Different whole numbers of at least 0 with commas between them: 0,1,3.

    Raises:
        ArgumentTypeError: One is none, or stands there twice.
    """
    found = tuple(natural(word) for word in text.split(","))
    if len(set(found)) < len(found):
        raise ArgumentTypeError(f"{text!r} names a number twice")
    return found


def number(text: str) -> float:
    """Any finite number.

    Raises:
        ArgumentTypeError: It is none, or NaN, or beyond what a float holds.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ArgumentTypeError(f"{quoted(text)} is not a finite number")
    return value


def positive_number(text: str) -> float:
    """A finite number above 0."""
    value = number(text)
    if value <= 0.0:
        raise ArgumentTypeError(f"{quoted(text)} is not a number above 0")
    return value


def nonnegative_number(text: str) -> float:
    """A finite number of at least 0."""
    value = number(text)
    if value < 0.0:
        raise ArgumentTypeError(f"{quoted(text)} is not a number of at least 0")
    return value


def fraction(text: str) -> float:
    """A share: above 0, at most 1."""
    value = number(text)
    if not 0.0 < value <= 1.0:
        raise ArgumentTypeError(f"{quoted(text)} is not a share above 0 and of at most 1")
    return value


def byte_size(text: str) -> int:
    """Bytes in a size such as 2GB, 500MB or 120e6, in decimal units; at least 1.

    Raises:
        ArgumentTypeError: It is none.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?(?:E[0-9]{1,2})?)\s*([KMGT]?B?)", text.upper())
    unit = match and (match[2] if match[2] in _UNITS else match[2] + "B")
    size = int(float(match[1]) * _UNITS.get(unit, 1)) if match else 0
    if not 1 <= size <= _MOST:
        raise ArgumentTypeError(f"{quoted(text)} is not a size such as 2GB or 500MB")
    return size


def path_text(text: str) -> str:
    """A path, or a name that may stand in its place, with `~` and `$NAME` replaced.

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
    """As `path_text`, as a Path."""
    return Path(path_text(text))
