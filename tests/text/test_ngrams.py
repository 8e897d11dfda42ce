"""The search finds what a plain comparison of all n-grams finds, however the stream is cut into blocks."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.text import ngrams
from pangu_alpha.text.ngrams import NgramSearch

END, PAD = 1, 2


def plain(texts, lengths, stream):
    """(grams, found) of each text by comparing tuples; a gram with an end in it is none."""
    counts, found = [], []
    for text, n in zip(texts, lengths, strict=True):
        known = {
            tuple(stream[i : i + n])
            for i in range(len(stream) - n + 1)
            if not {END, PAD} & set(stream[i : i + n])
        }
        grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
        counts.append(len(grams))
        found.append(sum(gram in known for gram in grams))
    return counts, found


def searched(texts, lengths, blocks):
    search = NgramSearch([np.array(text) for text in texts], lengths, {END, PAD})
    for block in blocks:
        search.feed(np.array(block))
    return [each.tolist() for each in search.result()]


@pytest.mark.parametrize("seed", range(5))
def test_a_plain_comparison_finds_the_same(seed):
    rng = np.random.default_rng(seed)
    texts = [rng.integers(3, 6, rng.integers(0, 12)).tolist() for _ in range(60)]
    lengths = rng.integers(1, 6, 60).tolist()
    stream = rng.choice([END, PAD, 3, 4, 5], 400, p=[0.08, 0.02, 0.3, 0.3, 0.3]).tolist()
    counts, found = plain(texts, lengths, stream)
    assert 0 < sum(found) < sum(counts)
    for size in (1, 3, 7, 64, 400):
        blocks = [stream[start : start + size] for start in range(0, 400, size)]
        assert searched(texts, lengths, blocks) == [counts, found]
    assert searched(texts, lengths, [np.array(stream).reshape(8, 50)]) == [
        counts,
        found,
    ]  # windows of a record


def test_a_gram_does_not_cross_the_end_of_a_document():
    text = [10, 11, 12, 13]
    assert searched([text], [4], [[9, 10, 11, 12, 13, 9]]) == [[1], [1]]
    for between in (END, PAD):
        assert searched([text], [4], [[10, 11, between, 12, 13]]) == [[1], [0]]
    assert searched([text], [4], [[10, 11], [END, 12, 13]]) == [[1], [0]]
    assert searched([text], [4], [[9, 10, 11], [12], [13]]) == [
        [1],
        [1],
    ]  # across two windows of one document


def test_each_length_is_looked_up_for_itself():
    text = [10, 11, 12, 13, 14]
    assert searched([text] * 3, [2, 3, 5], [[10, 11, 12, 9, 13, 14]]) == [[4, 3, 1], [3, 1, 0]]


def test_texts_that_share_grams_both_count_them():
    assert searched([[3, 4, 5], [4, 5, 6], [3, 4, 3, 4]], [2, 2, 2], [[3, 4, 5]]) == [[2, 2, 3], [2, 1, 2]]


def test_texts_shorter_than_n_and_no_texts():
    assert searched([[3], []], [4, 4], [[3, 4, 5, 6]]) == [[0, 0], [0, 0]]
    assert searched([], [], [[3, 4]]) == [[], []]


def test_equal_hashes_are_told_apart(monkeypatch):
    """With a factor of 0 a hash is that of the last id alone, so nearly all grams collide."""
    rng = np.random.default_rng(0)
    texts = [rng.integers(3, 7, 8).tolist() for _ in range(30)]
    stream = rng.integers(1, 7, 300).tolist()
    monkeypatch.setattr(ngrams, "_FACTOR", np.uint64(0))
    assert searched(texts, [4] * 30, [stream]) == [*plain(texts, [4] * 30, stream)]
