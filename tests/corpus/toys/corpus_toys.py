"""Items and parts for the tests of the engines; worker processes and executors import it by this name."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa

from pangu_alpha.corpus.engine import Count, Exchange, Work

NUMBERS = pa.schema([("n", pa.int64())])


def write_numbers(work, part):
    """Writes as many numbers as `reads` says, and counts one document for each."""
    writer = part.table("numbers", NUMBERS)
    for number in range(work.reads):
        part.ledger.read += Count(1, 1, 1)
        part.ledger.keep(Count(1, 1, 1))
        writer.write_columns([number])


def slowly(work, part):
    """Like `write_numbers`, but takes its time."""
    time.sleep(work.settings)
    write_numbers(work, part)


def lose_one(work, part):
    """Counts one document less than it has read."""
    part.ledger.read += Count(2, 4, 8)
    part.ledger.keep(Count(1, 4, 8))


def refuse(work, part):
    raise ValueError(f"item {work.number} cannot be read")


def random_rows(work: Work):
    """Rows of an item in blocks of odd sizes: `reads` is (rows, distinct keys, columns besides)."""
    count, keys, others = work.reads
    draw = np.random.default_rng(work.number)
    rows = np.empty((count, 2 + others), np.int64)
    rows[:, 0] = draw.integers(-keys, keys, count)
    rows[:, 1] = (work.number << 32) + np.arange(count)
    rows[:, 2:] = rows[:, 1:2] * 3
    for start in range(0, count, 1009):
        yield rows[start : start + 1009]


def write_rows(work, blocks, part):
    """Writes the rows of a part as they come."""
    writer = part.table("rows", pa.schema([(f"c{n}", pa.int64()) for n in range(work.reads.width)]))
    for block in blocks:
        writer.write_columns(*block.T)


def exchange(partitions, others=0):
    return Exchange(("key", "id"), partitions, random_rows, others=others)
