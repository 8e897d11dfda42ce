"""Near duplicates against the exact Jaccard index of all pairs: what is found, what is removed rightly."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from dataclasses import dataclass

import numpy as np
import pytest
import small_corpus
from scipy.sparse import csr_matrix

from pangu_alpha.config.corpus import SignatureSettings
from pangu_alpha.corpus.duplicates import (
    band_keys,
    connected,
    members,
    near_removals,
    signatures,
    star_edges,
)
from pangu_alpha.corpus.folding import fold
from pangu_alpha.text.corpora import documents, fetch

SETTINGS = SignatureSettings()
TRUE = 0.8
TARGETS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def planted(texts, count, seed):
    """Adds changed copies of texts, as many of each target, and a quarter as many exact ones; shuffles."""
    rng = random.Random(seed)
    found, long = list(texts), [text for text in map(fold, texts) if len(text) >= 200]
    for number, text in enumerate(rng.sample(long, count)):
        target, characters = TARGETS[number % len(TARGETS)], list(text)
        changed = round((len(text) - 4) * (1 - target) / (5 * (1 + target)))
        for place in range(changed):
            at = int((place + 0.5) * len(characters) / changed)
            characters[at] = chr(0x3400 + rng.randrange(6000))
        found.append("".join(characters))
    found += rng.sample(texts, count // 4)
    rng.shuffle(found)
    return found


def exact_pairs(texts):
    """Pairs of documents with a Jaccard index of at least .3, and the index, by an inverted index."""
    shingles = ({text[i : i + 5] for i in range(max(len(text) - 4, 1))} for text in map(fold, texts))
    sets = [np.array([hash_of(each) for each in some]) for some in shingles]
    sizes = np.array([len(each) for each in sets])
    _, column = np.unique(np.concatenate(sets), return_inverse=True)
    row = np.repeat(np.arange(len(sets)), sizes)
    matrix = csr_matrix((np.ones(len(column), np.float32), (row, column)))
    turned, found = matrix.T.tocsr(), {}
    for start in range(0, len(sets), 500):
        common = (matrix[start : start + 500] @ turned).tocoo()
        first, second = common.row + start, common.col
        index = common.data / (sizes[first] + sizes[second] - common.data)
        keep = (second > first) & (index >= 0.3)
        pairs = zip(first[keep].tolist(), second[keep].tolist(), strict=True)
        found.update(zip(pairs, index[keep].tolist(), strict=True))
    return found


def hash_of(shingle):
    value = 0
    for each in shingle:
        value = value * 1_000_003 + ord(each) & 0x7FFFFFFFFFFFFFFF
    return value


def sorted_rows(*columns):
    order = np.lexsort(columns[::-1])
    return tuple(each[order] for each in columns)


@dataclass
class Outcome:
    """Figures of one set."""

    pairs: int
    candidates_recall: float
    recall: float
    lost: float
    precision: float
    precision_at_7: float
    removed: int
    largest: int


def outcome(texts, threshold=SETTINGS.threshold):
    truth = exact_pairs(texts)
    true = [pair for pair, index in truth.items() if index >= TRUE]
    rows = signatures(texts, SETTINGS)
    keys = band_keys(rows, SETTINGS.bands)
    ids = np.repeat(np.arange(len(texts)), SETTINGS.bands)
    buckets = [sorted_rows(keys.reshape(-1), ids)]
    edges = [np.concatenate(each) for each in zip(*star_edges(buckets), strict=True)]
    id, label = connected(*edges)
    component = np.arange(len(texts))
    component[id] = label
    same_band = sum(bool((keys[a] == keys[b]).any()) for a, b in true)
    together = [pair for pair in true if component[pair[0]] == component[pair[1]]]
    label, id = sorted_rows(label, id)
    id, label = (np.concatenate(each) for each in zip(*members([(id, label)]), strict=True))
    label, id = sorted_rows(label, id)
    longer = signatures([texts[place] for place in id.tolist()], SETTINGS, SETTINGS.check_hashes)
    block = label, np.zeros_like(id), id, np.ones_like(id), longer
    gone = {}
    for each in near_removals([block], threshold):
        pairs = zip(each.id.tolist(), each.kept.tolist(), strict=True)
        gone.update({id: kept for id, kept in pairs if id != kept})
    index = [truth.get((min(pair), max(pair)), 0.0) for pair in gone.items()]
    still = [pair for pair in together if gone.keys() & {*pair}]
    _, sizes = np.unique(label, return_counts=True)
    return Outcome(
        pairs=len(true),
        candidates_recall=same_band / len(true),
        recall=len(together) / len(true),
        lost=1 - len(still) / len(together),
        precision=sum(each >= TRUE for each in index) / len(gone),
        precision_at_7=sum(each >= 0.7 for each in index) / len(gone),
        removed=len(gone),
        largest=int(sizes.max()),
    )


def check(found, recall):
    """What must hold at the default threshold, although a quarter of the planted pairs lies at .7 and .75."""
    assert found.candidates_recall >= recall and found.recall >= recall
    assert found.lost <= 0.02
    assert found.precision >= 0.95 and found.precision_at_7 >= 0.99
    assert found.largest < 20


def test_a_small_set():
    texts = [text * 2 for text in small_corpus.documents(1500)]
    found = outcome(planted(texts, 240, seed=7))
    assert found.pairs > 100 and found.removed >= found.pairs * 0.9
    check(found, 0.97)


def real_texts():
    """Articles of statutes and pieces of a novel."""
    rng = random.Random(7)
    with contextlib.closing(sqlite3.connect(f"{fetch('statutes').as_uri()}?mode=ro", uri=True)) as base:
        rows = base.execute("select article_text from articles order by id")
        found = [text for (text,) in rows if text and len(text) >= 60]
    for chapter in documents("sanguo", fetch("sanguo")):
        found += pieces(chapter, rng)
    rng.shuffle(found)
    return found[:20_000]


def pieces(text, rng):
    start = 0
    while start < len(text):
        stop = start + rng.randint(150, 1200)
        yield text[start:stop]
        start = stop


@pytest.mark.long
@pytest.mark.corpus
def test_twenty_thousand_documents():
    found = outcome(planted(real_texts(), 1600, seed=7))
    print(found)
    assert found.pairs > 1000
    check(found, 0.98)
