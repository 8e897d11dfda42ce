"""Checks that all readers make before they trust a file: its kind, JSON, shapes and location.

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

MOST_AXES = 32  # numpy's limit; multiplying thousands of sizes would take for ever
MOST_LAYERS = 2_000  # of a network; bounds the list of names that is compared with the stored ones
_MOST_ELEMENTS = 1 << 63  # numpy's limit


def check_file(path: Path) -> Path:
    """Returns the path of a file that may be opened.

    Opening a pipe would wait for ever, and a git-LFS pointer is not the file itself.

    Raises:
        CheckpointError: The path is a folder, a pipe, a socket, a device, or a git-LFS pointer.
        OSError: The file does not exist or cannot be read.
    """
    try:
        with open(require_file(path), "rb", buffering=0) as file:
            refuse_pointer(file.read(POINTER_BYTES), path)
    except ReadError as error:
        raise CheckpointError(str(error)) from error
    return path


def read_bytes(path: Path) -> bytes:
    """Reads all bytes of a small file; raises the errors of `check_file`, and refuses a large file."""
    try:
        return read_within_bounds(check_file(path))
    except ReadError as error:
        raise CheckpointError(str(error)) from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Reads the object of a JSON file; raises the errors of `read_bytes`, and refuses anything else."""
    return mapping_of(read_bytes(path), path)


def mapping_of(text: str | bytes, where: object, *, halves: bool = False) -> dict[str, Any]:
    """Parses a JSON object.

    Args:
        text: UTF-8 if bytes. NaN and Infinity, which older programs wrote, are accepted.
        where: File that the text comes from, for errors.
        halves: Accept unpaired surrogates; see `parse_json`.

    Raises:
        CheckpointError: The text is not JSON or not an object; see `parse_json`.
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
    """Whether values are the shape of an array that a machine could hold."""
    return (
        isinstance(values, list | tuple)
        and len(values) <= MOST_AXES
        and are_sizes(values)
        and math.prod(max(1, each) for each in values) < _MOST_ELEMENTS
    )


def shape_text(values: Any) -> str:
    """Returns a shape as text for an error: short, whatever the value is."""
    if isinstance(values, list | tuple):
        return f"{len(values):,} dimensions" if len(values) > MOST_AXES else quoted(list(values), 100)
    return quoted(values, 100)


def files_below(folder: Path, index: Path, files: Mapping[str, Any]) -> list[Path]:
    """Returns the files that an index names, each once, without checking whether they exist.

    Args:
        folder: Folder to which the names are relative.
        index: The file that names them, for errors.
        files: Name of the file by name of the tensor.

    Raises:
        CheckpointError: A name is not text, or leads out of the folder, by itself or through a link.
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
    """Returns the first of some names, each cut, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown_name, names[:most])) + more


def _is_below(name: str) -> bool:
    return bool(name) and "\0" not in name and not os.path.isabs(name) and ".." not in Path(name).parts


def _stays(folder: Path, file: Path) -> bool:
    """Whether a file lies inside a folder after following links, or in Hugging Face's cache beside it."""
    inside = folder.resolve()
    target = file.resolve()
    if target.is_relative_to(inside):
        return True
    return inside.parent.name == "snapshots" and target.is_relative_to(inside.parent.parent / "blobs")
