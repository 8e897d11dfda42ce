"""The input files of a run, their numbers, and the work items that they are cut into or gathered in.

A file's number never changes: a later run may add files, which get the next numbers. An id is the file's
number times 2^32 plus the number of the record in the file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pangu_alpha.config.corpus import CorpusConfig
from pangu_alpha.corpus.engine import store
from pangu_alpha.corpus.reading import Input, Part, kind_of, split
from pangu_alpha.files.shown import shown
from pangu_alpha.text.documents.inputs import find_inputs

LIST = "inputs.parquet"
_MOST_FILES = 1 << 31
_MOST_TOGETHER = 10_000  # files in one item
_HEAD = 1 << 12  # bytes of a file by which its kind is told
_MOST_NAMED = 5  # faults in one message


@dataclass(frozen=True)
class Piece:
    """A file, or a range of one, as part of an item."""

    input: Input
    part: Part

    @property
    def file(self) -> int:
        """Number of the file."""
        return self.part.number


@dataclass(frozen=True)
class Item:
    """Work for one process: files of one source that lie together, or a range of a large file.

    Args:
        owner: Number of the item that holds the beginning of its files.
    """

    number: int
    source: str
    pieces: tuple[Piece, ...]
    owner: int


def list_inputs(config: CorpusConfig) -> list[Input]:
    """Lists the inputs in the order of their numbers; those of an earlier start keep theirs.

    The list is written to `inputs.parquet` in the output.

    Raises:
        ValueError: An input has changed or gone since an earlier start, or there is none.
    """
    found: dict[str, Input] = {}
    for name, source in sorted(config.sources.items()):
        for each in _found(source.inputs, name):
            if each.path in found:
                raise ValueError(
                    f"sources: {shown(each.path)} is an input of {found[each.path].source} and of {name}; "
                    "name it once"
                )
            found[each.path] = each
    path = store.join(config.output, LIST)
    known = _read(path)
    _require_unchanged(known, found)
    new = sorted((each for each in found.values() if each.path not in known), key=lambda each: each.path)
    inputs = [*known.values(), *new]
    if not inputs:
        raise ValueError("sources: the inputs name no file")
    if len(inputs) > _MOST_FILES:
        raise ValueError(f"sources: {len(inputs):,} files are too many; at most {_MOST_FILES:,} have numbers")
    if new:
        _write(path, inputs)
    return inputs


def paths_of(words: Sequence[str]) -> list[str]:
    """The files that words name, sorted: paths, folders and patterns, also of stores.

    A folder stands for every file in it: one of an unknown kind is to be counted, not passed over in silence.

    Raises:
        ValueError: A word names nothing, or a folder holds a link to another one.
    """
    local = find_inputs([each for each in words if not store.is_remote(each)], any_kind=True)
    links = [each for each in local.passed_over if os.path.isdir(each)]
    if links:
        raise ValueError(
            f"inputs: {shown(links[0])}: a link to a folder, which is not followed; name that folder itself"
        )
    far = [path for each in words if store.is_remote(each) for path in store.matching(each)]
    return sorted({*map(os.path.abspath, local.files), *far})


def _found(words: Sequence[str], source: str) -> Iterator[Input]:
    for path in paths_of(words):
        size, stamp = store.size_and_stamp(path)
        with store.open_input(path) as stream:
            kind = kind_of(path, stream.read(_HEAD))
        yield Input(path, kind, source, size, stamp)


def _require_unchanged(known: Mapping[str, Input], found: Mapping[str, Input]) -> None:
    faults = []
    for path, before in known.items():
        now = found.get(path)
        if now is None:
            faults.append(f"{shown(path)}: has gone, or no source names it any longer")
        elif now != before:
            faults.append(
                f"{shown(path)}: has changed: {before.bytes:,} bytes of {before.kind} in {before.source}, "
                f"{shown(before.stamp)}, then; {now.bytes:,} bytes of {now.kind} in {now.source}, "
                f"{shown(now.stamp)}, now"
            )
    if faults:
        more = [f"and {len(faults) - _MOST_NAMED:,} more"] if len(faults) > _MOST_NAMED else []
        raise ValueError(
            "\n  - ".join(["inputs differ from those that this output was begun with:",
                           *faults[:_MOST_NAMED], *more])
            + "\nrestore them, or give another output; files may be added, not changed"
        )  # fmt: skip


def _read(path: str) -> dict[str, Input]:
    if store.size(path) is None:
        return {}
    rows = pq.read_table(io.BytesIO(store.read_bytes(path))).to_pylist()
    return {row["path"]: Input(**row) for row in rows}


def _write(path: str, inputs: Sequence[Input]) -> None:
    rows = [
        {
            "path": each.path,
            "kind": each.kind,
            "source": each.source,
            "bytes": each.bytes,
            "stamp": each.stamp,
        }
        for each in inputs
    ]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, compression="zstd")
    store.write_bytes(path, out.getvalue())


def items_of(inputs: Sequence[Input], item_bytes: int) -> list[Item]:
    """Cuts large files and gathers small ones, so that an item has about `item_bytes`.

    Neither the number of workers nor that of partitions matters, and files that are added later change no
    item but the last of each source.
    """
    items: list[Item] = []
    begins: dict[int, int] = {}
    for source, pieces in _gathered(inputs, item_bytes):
        begins.setdefault(pieces[0].file, len(items))
        items.append(Item(len(items), source, pieces, begins[pieces[0].file]))
    return items


def _gathered(inputs: Sequence[Input], item_bytes: int) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    """Yields the pieces of each item, with their source, in an order that files added at the end keep."""
    held: dict[str, list[Piece]] = {}
    for file, each in enumerate(inputs):
        pieces = [Piece(each, part) for part in split(file, each, store.open_input, item_bytes)]
        if len(pieces) > 1:
            yield from ((each.source, (piece,)) for piece in pieces)
            continue
        mine = held.setdefault(each.source, [])
        size = sum(piece.input.bytes for piece in mine)
        if mine and (size + each.bytes > item_bytes or len(mine) == _MOST_TOGETHER):
            yield each.source, tuple(mine)
            mine.clear()
        mine += pieces
    yield from ((source, tuple(pieces)) for source, pieces in held.items() if pieces)


def owners_of(config: CorpusConfig, inputs: Sequence[Input], items: Sequence[Item]) -> bytes:
    """The owner of each file and the rank of its source, int32 [2, files], as the content of a .npy file."""
    table = np.zeros((2, len(inputs)), np.int32)
    for item in items:
        for piece in item.pieces:
            table[0, piece.file] = item.owner
    table[1] = [config.rank_of(each.source) for each in inputs]
    out = io.BytesIO()
    np.save(out, table)
    return out.getvalue()
