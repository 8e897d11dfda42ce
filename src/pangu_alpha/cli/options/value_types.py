"""Functions for argparse's `type=`: each reads a word of the command line.

They refuse a wrong word with a sentence; argparse puts the name of the option in front of it, and ends with
exit code 2.
"""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from pathlib import Path

from pangu_alpha.files.paths import expand_path
from pangu_alpha.files.shown import quoted

MOST = 2**63 - 1  # numbers are stored in 64 bits
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def whole(text: str, least: int, most: int = MOST) -> int:
    """Reads a whole number from `least` to `most`.

    Raises:
        ArgumentTypeError: It is not such a number.
    """
    try:
        number = int(text)
    except ValueError:  # also raised for more digits than Python converts
        number = None
    if number is None or not least <= number <= most:
        bounds = f"of at least {least}" if most == MOST else f"from {least} to {most}"
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
    if not 1 <= size <= MOST:
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
