"""Looks for the items of evaluation sets in training records, by the n-grams that they share.

An item is called dirty if it shares one n-gram of N tokens with a training document, as Brown et al. (2020,
appendix C) did for GPT-3 with words. Question and passage are looked up apart: a passage that was seen gives
little away, a question that was seen together with its answer gives everything away.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pangu_alpha.data.manifest import Records, open_records
from pangu_alpha.data.windows import windows_in_order
from pangu_alpha.evaluation.results.reading import Recorded, read_results
from pangu_alpha.evaluation.results.result import Measured, measured
from pangu_alpha.evaluation.results.table import interval_text, markdown_table, percent, value_text
from pangu_alpha.files.shown import quoted, shown
from pangu_alpha.text.ngrams import NgramSearch
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


def overlap_table(overlaps: Iterable[Overlap]) -> str:
    """Returns a Markdown table of what the records share with each set."""
    header = ("Task", "Part", "N", "Items", "Too short", "Dirty", "Dirty %", "N-grams found %")
    rows = [
        (
            each.task,
            each.part,
            str(each.n),
            f"{len(each.ids):,}",
            f"{each.too_short:,}",
            f"{int(each.dirty.sum()):,}",
            percent(float(each.dirty.mean())),
            percent(float(each.shared.sum() / max(each.grams.sum(), 1))),
        )
        for each in overlaps
    ]
    return markdown_table(header, rows, range(2, 8))


@dataclass(frozen=True)
class Subsets:
    """A figure over all items, and over those that share nothing, or something, with the training records.

    Args:
        name: Name of the result.
        part: The part of an item that decides whether it is dirty.
        everything: The figure over all items.
        clean: None if no item is clean; `dirty` likewise.
    """

    name: str
    part: str
    everything: Measured
    clean: Measured | None
    dirty: Measured | None
    clean_items: int
    dirty_items: int


def clean_results(path: str | Path, overlaps: Sequence[Overlap], seed: int = 0) -> tuple[Subsets, ...]:
    """Counts the main figures of an evaluation again over the clean and the dirty items.

    Args:
        path: Results as `results.files` writes them.
        overlaps: Of the same evaluation files.
        seed: Of the bootstrap.

    Raises:
        FileNotFoundError: There are no results, or no items.
        ValueError: No result is of a task that was looked up, or its items are not those looked up.
    """
    recorded = read_results(path).values()
    pairs = [(each, overlap) for each in recorded for overlap in overlaps if overlap.task == each.task]
    if not pairs:
        tasks = ", ".join(dict.fromkeys(each.task for each in overlaps))
        raise ValueError(f"{shown(path)}: holds no result of {tasks}; evaluate these tasks, or name others")
    known: dict[str, set[str]] = {}
    for overlap in overlaps:
        known.setdefault(overlap.task, set()).update(overlap.ids)
    for each, _ in pairs:
        if strangers := [name for name in each.ids if name not in known[each.task]]:
            raise ValueError(
                f"{shown(path)}: item {quoted(strangers[0])} of {each.name} was not looked up; "
                "name the files that were evaluated"
            )
    return tuple(on_subsets(each, overlap, seed) for each, overlap in pairs)


def on_subsets(recorded: Recorded, overlap: Overlap, seed: int = 0) -> Subsets:
    """Counts the main figure of a result again over the clean and the dirty items."""
    figure, dirty_ids = next(iter(recorded.figures.values())), overlap.dirty_ids
    dirty = np.array([name in dirty_ids for name in recorded.ids], np.bool_)

    def part(keep: np.ndarray) -> Measured | None:
        groups = [recorded.groups[place] for place in np.flatnonzero(keep)]
        return measured([figure.subset(keep)], groups, seed)[0] if groups else None

    everything = measured([figure], recorded.groups, seed)[0]
    counts = int((~dirty).sum()), int(dirty.sum())
    return Subsets(recorded.name, overlap.part, everything, part(~dirty), part(dirty), *counts)


def clean_table(found: Iterable[Subsets]) -> str:
    """Returns a Markdown table of figures over all, clean and dirty items."""
    header = ("Result", "Part", "Metric", "All", "Clean n", "Clean", "95 %", "Dirty n", "Dirty", "95 %")
    rows = [
        (
            each.name,
            each.part,
            each.everything.key,
            value_text(each.everything),
            f"{each.clean_items:,}",
            *_value_and_interval(each.clean),
            f"{each.dirty_items:,}",
            *_value_and_interval(each.dirty),
        )
        for each in found
    ]
    return markdown_table(header, rows, (3, 4, 5, 7, 8))


def _value_and_interval(each: Measured | None) -> tuple[str, str]:
    return ("", "") if each is None else (value_text(each), interval_text(each))
