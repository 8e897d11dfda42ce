"""Stages that go through the texts of an item: extract, normalise, filter, and applying removals."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pangu_alpha.config.corpus import Reading
from pangu_alpha.corpus.engine import (
    GROUP_BYTES,
    GROUP_ROWS,
    Count,
    Ledger,
    Part,
    TableWriter,
    Work,
    batches,
    count_texts,
    store,
)
from pangu_alpha.corpus.reading import Dropped, Page, read_part
from pangu_alpha.corpus.rules import RULE_NAMES, Profile, failing, measures, normalise
from pangu_alpha.corpus.stages.inputs import Piece

_ID = ("id", pa.int64())
PAGES = pa.schema([_ID, *((name, pa.string()) for name in ("url", "title", "charset", "text"))])
BOILERPLATE = pa.schema([_ID, ("boilerplate", pa.string())])
TEXTS = pa.schema([_ID, *((name, pa.string()) for name in ("url", "title", "text"))])
MEASURES = pa.schema(
    [_ID, *((name, pa.float32()) for name in RULE_NAMES), ("mask", pa.int64()), ("reason", pa.string())]
)
DROPPED = pa.schema([_ID, *((name, pa.string()) for name in ("url", "reason"))])


@dataclass(frozen=True)
class Extracting:
    """What `extract` needs: the pieces of an item, and how they are read."""

    pieces: tuple[Piece, ...]
    reading: Reading


@dataclass
class _Rows:
    """Rows of pages that are written together."""

    pages: TableWriter
    boilerplate: TableWriter
    held: list[tuple[int, Page]] = field(default_factory=list)
    size: int = 0

    def add(self, file: int, page: Page) -> None:
        self.held.append((file << 32 | page.record, page))
        self.size += 3 * (len(page.text) + len(page.boilerplate))
        if len(self.held) >= GROUP_ROWS or self.size >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        ids = [id for id, _ in self.held]
        pages = [page for _, page in self.held]
        columns = [[getattr(each, name) for each in pages] for name in PAGES.names[1:]]
        self.pages.write_columns(ids, *columns)
        self.boilerplate.write_columns(ids, [each.boilerplate for each in pages])
        self.held, self.size = [], 0


def extract(work: Work, part: Part) -> None:
    """Reads the raw documents of an item; `reads` is an Extracting."""
    rows = _Rows(part.table("text", PAGES), part.table("boilerplate", BOILERPLATE))
    dropped = part.table("dropped", DROPPED)
    for piece in work.reads.pieces:
        for found in read_part(store.open_input, piece.input, piece.part, work.reads.reading):
            count = Count(1, found.characters_in, found.bytes_in)
            part.ledger.read += count
            if isinstance(found, Dropped):
                part.ledger.drop(found.reason, count)
                dropped.write_columns([piece.file << 32 | found.record], [found.url], [found.reason])
                continue
            out = Count(1, len(found.text), len(found.text.encode()))
            part.ledger.keep(count, out)
            shorten(part.ledger, "markup", count.characters - out.characters)
            rows.add(piece.file, found)
    rows.flush()


def shorten(ledger: Ledger, kind: str, characters: int) -> None:
    """Counts the characters by which a text became shorter, or, if negative, longer."""
    if characters > 0:
        ledger.removed[kind] += characters
    ledger.added += max(-characters, 0)


@dataclass(frozen=True)
class Ruled:
    """What `normalise_texts` and `filter_texts` need: texts of an item, the profile, the kind of source."""

    path: str
    profile: Profile
    kind: str


def normalise_texts(work: Work, part: Part) -> None:
    """Changes the texts of an item by the rules that drop none; `reads` is a Ruled."""
    settings = work.reads.profile.normalising_of(work.reads.kind)
    writer = part.table("text", TEXTS)
    for table in batches(work.reads.path, TEXTS.names):
        changed = [normalise(text, settings) for text in table["text"].to_pylist()]
        texts = pa.array([each.text for each in changed], pa.string())
        read = count_texts(table["text"])
        part.ledger.read += read
        part.ledger.keep(read, count_texts(texts))
        for each in changed:
            for kind, number in each.removed.items():
                shorten(part.ledger, kind, number)
            if each.removed or each.converted or each.masked:
                part.ledger.changed["any"] += 1
            if each.converted:
                part.ledger.changed["simplified"] += 1
            for kind in each.masked:
                part.ledger.changed[f"masked_{kind}"] += 1
        writer.write(table.set_column(table.column_names.index("text"), "text", texts))


@functools.lru_cache(maxsize=2)
def _context(profile: Profile) -> Any:
    return profile.context()


def filter_texts(work: Work, part: Part) -> None:
    """Measures the texts of an item, and keeps those that break no rule; `reads` is a Ruled."""
    context = _context(work.reads.profile)
    bounds = work.reads.profile.bounds_of(work.reads.kind)
    bits = 1 << np.arange(len(RULE_NAMES), dtype=np.int64)
    texts, rows = part.table("text", TEXTS), part.table("measures", MEASURES)
    for table in batches(work.reads.path, TEXTS.names):
        pairs = zip(table["text"].to_pylist(), table["title"].to_pylist(), strict=True)
        measured = np.array([measures(text, context, title or "") for text, title in pairs], np.float32)
        broken = failing(measured, bounds)
        first = np.where(broken.any(axis=1), broken.argmax(axis=1), -1)
        reasons = [RULE_NAMES[place] if place >= 0 else None for place in first.tolist()]
        rows.write_columns(table["id"], *measured.T, broken @ bits, reasons)
        texts.write(keep_or_drop(table, reasons, part.ledger))


def keep_or_drop(table: pa.Table, reasons: list[str | None], ledger: Ledger) -> pa.Table:
    """Counts the documents of a table, and returns those that have no reason to be dropped."""
    ledger.read += count_texts(table["text"])
    column = pa.array(reasons, pa.string())
    for reason in sorted({each for each in reasons if each is not None}):
        ledger.drop(reason, count_texts(table["text"].filter(pc.equal(column, reason))))
    kept = table.filter(pc.is_null(column))
    ledger.keep(count_texts(kept["text"]))
    return kept


def texts_of(path: str) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yields the ids and texts of a file in batches of bounded size."""
    for table in batches(path, ["id", "text"]):
        yield table["id"].to_numpy(), table["text"].to_pylist()
