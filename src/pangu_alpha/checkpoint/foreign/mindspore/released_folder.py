"""The released PanGu-alpha weights as users have them: 512 slices, three .npy tables, a vocabulary.

Finds the slices under any spelling of their names, in the folder and below, with or without the strategy
file. Names every slice that is missing, present twice, or not what it should be.
"""

from __future__ import annotations

import math
import os
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from numpy.lib import format as npy

from pangu_alpha.checkpoint.errors import CheckpointError, refuse
from pangu_alpha.checkpoint.foreign.mindspore.assembly import SliceFile, assemble
from pangu_alpha.checkpoint.foreign.mindspore.rank_saves import ranges
from pangu_alpha.checkpoint.foreign.mindspore.released import SHARED, TABLES
from pangu_alpha.checkpoint.foreign.mindspore.slices import blaming, find_strategy, read_slices
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.renaming import as_source
from pangu_alpha.checkpoint.tensors import Piece, Source, Stored, whole
from pangu_alpha.checkpoint.untrusted import check_file, is_shape, shape_text

# The archive uses the first spelling, the README's text the other two.
_SLICE = re.compile(r"(?:filerted|filtered|filitered)_(?P<number>\d{1,6})\.ckpt")
TABLE_FILES = {
    "word_embedding": "word_embedding.table",
    "position_embedding": "position_embedding.table",
    "top_query_embedding": "query_embedding.table",
}
_OFFICIAL = TABLES["norm_then_query"] | SHARED
_DEPTH = 3  # folders: the four archives unpacked side by side, each with a folder of its own
# Raised by numpy for a damaged .npy header, from its parser, tokenizer and evaluator of literals.
_NPY_ERRORS = (
    ValueError, KeyError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError,
)  # fmt: skip


def recognises(path: Path) -> bool:
    """Whether a folder, or one inside it, has slices under the release's names."""
    return path.is_dir() and any(True for _ in _walk(path, lambda name: bool(_SLICE.fullmatch(name))))


def open_(path: Path, options: OpenOptions) -> Source:
    """Opens the folder of the released weights.

    Raises:
        CheckpointError: Slices are missing, present twice, damaged or of another model, or a table is
            missing; all are named.
        ConfigError: The model that the user names does not exist.
    """
    paths, problems = _find_slices(path)
    files, unreadable = read_slices(paths)
    problems += unreadable + _odd_slices(files)
    if gaps := [number for number in range(max(paths)) if number not in paths]:
        problems.append(f"missing: slices {ranges(gaps)}")
    refuse(path, "slices to be fetched again", problems)
    strategy, read = find_strategy([path, *sorted({file.path.parent for file in files.values()})], options)
    tables, form = _tables(path), f"released weights, {len(files)} slices {read}"
    with blaming(strategy, read):
        found = assemble(files, strategy, options, path)
        copies = _copies(files, found.stored)
        refuse(path, "slices to be fetched again", [] if copies else found.strangers)
    refuse(path, "slices to be fetched again", copies + found.strangers)  # wrong wherever they are placed
    with blaming(strategy, read):
        notes = found.notes
        if left := [name for name in tables if name in found.stored]:
            notes.append(f".npy files left aside, the slices hold {', '.join(left)}")
        return as_source(path, form, {**tables, **found.stored}, options, notes=notes)


def _walk(path: Path, wanted: Callable[[str], object]) -> list[Path]:
    """Returns the wanted files in a folder and below, not deeper than _DEPTH."""
    found = []
    for folder, below, names in os.walk(path, followlinks=True):
        if len(Path(folder).relative_to(path).parts) >= _DEPTH:
            below.clear()
        below.sort()
        found += [Path(folder, name) for name in sorted(names) if wanted(name)]
    return found


def _find_slices(path: Path) -> tuple[dict[int, Path], list[str]]:
    found: dict[int, list[Path]] = defaultdict(list)
    for file in _walk(path, _SLICE.fullmatch):
        name = _SLICE.fullmatch(file.name)
        assert name  # _walk has just matched it
        found[int(name["number"])].append(file)
    problems = [
        f"slice {number} is there twice: {files[0].relative_to(path)}, {files[1].relative_to(path)}"
        for number, files in sorted(found.items())
        if len(files) > 1
    ]
    return {number: files[0] for number, files in found.items()}, problems


def _odd_slices(files: Mapping[int, SliceFile]) -> list[str]:
    """Returns the slices whose tensors differ in name, shape or type from those of most others."""
    if not files:
        return []
    kinds = Counter(one.kinds for one in files.values()).most_common(1)[0][0]
    usual = {name: rest for name, *rest in kinds}
    problems = []
    for file in files.values():
        own = {name: rest for name, *rest in file.kinds}
        lines = [f"lacks {name}" for name in usual if name not in own]
        lines += [f"has {name}" for name in own if name not in usual]
        lines += [
            f"{name} is {own[name]}, elsewhere {usual[name]}"
            for name in own
            if name in usual and own[name] != usual[name]
        ]
        if lines:
            more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
            problems.append(f"{file.path}: not like the other slices: {'; '.join(lines[:3])}{more}")
    return problems


def _copies(files: Mapping[int, SliceFile], stored: Mapping[str, Stored]) -> list[str]:
    """Returns slices with the same values as another one, by samples of the tensor with the most slices."""
    cut = max(stored, key=lambda name: (len(stored[name].pieces), len(stored[name].shape)))
    same: dict[bytes, list[int]] = defaultdict(list)
    for number, file in files.items():
        sample = file.replica(cut).sample()
        if sample.strip(sample[:4]):  # a tensor of equal numbers, as in a new model, proves nothing
            same[sample].append(number)
    return [
        f"slices {ranges(numbers)} hold the same values: copies of one of them"
        for numbers in same.values()
        if len(numbers) * len(stored[cut].pieces) > len(files)
    ]


def _tables(path: Path) -> dict[str, Stored]:
    """Returns the embedding tables by their official names."""
    tables = {}
    for stem, ours in TABLE_FILES.items():
        files = _walk(path, f"{stem}.npy".__eq__)
        if len(files) > 1:
            raise CheckpointError(f"{path}: {stem}.npy is there twice: {files[0]} and {files[1]}")
        if files:
            tables[_OFFICIAL[ours]] = _npy(files[0])
    return tables


def _npy(path: Path) -> Stored:
    """Locates the array of a .npy file; numpy itself reads the header."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    try:
        with open(check_file(path), "rb") as file:
            version = npy.read_magic(file)
            shape, by_columns, dtype = readers[version](file)
            begin, size = file.tell(), os.fstat(file.fileno()).st_size
    except CheckpointError:
        raise
    except _NPY_ERRORS as error:
        raise CheckpointError(f"{path}: no .npy file, or damaged ({error})") from error
    if not is_shape(shape):
        raise CheckpointError(f"{path}: no .npy file, or damaged (its shape is {shape_text(shape)})")
    needed = dtype.itemsize * math.prod(shape)
    if dtype.hasobject:
        raise CheckpointError(f"{path}: a pickle inside a .npy, which could run code; it is not opened")
    if size - begin != needed or not dtype.isnative:
        raise CheckpointError(
            f"{path}: {size - begin:,} bytes, {needed:,} are needed for {dtype.str} {list(shape)}; fetch it "
            "again"
        )
    extents = ((begin, needed),)
    return Stored(shape, (Piece(whole(shape), path, extents, dtype.name, by_columns, label=path.name),))
