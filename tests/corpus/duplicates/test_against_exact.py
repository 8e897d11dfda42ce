"""Near duplicates against the exact Jaccard index of all pairs: what is found, and what is removed rightly."""

from __future__ import annotations

import random
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
from pangu_alpha.text.corpora import documents

SETTINGS = SignatureSettings()
TRUE = 0.8
TARGETS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def planted(texts, count, seed):
    """Adds changed copies of texts, as many of each target, and a quarter as many exact ones; shuffles all."""
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
    sets = [
        np.array([hash_of(text[i : i + 5]) for i in range(max(len(text) - 4, 1))])
        for text in map(fold, texts)
    ]
    sets = [np.unique(each) for each in sets]
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
    removed: int
    largest: int


def outcome(texts, threshold=SETTINGS.threshold):
    truth = exact_pairs(texts)
    true = [pair for pair, index in truth.items() if index >= TRUE]
    rows = signatures(texts, SETTINGS)
    keys = band_keys(rows, SETTINGS.bands)
    ids = np.repeat(np.arange(len(texts)), SETTINGS.bands)
    edges = [
        np.concatenate(each) for each in zip(*star_edges([sorted_rows(keys.reshape(-1), ids)]), strict=True)
    ]
    id, label = connected(*edges)
    component = np.arange(len(texts))
    component[id] = label
    same_band = sum(bool((keys[a] == keys[b]).any()) for a, b in true)
    together = [pair for pair in true if component[pair[0]] == component[pair[1]]]
    label, id = sorted_rows(label, id)
    id, label = (np.concatenate(each) for each in zip(*members([(id, label)]), strict=True))
    label, id = sorted_rows(label, id)
    block = label, np.zeros_like(id), id, np.ones_like(id), rows[id]
    found = [each for each in near_removals([block], threshold)]
    gone = {
        a: b
        for each in found
        for a, b, out in zip(each.id.tolist(), each.kept.tolist(), each.removed.tolist(), strict=True)
        if out
    }
    right = sum(truth.get((min(pair), max(pair)), 0.0) >= TRUE for pair in gone.items())
    still = [pair for pair in together if gone.keys() & {*pair}]
    _, sizes = np.unique(label, return_counts=True)
    return Outcome(
        pairs=len(true),
        candidates_recall=same_band / len(true),
        recall=len(together) / len(true),
        lost=1 - len(still) / len(together),
        precision=right / len(gone),
        removed=len(gone),
        largest=int(sizes.max()),
    )
