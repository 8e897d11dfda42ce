"""Stages that score texts by models, and that take texts of evaluation sets out of documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pangu_alpha.config.corpus import ContaminationSettings, QualityConfig
from pangu_alpha.corpus import quality
from pangu_alpha.corpus.engine import Count, Ledger, Part, Work, batches, count_texts
from pangu_alpha.corpus.stages.models import loaded, scorer
from pangu_alpha.corpus.stages.removals import removals_of, removed_among
from pangu_alpha.corpus.stages.texts import TEXTS, keep_or_drop

_SCORES = ("spam", "quality", "perplexity")
SCORES = pa.schema([("id", pa.int64()), *((name, pa.float32()) for name in _SCORES), ("reason", pa.string())])
HITS = pa.schema([("id", pa.int64()), ("task", pa.string()), ("item", pa.string()), ("text", pa.string())])


@dataclass(frozen=True)
class Scored:
    """What `score_texts` needs.

    Args:
        path: Of the texts.
        removals: File of exact duplicates that holds the item's owner.
        owner: Of the item's files.
        models: Paths of the models of spam, quality and perplexity; None where none scores this source.
        seed: Of the draw by quality.
    """

    path: str
    removals: str
    owner: int
    models: tuple[str | None, str | None, str | None]
    seed: int


def score_texts(work: Work, part: Part) -> None:
    """Takes exact duplicates out of the texts of an item, and what the models drop; `reads` is a Scored."""
    reads: Scored = work.reads
    removals = removals_of(reads.removals, reads.owner)
    texts, rows = part.table("text", TEXTS), part.table("scores", SCORES)
    for table in batches(reads.path, TEXTS.names):
        ids = table["id"].to_numpy()
        gone = removed_among(ids, removals)
        scores = np.full((len(_SCORES), len(ids)), np.nan, np.float32)
        left = table.filter(pa.array(~gone))
        scores[:, ~gone] = _scores(left["text"].to_pylist(), reads, work.settings)
        reasons = [
            "exact_duplicate" if copy else reason
            for copy, reason in zip(gone.tolist(), _reasons(ids, scores, reads, work.settings), strict=True)
        ]
        rows.write_columns(ids, *scores, reasons)
        texts.write(keep_or_drop(table, reasons, part.ledger))


def _scores(texts: list[str], reads: Scored, settings: QualityConfig) -> np.ndarray:
    """Scores, float32 [3, texts]; NaN where no model scores."""
    found = np.full((len(_SCORES), len(texts)), np.nan, np.float32)
    spam, good, perplexity = reads.models
    if spam is not None:
        found[0] = scorer(spam, settings.spam_label).scores(texts)
    if good is not None:
        found[1] = scorer(good, settings.quality_label).scores(texts)
    if perplexity is not None:
        found[2] = loaded(quality.TrigramModel, perplexity).perplexities(texts)
    return found


def _reasons(ids: np.ndarray, scores: np.ndarray, reads: Scored, settings: QualityConfig) -> list[str | None]:
    spam, good, perplexity = scores
    reasons = np.full(len(ids), None, object)
    if settings.perplexity_above is not None:
        reasons[perplexity > settings.perplexity_above] = (
            "high_perplexity"  # false for NaN: too short to tell
        )
    if reads.models[1] is not None:
        known = np.nan_to_num(good, nan=1.0)
        kept = quality.kept_by_quality(ids, known, reads.seed, settings.quality_alpha)
        reasons[~kept & ~np.isnan(good)] = "low_quality"
    reasons[spam > settings.spam_above] = "spam"
    found: list[str | None] = reasons.tolist()
    return found


@dataclass(frozen=True)
class Searched:
    """What `clean_of_sets` needs: files of texts, near duplicates and the index, and the item's owner."""

    path: str
    removals: str
    owner: int
    index: str | None


def clean_of_sets(work: Work, part: Part) -> None:
    """Takes near duplicates, and what evaluation sets have, out of an item's texts; `reads` is a Searched."""
    reads: Searched = work.reads
    removals = removals_of(reads.removals, reads.owner)
    index = loaded(quality.ContaminationIndex, reads.index) if reads.index else None
    texts, hits = part.table("text", TEXTS), part.table("hits", HITS)
    for table in batches(reads.path, TEXTS.names):
        gone = removed_among(table["id"].to_numpy(), removals)
        reasons: list[str | None] = ["near_duplicate" if each else None for each in gone.tolist()]
        if index is None:
            texts.write(keep_or_drop(table, reasons, part.ledger))
            continue
        ledger = Ledger()
        kept = keep_or_drop(table, reasons, ledger)
        ledger.kept = ledger.out = Count()  # counted below, as they leave
        texts.write(_without_sets(kept, index, work.settings, ledger, hits))
        part.ledger.add(ledger)


def _without_sets(
    table: pa.Table,
    index: quality.ContaminationIndex,
    settings: ContaminationSettings,
    ledger: Ledger,
    writer: object,
) -> pa.Table:
    """Cuts hits out of texts, counts, and returns the documents of which something is left."""
    before, after, keep = table["text"].to_pylist(), [], []
    for id, text in zip(table["id"].to_pylist(), before, strict=True):
        hits = index.hits(text)
        for hit in hits:
            writer.write_columns([id], [hit.task], [hit.item], [hit.text])  # type: ignore[attr-defined]
        after.append(quality.without_hits(text, hits, settings))
        keep.append(bool(after[-1]) or not hits)
        if keep[-1] and hits:
            ledger.changed["contaminated"] += 1
    left = pa.array(keep, pa.bool_())
    old = table["text"].filter(left)
    new = table.set_column(table.column_names.index("text"), "text", pa.array(after, pa.string())).filter(
        left
    )
    ledger.drop("contaminated", count_texts(table["text"].filter(pa.array([not each for each in keep]))))
    ledger.keep(count_texts(old), count_texts(new["text"]))
    ledger.removed["contaminated"] += count_texts(old).characters - count_texts(new["text"]).characters
    return new
