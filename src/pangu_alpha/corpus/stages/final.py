"""The last stages: count tokens, keep a source within its budget, and write the corpus."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pangu_alpha.corpus.engine import Part, Work, batches
from pangu_alpha.corpus.hashing import FACTOR, mixed
from pangu_alpha.corpus.stages.removals import removals_of, sizes_of
from pangu_alpha.corpus.stages.texts import TEXTS, keep_or_drop, texts_of
from pangu_alpha.text.tokenizer import PanguTokenizer

TOKENS = pa.schema([("id", pa.int64()), ("tokens", pa.int64())])
FINAL = pa.schema(
    [("text", pa.string()), ("id", pa.int64()), ("url", pa.string()), ("cluster_size", pa.int64())]
)
BINS = 1 << 16  # of the hash by which documents are drawn


@dataclass(frozen=True)
class Counting:
    """How tokens are counted: by a vocabulary, or, without one, by characters; and the seed of the draw."""

    vocabulary: str | None
    seed: int


def bins_of(ids: np.ndarray, seed: int) -> np.ndarray:
    """The bin of each document, int64 [ids], in [0, BINS), by a hash of its id and the seed."""
    word = mixed(ids.astype(np.uint64) + np.uint64(seed * int(FACTOR) % 2**64))
    return (word >> np.uint64(48)).astype(np.int64)


@functools.lru_cache(maxsize=1)
def _tokenizer(path: str) -> Any:
    return PanguTokenizer(path)


def count_tokens(work: Work, part: Part) -> None:
    """Counts the tokens of an item's texts, and their sum in each bin; `reads` is the path of the texts."""
    counting: Counting = work.settings
    writer = part.table("tokens", TOKENS)
    total = np.zeros(BINS, np.int64)
    for ids, texts in texts_of(work.reads):
        if counting.vocabulary is None:
            tokens = np.array([len(text) for text in texts], np.int64)
        else:
            tokenizer = _tokenizer(counting.vocabulary)
            tokens = np.array([len(tokenizer.encode(text)) for text in texts], np.int64)
        writer.write_columns(ids, tokens)
        np.add.at(total, bins_of(ids, counting.seed), tokens)
    used = np.flatnonzero(total)
    part.facts.update(tokens=int(total.sum()), bins=used.tolist(), bin_tokens=total[used].tolist())


def bound_of(records: Sequence[Mapping[str, Any]], budget: int | None) -> int:
    """The number of bins whose tokens together are within a budget; all of them without one."""
    if budget is None:
        return BINS
    total = np.zeros(BINS, np.int64)
    for record in records:
        total[record["facts"]["bins"]] += np.array(record["facts"]["bin_tokens"], np.int64)
    return int(np.searchsorted(np.cumsum(total), budget, "right"))


@dataclass(frozen=True)
class Writing:
    """What `write_final` needs.

    Args:
        path: Of the texts.
        near: Of the removals of near duplicates that hold the item's owner; `exact` likewise.
        owner: Of the item's files.
        bound: Documents of bins from here on are beyond the source's budget.
        seed: Of the draw.
        final: Path of the file to write.
    """

    path: str
    near: str
    exact: str
    owner: int
    bound: int
    seed: int
    final: str


def write_final(work: Work, part: Part) -> None:
    """Writes the final file of an item; `reads` is a Writing."""
    reads: Writing = work.reads
    near, exact = removals_of(reads.near, reads.owner), removals_of(reads.exact, reads.owner)
    writer = part.table("final", FINAL, reads.final)
    for table in batches(reads.path, TEXTS.names):
        over = bins_of(table["id"].to_numpy(), reads.seed) >= reads.bound
        kept = keep_or_drop(table, ["over_budget" if each else None for each in over.tolist()], part.ledger)
        ids = kept["id"].to_numpy()
        size = np.maximum(sizes_of(ids, near), sizes_of(ids, exact))
        writer.write_columns(kept["text"].combine_chunks(), ids, kept["url"].combine_chunks(), size)
