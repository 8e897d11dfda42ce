"""Rows that move from items to parts: their files on the local engine, and sorted streams in bounded memory.

Rows are int64 arrays [rows, columns]. Row r belongs to the part that its first column says, and the rows of
a part are sorted by all columns, so that their order does not depend on who wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pangu_alpha.corpus import hashing
from pangu_alpha.corpus.engine import store
from pangu_alpha.corpus.engine.items import Part, Work

BLOCK_ROWS = 1 << 18  # of every block that a part's function gets, except its last
_BLOCK_BYTES = 32 << 20  # of rows that are so wide that BLOCK_ROWS of them would be more
_RUN_BYTES = 64 << 20  # of rows that are sorted together while an item is read
_MERGE_BYTES = 64 << 20  # of rows that are held while a part is merged
_LEAST_READ = 512  # rows read at a time from one run


@dataclass(frozen=True)
class Exchange:
    """How the rows of items become those of parts.

    Args:
        columns: Names of the columns that rows are sorted by, in this order.
        partitions: Number of parts.
        read: A function at module level, read(work), which yields an item's rows in blocks.
        mixed: Whether the first column is hashed before it is taken modulo the number of parts.
        others: Number of further columns. Rows whose first columns are equal must then be equal.
    """

    columns: tuple[str, ...]
    partitions: int
    read: Callable[[Work], Iterator[np.ndarray]]
    mixed: bool = True
    others: int = 0

    @property
    def width(self) -> int:
        """Number of all columns."""
        return len(self.columns) + self.others

    def part_of(self, key: np.ndarray) -> np.ndarray:
        """The parts of rows, [rows], int64, by their first column."""
        return part_of(key, self.partitions, self.mixed)


def part_of(key: np.ndarray, partitions: int, mixed: bool = True) -> np.ndarray:
    """The parts of keys, int64."""
    word = key.astype(np.int64, copy=False).view(np.uint64)
    if mixed:
        word = hashing.mixed(word)
    return (word % np.uint64(partitions)).astype(np.int64)


def in_order(rows: np.ndarray, columns: int) -> np.ndarray:
    """Rows sorted by their first columns."""
    return rows[np.lexsort(rows[:, :columns].T[::-1])]


def spread(work: Work, part: Part) -> None:
    """Writes the rows of an item as sorted runs, each cut into one slice per part.

    The file holds the runs, then for each run the row numbers at which its slices begin [partitions + 1],
    then the number of runs, of parts and of columns; all of it int64.
    """
    exchange: Exchange = work.settings
    stream = part.stream("rows")
    width, begin = exchange.width, 0
    offsets = []
    for rows in _runs(exchange.read(work.reads), width):
        parts = exchange.part_of(rows[:, 0])
        order = np.lexsort((*rows[:, : len(exchange.columns)].T[::-1], parts))
        stream.write(np.ascontiguousarray(rows[order]).view(np.uint8).reshape(-1))
        counts = np.bincount(parts, minlength=exchange.partitions)
        offsets.append(begin + np.concatenate([[0], np.cumsum(counts)]))
        begin += len(rows)
    table = np.array(offsets, np.int64).reshape(len(offsets), exchange.partitions + 1)
    footer = np.array([len(offsets), exchange.partitions, width], np.int64)
    stream.write(np.concatenate([table.reshape(-1), footer]).view(np.uint8))
    part.facts["rows"] = begin


def _runs(blocks: Iterable[np.ndarray], width: int) -> Iterator[np.ndarray]:
    held: list[np.ndarray] = []
    for block in blocks:
        held.append(np.asarray(block, np.int64).reshape(-1, width))
        if sum(each.nbytes for each in held) >= _RUN_BYTES:
            yield np.concatenate(held)
            held = []
    if sum(map(len, held)):
        yield np.concatenate(held)


@dataclass
class _Slice:
    """What is still to be read of a part's slice of one run."""

    path: str
    width: int
    begin: int
    end: int
    rows: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.int64))

    def fill(self, most: int) -> None:
        """Reads the next rows if none are held."""
        if not len(self.rows) and self.begin < self.end:
            count = min(most, self.end - self.begin)
            size = 8 * self.width
            with store.open_input(self.path) as stream:
                stream.seek(self.begin * size)
                content = stream.read(count * size)
            self.rows = np.frombuffer(content, np.int64).reshape(count, self.width)
            self.begin += count

    def take(self, bound: tuple[int, ...] | None) -> np.ndarray:
        """Removes and returns the rows up to and including a bound; None is beyond all."""
        count = len(self.rows) if bound is None else int(_not_above(self.rows, bound).sum())
        taken, self.rows = self.rows[:count], self.rows[count:]
        return taken


def _not_above(rows: np.ndarray, bound: tuple[int, ...]) -> np.ndarray:
    result = np.ones(len(rows), bool)
    for column in range(len(bound) - 1, -1, -1):
        values = rows[:, column]
        result = (values < bound[column]) | ((values == bound[column]) & result)
    return result


def sorted_rows(paths: Sequence[str], number: int, columns: int) -> Iterator[np.ndarray]:
    """Yields a part's rows in order, in blocks of any size.

    Args:
        paths: The files that `spread` wrote.
        number: Of the part.
        columns: Number of the first columns, by which rows are sorted.
    """
    slices = [each for path in paths for each in _slices(path, number) if each.begin < each.end]
    total = sum((each.end - each.begin) * each.width * 8 for each in slices)
    if total <= _MERGE_BYTES:
        for each in slices:
            each.fill(each.end - each.begin)
        if slices:
            yield in_order(np.concatenate([each.rows for each in slices]), columns)
        return
    yield from _merged(slices, columns)


def _merged(slices: list[_Slice], columns: int) -> Iterator[np.ndarray]:
    most = max(_LEAST_READ, _MERGE_BYTES // (8 * slices[0].width * len(slices)))
    while slices:
        for each in slices:
            each.fill(most)
        # Rows up to the least of the last rows held are complete: whatever is still to be read comes after.
        unread = [tuple(each.rows[-1, :columns].tolist()) for each in slices if each.begin < each.end]
        bound = min(unread) if unread else None
        taken = np.concatenate([each.take(bound) for each in slices])
        slices = [each for each in slices if len(each.rows) or each.begin < each.end]
        yield in_order(taken, columns)


def _slices(path: str, number: int) -> list[_Slice]:
    with store.open_input(path) as stream:
        end = stream.seek(0, 2)
        runs, partitions, width = _numbers(stream, end - 24, 3)
        table = end - 24 - 8 * runs * (partitions + 1)
        found = []
        for run in range(runs):
            begin, stop = _numbers(stream, table + 8 * (run * (partitions + 1) + number), 2)
            found.append(_Slice(path, width, begin, stop))
    return found


def _numbers(stream: Any, offset: int, count: int) -> list[int]:
    stream.seek(offset)
    return np.frombuffer(stream.read(8 * count), np.int64).tolist()


def equal_blocks(blocks: Iterable[np.ndarray], width: int) -> Iterator[np.ndarray]:
    """Cuts a stream of rows into blocks of one size, so that no result can depend on how the rows came.

    Args:
        width: Number of columns.
    """
    size = max(1, min(BLOCK_ROWS, _BLOCK_BYTES // (8 * width)))
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        while count + len(block) >= size:
            yield np.concatenate([*held, block[: size - count]])
            block, held, count = block[size - count :], [], 0
        if len(block):
            held.append(block)
            count += len(block)
    if held:
        yield np.concatenate(held)


def counted(blocks: Iterable[np.ndarray], part: Part) -> Iterator[np.ndarray]:
    """Passes blocks on and notes the number of their rows in the part's facts."""
    part.facts["rows"] = 0
    for block in blocks:
        part.facts["rows"] += len(block)
        yield block


def gather(work: Work, blocks: Iterable[np.ndarray], part: Part) -> None:
    """Does the work of a part, function(work, blocks, part): `work.reads` is its exchange."""
    exchange: Exchange = work.reads
    stream = counted(equal_blocks(blocks, exchange.width), part)
    work.function(work, stream, part)
    for _ in stream:
        pass
