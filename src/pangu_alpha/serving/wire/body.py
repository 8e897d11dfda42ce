"""Reads the JSON body of a request strictly: what Python's reader would silently repair is refused."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NoReturn

from pangu_alpha.files.shown import quoted
from pangu_alpha.serving.wire.errors import ApiError

MOST_DEPTH = 32  # of lists and objects in one another; a request needs 5
_MOST_SHOWN = 80


class _HookError(Exception):
    """What is wrong with a value, for the client."""


def parse_body(content: bytes) -> dict[str, Any]:
    """Returns the object of a request's body.

    Raises:
        ApiError: With status 400, if the body is not UTF-8, not JSON, no object, has a key twice, nests too
            deep, or contains NaN, Infinity, a number of thousands of digits or an unpaired surrogate.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(f"not UTF-8 (byte 0x{content[error.start]:02x} at offset {error.start})") from error
    try:
        value = json.loads(text, object_pairs_hook=_each_once, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise _refused(f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from error
    except RecursionError as error:
        raise _refused(_TOO_DEEP) from error
    except _HookError as error:
        raise _refused(str(error)) from error
    except ValueError as error:  # by Python, for a number of more than 4,300 digits
        raise _refused("a number of thousands of digits") from error
    if not isinstance(value, dict):
        raise _refused(f"an object was expected, not {quoted(value, _MOST_SHOWN)}")
    if _deeper(value, MOST_DEPTH):
        raise _refused(_TOO_DEEP)
    if "\\u" in text and _has_half(value):
        raise _refused("it holds an unpaired surrogate, which is no character")
    return value


_TOO_DEEP = f"lists and objects in one another more than {MOST_DEPTH} deep"


def _refused(reason: str) -> ApiError:
    return ApiError(400, f"the body of the request cannot be read: {reason}", "invalid_json")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise _HookError(f"key {quoted(twice, _MOST_SHOWN)} twice in one object")
    return values


def _no_number(word: str) -> NoReturn:
    raise _HookError(f"{word} is no JSON number")


def _deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _has_half(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
