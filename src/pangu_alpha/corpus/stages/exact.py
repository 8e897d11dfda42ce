"""Exact duplicates: documents whose folded texts are equal, of which the first by source and id is kept."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pangu_alpha.corpus.duplicates import exact_keys, exact_removals
from pangu_alpha.corpus.engine import Exchange, Part, Work
from pangu_alpha.corpus.stages.removals import COLUMNS, owners, to_owners, write_owned
from pangu_alpha.corpus.stages.run import Exchanged, Run, Step, digest_of
from pangu_alpha.corpus.stages.texts import texts_of

FOUND = pa.schema([(name, pa.int64()) for name in COLUMNS[1:]])


def keys(work: Work) -> Iterator[np.ndarray]:
    """Rows (both halves of the key, rank, id) of an item; `reads` is (path of texts, path of the owners)."""
    path, files = work.reads
    ranks = owners(files)[1]
    for ids, texts in texts_of(path):
        yield np.column_stack([exact_keys(texts).view(np.int64), ranks[ids >> 32].astype(np.int64), ids])


def write_found(work: Work, blocks: Iterator[np.ndarray], part: Part) -> None:
    """Writes the removals among the rows of a part."""
    writer = part.table("found", FOUND)
    for rows in exact_removals(tuple(block.T) for block in blocks):
        writer.write_columns(*rows)


def exact_steps(run: Run, folder: str, text: str) -> Iterator[Step]:
    """The steps of the stage: find the copies, and bring the removals to their items.

    Args:
        folder: Of the stage.
        text: Name of the stage whose texts are compared.
    """
    partitions = run.partitions
    exchange = Exchange(("high", "low", "rank", "id"), partitions, keys)
    made = [run.made(text, item.number, "text") for item in run.items]
    items = [
        Work(number, "", folder, digest_of(each, run.owners), write_found, None, (each.path, run.owners.path))
        for number, each in enumerate(made)
    ]
    digest = digest_of([each.digest for each in items], partitions)
    yield Exchanged(items, parts_of(f"{folder}/found", digest, write_found, exchange))
    yield removals_step(run, folder, "exact/found")


def parts_of(
    folder: str, digest: str, function: object, exchange: Exchange, settings: object = None
) -> list[Work]:
    """The parts of an exchange."""
    assert callable(function)
    return [
        Work(number, "", folder, digest, function, settings, exchange)
        for number in range(exchange.partitions)
    ]


def removals_step(run: Run, folder: str, found: str) -> Exchanged:
    """Brings removals to the parts of their owners.

    Args:
        folder: Of the stage.
        found: Name of the step whose parts hold them.
    """
    partitions = run.partitions
    made = [run.made(found, number, "found", partitions) for number in range(partitions)]
    items = [
        Work(number, "", folder, digest_of(each, run.owners), write_owned, None, (each.path, run.owners.path))
        for number, each in enumerate(made)
    ]
    digest = digest_of([each.digest for each in items], partitions)
    return Exchanged(items, parts_of(folder, digest, write_owned, to_owners(partitions)))
