"""Small files of strangers: read within bounds, refused in a sentence that names the file.

Python's own readers end in a traceback for a text nested 100,000 deep, wait for ever for a pipe that nobody
writes, name no file when one is not UTF-8, and keep the last of two values of one key.
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

MOST_BYTES = 1 << 30  # of a file that is read whole; no manifest, table or configuration comes near
MOST_DEPTH = 100  # of mappings and lists in one another; our own files have at most 8
POINTER_BYTES = 1024  # a pointer of git-LFS is shorter, by its specification
_POINTER = b"version https://git-lfs.github.com/spec/"


class ReadError(ValueError):
    """A file that is not what it is taken for; says which, where in it, and what to do."""


def require_file(path: str | Path) -> Path:
    """The path of a regular file: opening a pipe that nobody writes would wait for ever.

    Raises:
        FileNotFoundError: There is none.
        ReadError: It is a folder, a pipe, a socket or a device.
    """
    path = Path(path)
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
        kind = next((word for test, word in kinds if test(mode)), "a device")
        raise ReadError(f"{shown(path)}: is {kind}; give the path of a file")
    return path


def read_bytes(path: str | Path, *, most: int = MOST_BYTES) -> bytes:
    """All bytes of a file or of a pipe that the user named.

    Raises:
        OSError: It cannot be read.
        ReadError: It is a folder, or has more than `most` bytes.
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
    """Refuses what git leaves in the place of a large file that was not fetched.

    Args:
        head: The first POINTER_BYTES of the file.
        where: The file, for the error.

    Raises:
        ReadError: It is such a pointer; says how large the file itself is.
    """
    if head.startswith(_POINTER):
        size = re.search(rb"^size (\d{1,18})$", head, re.MULTILINE)
        of = f"a file of {int(size[1]):,} bytes" if size else "another file"
        raise ReadError(
            f"{shown(where)}: a git-LFS pointer of {of}, not the file itself; run git lfs pull in its folder"
        )


def read_text(path: str | Path, *, most: int = MOST_BYTES) -> str:
    r"""The text of a UTF-8 file without its byte order mark; \r\n and \r end a line as \n does.

    Raises:
        OSError: It cannot be read.
        ReadError: It is not UTF-8; says where.
    """
    return decode(read_bytes(path, most=most), path).replace("\r\n", "\n").replace("\r", "\n")


def decode(content: bytes, where: object) -> str:
    """UTF-8 bytes as text, without a byte order mark; errors as `read_text`."""
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
    """The value of a JSON file; see `parse_json`.

    Raises:
        OSError: It cannot be read.
        ReadError: It is not UTF-8, not JSON, or not to be trusted.
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
    """The value of a JSON text.

    Args:
        text: UTF-8 if bytes.
        where: File or option it comes from, for errors.
        numbers_only: Refuse NaN and Infinity, which are no JSON.
        line: Number of the line that the text is, in a file of one value a line.
        halves: Let halves of surrogate pairs pass, as which Python has the bytes of paths that are no UTF-8.

    Raises:
        ReadError: The text is not JSON, names a key twice in one object, nests more than MOST_DEPTH deep,
            holds a number of thousands of digits, or half of a surrogate pair.
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
    except ValueError as error:  # of the hooks, or Python's for a number of more than 4,300 digits
        reason = "a number of thousands of digits" if "digits" in str(error) else str(error)
        raise ReadError(f"{where}: {reason}; such a file is not read") from error
    if (fault := nesting_fault(value)) is not None:
        raise ReadError(f"{where}: {fault}")
    if not halves and "\\u" in text:
        refuse_halves(value, where)
    return value


def read_json_lines(path: str | Path, *, numbers_only: bool = True) -> Iterator[tuple[int, Any]]:
    """The values of a file with one on each line, as each is reached; blank lines are left out.

    Args:
        path: Of a regular file.
        numbers_only: See `parse_json`.

    Yields:
        Numbers of lines from 1, and values; for a line that is none, such as one that a kill has cut, the
        ReadError that says why.

    Raises:
        OSError: It cannot be read.
        ReadError: It is no regular file.
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
    """What is wrong with a value that nests too deep for functions that call themselves; None if nothing is.

    A part that stands in several places (YAML's aliases) is looked at once, so that references to
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
    if len(values) < len(pairs):  # Python would keep the last
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        both = " and ".join(quoted(value, 40) for name, value in pairs if name == twice)
        raise ValueError(f"key {quoted(twice)} twice in one object: {both}")
    return values


def _no_number(word: str) -> Any:
    raise ValueError(f"{word}, which is no JSON number")


def refuse_halves(value: Any, where: object) -> None:
    """Refuses text that no file can hold in UTF-8: a surrogate without its other half.

    Raises:
        ReadError: A text of the value holds one.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        said = f"{shown(where)}: a text holds half of a surrogate pair, which is no character"
        raise ReadError(said) from error
