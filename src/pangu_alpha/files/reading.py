"""Reads small files that users provide, within bounds, and refuses bad ones by an error that names the file.

Python's own readers raise a traceback for a text nested 100,000 deep, wait for ever for a pipe without a
writer, do not name the file that is not UTF-8, and silently keep the last of two values of one key.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pangu_alpha.files.shown import quoted, shown

MOST_BYTES = 1 << 30  # of a file that is read whole; manifests, tables and configurations are far smaller
MOST_DEPTH = 100  # of nested mappings and lists; our own files nest at most 8 deep
POINTER_BYTES = 1024  # a pointer of git-LFS is shorter, by its specification
_POINTER = b"version https://git-lfs.github.com/spec/"


class ReadError(ValueError):
    """A file is not what it should be; the message names the file, the place in it, and what to do."""


def require_file(path: str | Path) -> Path:
    """Returns the path of a regular file. Opening, for example, a pipe without a writer would wait for ever.

    Raises:
        FileNotFoundError: Nothing exists at the path.
        ReadError: The path is a folder, a pipe, a socket or a device.
    """
    path = Path(path)
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
        kind = next((word for test, word in kinds if test(mode)), "a device")
        raise ReadError(f"{shown(path)}: is {kind}; give the path of a file")
    return path


def read_bytes(path: str | Path, *, most: int = MOST_BYTES) -> bytes:
    """Reads all bytes of a regular file, or of a pipe that the user named.

    Raises:
        OSError: The file cannot be read.
        ReadError: The path is a folder, or the file has more than `most` bytes.
    """
    path = Path(path)
    if path.is_dir():
        raise ReadError(f"{shown(path)}: is a folder; give the path of a file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ReadError(f"{shown(path)}: has more than {most:,} bytes, so it is no file of this kind")
    refuse_pointer(content[:POINTER_BYTES], path)
    return content


def refuse_pointer(head: bytes, where: object) -> None:
    """Refuses a git-LFS pointer, which git leaves in the place of a large file that was not fetched.

    Args:
        head: The first POINTER_BYTES of the file.
        where: The file, for the error.

    Raises:
        ReadError: The file is such a pointer; the message gives the size of the actual file.
    """
    if head.startswith(_POINTER):
        size = re.search(rb"^size (\d{1,18})$", head, re.MULTILINE)
        of = f"a file of {int(size[1]):,} bytes" if size else "another file"
        raise ReadError(
            f"{shown(where)}: a git-LFS pointer of {of}, not the file itself; run git lfs pull in its folder"
        )


def read_text(path: str | Path, *, most: int = MOST_BYTES) -> str:
    r"""Reads a UTF-8 file without its byte order mark; \r\n and \r become \n.

    Raises:
        OSError: The file cannot be read.
        ReadError: The file is not UTF-8; the message gives the position.
    """
    return decode(read_bytes(path, most=most), path).replace("\r\n", "\n").replace("\r", "\n")


def decode(content: bytes, where: object) -> str:
    """Decodes UTF-8 bytes without a byte order mark; raises the same errors as `read_text`."""
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise ReadError(
            f"{shown(where)}, line {line}: not UTF-8 text (byte 0x{byte:02x} at offset {error.start:,}); "
            "save the file as UTF-8"
        ) from error


def read_json(path: str | Path, *, most: int = MOST_BYTES, numbers_only: bool = True) -> Any:
    """Reads a JSON file as `parse_json` does.

    Raises:
        OSError: The file cannot be read.
        ReadError: The file is not UTF-8, not JSON, or breaks a rule of `parse_json`.
    """
    return parse_json(read_text(path, most=most), path, numbers_only=numbers_only)


def parse_json(
    text: str | bytes,
    where: object,
    *,
    numbers_only: bool = True,
    line: int | None = None,
    halves: bool = False,
) -> Any:
    """Parses a JSON text.

    Args:
        text: UTF-8 if bytes.
        where: File or option that the text comes from, for errors.
        numbers_only: Refuse NaN and Infinity, which are not JSON.
        line: Line number of the text in a file with one value a line, for errors.
        halves: Accept unpaired surrogates, by which Python represents the bytes of paths that are not UTF-8.

    Raises:
        ReadError: The text is not JSON, names a key twice in one object, nests more than MOST_DEPTH deep,
            or contains a number of thousands of digits or an unpaired surrogate.
    """
    if isinstance(text, bytes):
        text = decode(text, where)
    where = shown(where) if line is None else f"{shown(where)}, line {line}"
    try:
        value = json.loads(
            text, object_pairs_hook=_each_once, parse_constant=_no_number if numbers_only else None
        )
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if line else f"line {error.lineno}, column {error.colno}"
        raise ReadError(f"{where}, {place}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise ReadError(f"{where}: {_TOO_DEEP}") from error
    except ValueError as error:  # raised by the hooks, or by Python for a number of more than 4,300 digits
        reason = "a number of thousands of digits" if "digits" in str(error) else str(error)
        raise ReadError(f"{where}: {reason}; such a file is not read") from error
    if (fault := nesting_fault(value)) is not None:
        raise ReadError(f"{where}: {fault}")
    if not halves and "\\u" in text:
        refuse_halves(value, where)
    return value


def read_json_lines(path: str | Path, *, numbers_only: bool = True) -> Iterator[tuple[int, Any]]:
    """Reads a file with one JSON value on each line, one value at a time; blank lines are left out.

    Args:
        numbers_only: Refuse NaN and Infinity, which are not JSON.

    Yields:
        Line number, counted from 1, and value. A line that cannot be parsed, such as one that was cut off
            when
        its writer was killed, gives the ReadError itself as its value.

    Raises:
        OSError: The file cannot be read.
        ReadError: The path is not a regular file.
    """
    with require_file(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, parse_json(line, f"{path}, line {number}", numbers_only=numbers_only)
            except ReadError as error:
                yield number, error


_NESTING = (dict, list)
_TOO_DEEP = f"mappings and lists in one another more than {MOST_DEPTH} deep; such a file is not read"


def nesting_fault(value: Any, most: int = MOST_DEPTH) -> str | None:
    """Returns what is wrong with a value that nests too deep for recursive functions, or None.

    A part that occurs in several places (through YAML's aliases) is visited once, so that references to
    references cost nothing.
    """
    level, seen, depth = [value] if isinstance(value, _NESTING) else [], set(), 0
    while level:
        if depth >= most:
            return _TOO_DEEP
        deeper: list[Any] = []
        for item in level:
            if id(item) not in seen:
                seen.add(id(item))
                parts = item.values() if isinstance(item, dict) else item
                deeper += [part for part in parts if isinstance(part, _NESTING)]
        level, depth = deeper, depth + 1
    return None


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):  # Python would keep the last of equal keys
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        both = " and ".join(quoted(value, 40) for name, value in pairs if name == twice)
        raise ValueError(f"key {quoted(twice)} twice in one object: {both}")
    return values


def _no_number(word: str) -> Any:
    raise ValueError(f"{word}, which is no JSON number")


def refuse_halves(value: Any, where: object) -> None:
    """Refuses text with an unpaired surrogate, which cannot be written as UTF-8.

    Raises:
        ReadError: A text anywhere in the value contains one.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        said = f"{shown(where)}: a text holds half of a surrogate pair, which is no character"
        raise ReadError(said) from error
