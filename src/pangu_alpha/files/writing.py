"""Writes files so that a kill, a power cut or a full disk leaves either the whole new file or the old one."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_HALF = re.compile("[\ud800-\udfff]")


@contextmanager
def durable_file(path: Path) -> Iterator[int]:
    """Opens a new file and flushes it to disk when the block ends.

    Yields:
        The file descriptor, to be written with `write_all`.

    Raises:
        OSError: The file exists, or cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Writes every byte; a single write(2) may take fewer (2 GiB on Linux, less on a nearly full disk)."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[_taken(os.write(descriptor, rest)) :]


def write_all_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Writes every byte at an offset of the file, as `write_all` does; the file's position does not move."""
    rest = memoryview(data).cast("B")
    while rest:
        count = _taken(os.pwrite(descriptor, rest, offset))
        rest, offset = rest[count:], offset + count


def _taken(count: int) -> int:
    if count < 1:  # the disk takes nothing: trying again would never end
        raise OSError(errno.EIO, "the disk takes no more bytes")
    return count


def sync_folder(path: Path) -> None:
    """Flushes a folder's entries, without which a new or renamed file may be missing after a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing_file(path: str | Path, binary: bool = False) -> Iterator[IO[Any]]:
    """Writes a file that replaces `path` when the block succeeds; if the block fails, nothing changes.

    A link is followed, so that its target is replaced; an existing file keeps its permissions. Anything that
    is not a regular file (/dev/stdout, a pipe) is written directly.

    Yields:
        A UTF-8 text stream, or a binary stream if `binary`.

    Raises:
        OSError: The file cannot be written; the error names `path`. The draft has been removed.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        with _open(path, "w", binary) as stream:
            yield stream
        return
    target = Path(os.path.realpath(path))
    draft, stream = _new_draft(target, binary)
    try:
        with stream:
            yield stream
            _finish(stream, target)
        _publish(draft, target)
    except OSError as error:
        if error.filename in (None, str(draft)) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        draft.unlink(missing_ok=True)  # safe: no other call uses this name


def _finish(stream: IO[Any], target: Path) -> None:
    """Flushes a draft to disk and gives it the permissions of the file that it is to replace."""
    stream.flush()
    with suppress(FileNotFoundError):
        os.fchmod(stream.fileno(), stat.S_IMODE(target.stat().st_mode))
    os.fsync(stream.fileno())


def _publish(draft: Path, target: Path) -> None:
    os.replace(draft, target)
    sync_folder(target.parent)


def _new_draft(target: Path, binary: bool) -> tuple[Path, IO[Any]]:
    """Creates a draft beside `target` with a random name: process ids repeat, above all on shared storage."""
    draft = target.with_name(f".{target.name[:50]}.{os.getpid()}-{uuid.uuid4().hex[:16]}.draft")
    try:
        return draft, _open(draft, "x", binary)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error


@contextmanager
def gathering_file(path: str | Path) -> Iterator[IO[str]]:
    """Writes a text file that grows for hours: NAME.partial is written, and replaces `path` at the end.

    If the block fails, the old file stays and what was written stays in NAME.partial, which no later call
    overwrites. Anything that is not a regular file (/dev/stdout, a pipe) is written directly.

    Yields:
        A UTF-8 text stream that flushes every line.

    Raises:
        FileExistsError: NAME.partial exists.
        OSError: The file cannot be written; the error names it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8", buffering=1) as stream:
            yield stream
        return
    target, partial = Path(os.path.realpath(path)), partial_file(path)
    try:
        stream = partial.open("x", encoding="utf-8", buffering=1)
    except FileExistsError as error:
        raise FileExistsError(
            f"{partial}: is there already: what was to write {path.name} was interrupted, or is still "
            "running; rename the file to keep its lines, or remove it, and start again"
        ) from error
    try:
        with stream:
            yield stream
            _finish(stream, target)
        _publish(partial, target)
    except OSError as error:
        if error.filename is None and error.errno not in (None, errno.EPIPE):
            raise OSError(error.errno, error.strerror, str(partial)) from error
        raise
    finally:
        with suppress(OSError):
            if partial.stat().st_size == 0:
                partial.unlink()


def partial_file(path: str | Path) -> Path:
    """Returns the path that `gathering_file` writes until the file is complete."""
    target = Path(os.path.realpath(path))
    return target.with_name(target.name + ".partial")


def _open(path: Path, mode: str, binary: bool) -> IO[Any]:
    return path.open(f"{mode}b") if binary else path.open(mode, encoding="utf-8")


def write_text(path: str | Path, text: str) -> None:
    """Replaces a file's content by a text, wholly or not at all; see `replacing_file`."""
    with replacing_file(path) as stream:
        stream.write(text)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replaces a file's content by bytes, wholly or not at all; see `replacing_file`."""
    with replacing_file(path, binary=True) as stream:
        stream.write(content)


def json_text(value: Any, indent: int | None = 1) -> str:
    """Returns a value as strict JSON; NaN and infinities, which JSON does not have, become null.

    Unpaired surrogates, by which Python represents the bytes of paths that are not UTF-8, are escaped.
    """
    text = json.dumps(finite(value), ensure_ascii=False, indent=indent, allow_nan=False)
    return _HALF.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def write_json(path: str | Path, value: Any) -> None:
    """Replaces a file's content by a value as strict JSON, wholly or not at all; see `json_text`."""
    write_text(path, json_text(value) + "\n")


def finite(value: Any) -> Any:
    """Returns the value with None in the place of every NaN and infinity."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
