"""Removed documents on their way back to the items that hold them.

A removal goes to the part of the item that owns the document's file. A stage of texts then reads one file of
removals for an item, and of it only the rows of its owner.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pangu_alpha.corpus.engine import Exchange, Part, Work, batches, part_of, store

COLUMNS = ("owner", "id", "kept_id", "cluster_size")
SCHEMA = pa.schema([(name, pa.int64()) for name in COLUMNS])


class Removals(NamedTuple):
    """Rows about documents of an item, sorted by id; a kept one's row has its own id twice.

    Args:
        kept: The copy that is kept.
        size: Of a kept document, the number of documents that it stands for.
    """

    id: np.ndarray
    kept: np.ndarray
    size: np.ndarray


@functools.lru_cache(maxsize=2)
def owners(path: str) -> np.ndarray:
    """The owner and the rank of each input file, int32 [2, files]; see `inputs.owners_of`."""
    return np.load(io.BytesIO(store.read_bytes(path)), allow_pickle=False)


def with_owner(path: str, rows: np.ndarray) -> np.ndarray:
    """Puts the owner of the id in a row's first column before it."""
    return np.column_stack([owners(path)[0][rows[:, 0] >> 32].astype(np.int64), rows])


def owned(work: Work) -> Iterator[np.ndarray]:
    """The rows (id, kept, size) of a part, with their owners; `reads` is (path, path of the owners)."""
    path, files = work.reads
    for table in batches(path):
        yield with_owner(files, np.column_stack([column.to_numpy() for column in table.columns]))


def write_owned(work: Work, blocks: Iterator[np.ndarray], part: Part) -> None:
    """Writes the removals of a part's owners."""
    writer = part.table("removals", SCHEMA)
    removed = 0
    for rows in blocks:
        writer.write_columns(*rows.T)
        removed += int((rows[:, 1] != rows[:, 2]).sum())
    part.facts["removed"] = removed


def to_owners(partitions: int) -> Exchange:
    """How removals go to the parts of their owners."""
    return Exchange(COLUMNS, partitions, owned, mixed=False)


def part_of_owner(owner: int, partitions: int) -> int:
    """The part that holds the rows of an owner."""
    return int(part_of(np.array([owner]), partitions, mixed=False)[0])


def rows_of_owner(path: str, owner: int) -> Iterator[pa.Table]:
    """Yields the rows of a file that is sorted by owner which are of one owner; skips the rest unread."""
    source = store.open_input(path) if store.is_remote(path) else pa.OSFile(path)
    with source, pq.ParquetFile(source) as file:
        for number in range(file.num_row_groups):
            bounds = file.metadata.row_group(number).column(0).statistics
            if bounds.min <= owner <= bounds.max:
                table = file.read_row_group(number)
                yield table.filter(pc.equal(table["owner"], owner))


def removals_of(path: str, owner: int) -> Removals:
    """The removals of an owner."""
    tables = [*rows_of_owner(path, owner)]
    rows = [np.column_stack([each[name].to_numpy() for name in COLUMNS[1:]]) for each in tables]
    table = np.concatenate([*rows, np.empty((0, 3), np.int64)])
    return Removals(*np.ascontiguousarray(table.T))


def removed_among(ids: np.ndarray, removals: Removals) -> np.ndarray:
    """Whether documents are removed, bool [ids]."""
    return np.isin(ids, removals.id[removals.id != removals.kept])


def sizes_of(ids: np.ndarray, removals: Removals) -> np.ndarray:
    """The number of documents that each kept document stands for, int64 [ids]; 1 without a row."""
    if not len(removals.id):
        return np.ones(len(ids), np.int64)
    places = np.minimum(np.searchsorted(removals.id, ids), len(removals.id) - 1)
    found = (removals.id[places] == ids) & (removals.kept[places] == ids)
    return np.where(found, removals.size[places], 1)
