"""Looks for the items of evaluation sets in training records, by the n-grams that they share.

An item is called dirty if it shares one n-gram of N tokens with a training document, as Brown et al. (2020,
appendix C) did for GPT-3 with words. Question and passage are looked up apart: a passage that was seen gives
little away, a question that was seen together with its answer gives everything away.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pangu_alpha.data.manifest import Records, open_records
from pangu_alpha.data.windows import windows_in_order
from pangu_alpha.evaluation.metrics import Figure
from pangu_alpha.evaluation.ngrams import NgramSearch
from pangu_alpha.evaluation.results.result import Measured, measured
from pangu_alpha.text.tokenizer import PanguTokenizer

logger = logging.getLogger(__name__)

SHORTEST, LONGEST = 8, 13  # N, in tokens
_PERCENTILE = 5
_ROWS = 256  # windows read at once


@dataclass(frozen=True)
class ItemText:
    """The texts of an item that are looked for.

    Args:
        id: The item's name.
        parts: Text by the name of the part: "question" is the question with its right answer (for an item
            without a passage, all of it), "passage" the text that it asks about. An empty text is left out.
    """

    id: str
    parts: Mapping[str, str]


@dataclass(frozen=True)
class Overlap:
    """What the training records share with one part of an evaluation set.

    Args:
        task: Name of the task.
        part: Name of the part.
        n: N, tokens of an n-gram.
        ids: Names of the items that have the part.
        grams: Number of n-grams of each item, int64 [items]; 0 for a text shorter than N.
        shared: Number of them that the records have, int64 [items].
    """

    task: str
    part: str
    n: int
    ids: tuple[str, ...]
    grams: np.ndarray
    shared: np.ndarray

    @property
    def dirty(self) -> np.ndarray:
        """Whether an item shares an n-gram with the records, bool [items]."""
        return self.shared > 0

    @property
    def too_short(self) -> int:
        """Number of items with fewer than N tokens, of which nothing can be said."""
        return int((self.grams == 0).sum())

    @property
    def dirty_ids(self) -> frozenset[str]:
        """Names of the dirty items."""
        return frozenset(name for name, dirty in zip(self.ids, self.dirty, strict=True) if dirty)


def ngram_length(lengths: Sequence[int] | np.ndarray) -> int:
    """N of a set: the 5th percentile of its texts' lengths in tokens, at least 8 and at most 13."""
    percentile = np.percentile(np.asarray(lengths), _PERCENTILE, method="lower")
    return int(np.clip(percentile, SHORTEST, LONGEST))


def find_overlap(
    sets: Mapping[str, Sequence[ItemText]],
    records: str | Path | Sequence[str | Path],
    tokenizer: PanguTokenizer,
    n: int | None = None,
) -> tuple[Overlap, ...]:
    """Looks the items of evaluation sets up in training records, in one pass over them.

    Texts are compared as token ids, so their words must be cut alike: near its two ends, a text may be cut
    otherwise alone than within a document. n-grams never cross the end of a document.

    Args:
        sets: Items by the name of the task.
        records: Folders of records.
        tokenizer: The vocabulary of the records.
        n: N of all sets; None chooses it for each part of a set by `ngram_length`.

    Returns:
        One overlap for each task and part, in the order of the sets.

    Raises:
        ValueError: Records are damaged or of another vocabulary; or no item has a text.
    """
    folders = [records] if isinstance(records, str | Path) else [*records]
    opened = [open_records(folder, tokenizer_digest=tokenizer.digest, full=False) for folder in folders]
    parts = [*_parts(sets, tokenizer, n)]
    if not parts:
        raise ValueError(f"{', '.join(sets) or 'no task'}: there is no text to look for in the records")
    texts = [ids for part in parts for ids in part.texts]
    lengths = [part.n for part in parts for _ in part.texts]
    total = sum(each.count for each in opened)
    logger.info("looking for %d texts in %d windows of training records", len(texts), total)
    search = NgramSearch(texts, lengths, _breaks(opened))
    with tqdm(total=total, desc="records", unit="window", disable=None) as bar:
        for each in opened:
            search.feed(np.array([each.manifest.vocabulary.end_of_document_id]))  # a folder begins anew
            for block in windows_in_order(each, _ROWS):
                search.feed(block)
                bar.update(len(block))
    return tuple(_overlaps(parts, *search.result()))


@dataclass(frozen=True)
class _Part:
    """The texts of one part of a set, as token ids."""

    task: str
    name: str
    n: int
    ids: tuple[str, ...]
    texts: tuple[np.ndarray, ...]


def _parts(
    sets: Mapping[str, Sequence[ItemText]], tokenizer: PanguTokenizer, n: int | None
) -> Iterator[_Part]:
    for task, items in sets.items():
        for name in dict.fromkeys(name for item in items for name in item.parts):
            having = [item for item in items if item.parts.get(name)]
            rows = tokenizer.encode_batch([item.parts[name] for item in having])
            if having:
                length = ngram_length([len(row) for row in rows]) if n is None else n
                texts = tuple(np.array(row, np.int32) for row in rows)
                yield _Part(task, name, length, tuple(item.id for item in having), texts)


def _breaks(records: Iterable[Records]) -> set[int]:
    """Ids of ends of documents and of padding, none of which text yields."""
    vocabularies = [each.manifest.vocabulary for each in records]
    return {id for each in vocabularies for id in (each.end_of_document_id, each.pad_id)}


def _overlaps(parts: Iterable[_Part], grams: np.ndarray, shared: np.ndarray) -> Iterator[Overlap]:
    start = 0
    for part in parts:
        rows = slice(start, start := start + len(part.texts))
        yield Overlap(part.task, part.name, part.n, part.ids, grams[rows], shared[rows])


@dataclass(frozen=True)
class Subsets:
    """A figure over all items, and over those that share nothing, or something, with the training records.

    Args:
        clean: None if no item is clean; `dirty` likewise.
    """

    everything: Measured
    clean: Measured | None
    dirty: Measured | None
    clean_items: int
    dirty_items: int


def on_subsets(
    figure: Figure,
    ids: Sequence[str],
    dirty_ids: frozenset[str],
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Subsets:
    """Counts a figure again over the clean and the dirty items.

    Args:
        ids: Names of the figure's items.
        dirty_ids: Names of the items that count as dirty.
        groups: The group of each item; see `statistics.interval`.
    """
    dirty = np.array([name in dirty_ids for name in ids], np.bool_)

    def part(keep: np.ndarray) -> Measured | None:
        if not keep.any():
            return None
        kept = (
            None if groups is None else [group for group, wanted in zip(groups, keep, strict=True) if wanted]
        )
        return measured([figure.subset(keep)], kept, seed)[0]

    everything = measured([figure], groups, seed)[0]
    return Subsets(everything, part(~dirty), part(dirty), int((~dirty).sum()), int(dirty.sum()))
