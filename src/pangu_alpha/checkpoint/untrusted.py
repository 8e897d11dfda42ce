"""What all readers ask of a stranger's file before they trust it: its kind, its JSON, its shapes, its place.

Knows no form of checkpoint. Every refusal is a CheckpointError that names the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pangu_alpha.checkpoint.errors import CheckpointError
from pangu_alpha.files.reading import POINTER_BYTES, ReadError, parse_json, refuse_pointer, require_file
from pangu_alpha.files.reading import read_bytes as read_within_bounds
from pangu_alpha.files.shown import quoted, shown_name

MOST_AXES = 32  # numpy's; a shape of thousands of dimensions takes for ever to multiply
MOST_LAYERS = 2_000  # of a network; its names are listed before they are compared with those that are there
_MOST_ELEMENTS = 1 << 63  # numpy's


def check_file(path: Path) -> Path:
    """The path of a file that may be opened: a pipe would wait for ever, a git-LFS pointer is another file.

    Raises:
        CheckpointError: It is a folder, a pipe, a socket, a device, or a git-LFS pointer.
        OSError: It does not exist or cannot be read.
    """
    try:
        with open(require_file(path), "rb", buffering=0) as file:
            refuse_pointer(file.read(POINTER_BYTES), path)
    except ReadError as error:
        raise CheckpointError(str(error)) from error
    return path


def read_bytes(path: Path) -> bytes:
    """All bytes of a small file; errors as `check_file`, and for a file that is not small."""
    try:
        return read_within_bounds(check_file(path))
    except ReadError as error:
        raise CheckpointError(str(error)) from error


def read_mapping(path: Path) -> dict[str, Any]:
    """The object of a JSON file; errors as `read_bytes`, and for what is no object of JSON."""
    return mapping_of(read_bytes(path), path)


def mapping_of(text: str | bytes, where: object, *, halves: bool = False) -> dict[str, Any]:
    """The object of a JSON text.

    Args:
        text: UTF-8 if bytes. NaN and Infinity are read, which older programs wrote.
        where: File it is from, for errors.
        halves: See `parse_json`.

    Raises:
        CheckpointError: It is not JSON or no object; see `parse_json`.
    """
    try:
        values = parse_json(text, where, numbers_only=False, halves=halves)
    except ReadError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{where}: not a JSON object, but {quoted(values, 40)}")
    return values


def are_sizes(values: Any) -> bool:
    """Whether values are a list or tuple of sizes that an array may have."""
    return isinstance(values, list | tuple) and all(
        type(each) is int and 0 <= each < _MOST_ELEMENTS for each in values
    )


def is_shape(values: Any) -> bool:
    """Whether values are the shape of an array that some machine could hold."""
    return (
        isinstance(values, list | tuple)
        and len(values) <= MOST_AXES
        and are_sizes(values)
        and math.prod(max(1, each) for each in values) < _MOST_ELEMENTS
    )


def shape_text(values: Any) -> str:
    """A shape in an error: short, whatever it is."""
    if isinstance(values, list | tuple):
        return f"{len(values):,} dimensions" if len(values) > MOST_AXES else quoted(list(values), 100)
    return quoted(values, 100)


def files_below(folder: Path, index: Path, files: Mapping[str, Any]) -> list[Path]:
    """The files that an index names, each once; whether they exist is left to the caller.

    Args:
        folder: Where the names begin.
        index: The file that names them, for errors.
        files: Name of the file by name of the tensor.

    Raises:
        CheckpointError: A name is no text or leads out of the folder, by itself or as a link; says whose.
    """
    found: dict[str, Path] = {}
    for tensor, name in files.items():
        if not isinstance(name, str) or not _is_below(name):
            raise CheckpointError(
                f"{index}: names {quoted(name)} as the file of {quoted(tensor)}; only a file in the folder "
                "of the index, or below it, is read"
            )
        if name not in found:
            found[name] = folder / name
            if found[name].is_file() and not _stays(folder, found[name]):
                raise CheckpointError(
                    f"{index}: its file {quoted(name)} is a link out of the folder; put the file itself there"
                )
    return [found[name] for name in sorted(found)]


def few(names: Iterable[object], most: int = 5) -> str:
    """The first of some names, each cut, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown_name, names[:most])) + more


def _is_below(name: str) -> bool:
    return bool(name) and "\0" not in name and not os.path.isabs(name) and ".." not in Path(name).parts


def _stays(folder: Path, file: Path) -> bool:
    """Whether a file lies in a folder, links followed; or where Hugging Face's cache keeps its files."""
    inside = folder.resolve()
    target = file.resolve()
    if target.is_relative_to(inside):
        return True
    return inside.parent.name == "snapshots" and target.is_relative_to(inside.parent.parent / "blobs")
