"""Files by path: local ones, and those of object stores and clusters (s3://, hdfs://) through pyarrow.

A file appears whole or not at all: locally by renaming a draft, elsewhere by sending a finished local file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs

from pangu_alpha.files.reading import require_file
from pangu_alpha.files.shown import shown
from pangu_alpha.files.writing import replacing_file

SCHEMES = ("s3", "hdfs", "viewfs")
_COPY = 8 << 20  # bytes read at a time


def is_remote(path: str) -> bool:
    """Whether a path begins with one of SCHEMES and ://."""
    return path.partition("://")[0] in SCHEMES and "://" in path


def join(folder: str, *names: str) -> str:
    """The path of a file below a folder, local or not."""
    return "/".join([folder.rstrip("/") or "/", *names])


def relative(path: str, folder: str) -> str:
    """The path of a file as seen from a folder of the same store, so that both can be moved together."""
    return posixpath.relpath(path.partition("://")[2] or path, folder.partition("://")[2] or folder)


def below(folder: str, path: str) -> str:
    """The inverse of `relative`."""
    scheme, found, inner = folder.rpartition("://")
    return scheme + found + posixpath.normpath(posixpath.join(inner, path))


def open_input(path: str) -> Any:
    """Opens a file for reading as a binary stream that can seek.

    Raises:
        OSError: There is no such file, or it cannot be read; the error names it.
    """
    if not is_remote(path):
        return open(path, "rb")
    system, inner = _system(path)
    with _named(path):
        return system.open_input_file(inner)


@contextmanager
def writing(path: str) -> Iterator[IO[bytes]]:
    """Opens a file that replaces `path` when the block succeeds; if the block fails, nothing changes.

    Raises:
        OSError: The file cannot be written; the error names it.
    """
    if not is_remote(path):
        with replacing_file(path, binary=True) as stream:
            yield stream
        return
    with tempfile.TemporaryFile() as draft:
        yield draft
        draft.seek(0)
        with _named(path):
            _send(draft, path)


def _send(draft: IO[bytes], path: str) -> None:
    """Sends a finished file: a store shows it only when it is complete; HDFS needs a rename for that."""
    system, inner = _system(path)
    target = inner if path.startswith("s3:") else f"{inner}.{os.urandom(8).hex()}.draft"
    if target != inner:
        system.create_dir(os.path.dirname(inner), recursive=True)
    with system.open_output_stream(target) as out:
        while block := draft.read(_COPY):
            out.write(block)
    if target != inner:
        if system.get_file_info(inner).type != fs.FileType.NotFound:
            system.delete_file(inner)
        system.move(target, inner)


def read_bytes(path: str) -> bytes:
    """Reads a whole file; raises OSError as `open_input` does."""
    with open_input(path) as stream:
        return stream.read()


def write_bytes(path: str, content: bytes) -> None:
    """Replaces a file's content, wholly or not at all; makes the folder of a local file."""
    make_folder(path.rpartition("/")[0])
    with writing(path) as stream:
        stream.write(content)


def make_folder(path: str) -> None:
    """Makes a local folder and those above it; object stores have none, and `writing` makes those of HDFS."""
    if not is_remote(path) and path:
        os.makedirs(path, exist_ok=True)


def remove(path: str) -> None:
    """Removes a file, if it is there."""
    if not is_remote(path):
        Path(path).unlink(missing_ok=True)
    elif size(path) is not None:
        system, inner = _system(path)
        system.delete_file(inner)


def size(path: str) -> int | None:
    """The size of a file in bytes; None if there is no such file."""
    if not is_remote(path):
        return os.path.getsize(path) if os.path.isfile(path) else None
    system, inner = _system(path)
    with _named(path):
        info = system.get_file_info(inner)
    return info.size if info.type == fs.FileType.File else None


def size_and_stamp(path: str) -> tuple[int, str]:
    """The size of a file in bytes, and the time of its last change.

    Raises:
        OSError: There is no such file.
    """
    if not is_remote(path):
        found = os.stat(require_file(path))
        return found.st_size, f"changed {_moment(found.st_mtime_ns)}"
    system, inner = _system(path)
    with _named(path):
        info = system.get_file_info(inner)
    if info.type != fs.FileType.File:
        raise FileNotFoundError(errno.ENOENT, "no such file", path)
    return info.size, f"changed {_moment(info.mtime_ns or 0)}"


def _moment(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}.{rest:09d} UTC"


def matching(pattern: str) -> list[str]:
    """The files of a store that a pattern names (`*` and `?` within a name, `**` across folders), sorted.

    A folder's own path names all files in it and below.

    Raises:
        OSError: The store cannot be read, or nothing matches.
    """
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    if fixed == pattern and size(pattern) is not None:
        return [pattern]
    folder = fixed.rstrip("/") if fixed == pattern else fixed.rpartition("/")[0]
    wanted = re.compile(_expression(pattern if fixed != pattern else f"{folder}/**"))
    system, inner = _system(folder)
    with _named(pattern):
        found = system.get_file_info(fs.FileSelector(inner, allow_not_found=True, recursive=True))
    head = folder[: len(folder) - len(inner)]
    paths = sorted(head + each.path for each in found if each.type == fs.FileType.File)
    paths = [path for path in paths if wanted.fullmatch(path)]
    if not paths:
        raise FileNotFoundError(errno.ENOENT, "no file has such a name", pattern)
    return paths


def _expression(pattern: str) -> str:
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.sub(r"\*\*/|\*\*|\*|\?|[^*?]+", lambda m: words.get(m[0], re.escape(m[0])), pattern)


def names(folder: str) -> list[str]:
    """The names of the files and folders in a folder, sorted; none if there is no such folder."""
    if not is_remote(folder):
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    system, inner = _system(folder)
    with _named(folder):
        found = system.get_file_info(fs.FileSelector(inner, allow_not_found=True))
    return sorted(each.base_name for each in found)


def sha256(path: str) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open_input(path) as stream:
        while block := stream.read(_COPY):
            digest.update(block)
    return digest.hexdigest()


_SYSTEMS: dict[str, Any] = {}


def _system(path: str) -> tuple[Any, str]:
    """pyarrow's file system of a path, and the path in it.

    The environment says where an S3 server is and who asks (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...), so
    that no key stands in a configuration or in a folder of results.
    """
    scheme, _, rest = path.partition("://")
    authority = rest.partition("/")[0]
    if scheme == "s3":
        if scheme not in _SYSTEMS:
            _SYSTEMS[scheme] = fs.S3FileSystem(**_s3_options())
        return _SYSTEMS[scheme], rest
    key = f"{scheme}://{authority}"
    if key not in _SYSTEMS:
        with _named(path):
            _SYSTEMS[key] = fs.FileSystem.from_uri(f"{key}/")[0]
    return _SYSTEMS[key], f"/{rest.partition('/')[2]}"


def _s3_options() -> dict[str, Any]:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {"region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")}
    if endpoint:
        scheme, found, host = endpoint.partition("://")
        options |= {"endpoint_override": host if found else scheme, "scheme": scheme if found else "https"}
        options["region"] = options["region"] or "us-east-1"  # a server of one's own has no other
    return {key: value for key, value in options.items() if value}


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Makes an error of pyarrow's file systems an OSError that names the path."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such file", path) from error
    except (OSError, pa.ArrowException) as error:
        raise OSError(f"{shown(path)}: {shown(error, 300)}") from error
