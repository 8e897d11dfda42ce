"""Finds which n-grams of a few texts occur in a long stream of ids, of tokens or characters. Knows ids only.

The grams of the texts are kept, the stream is not: memory is that of the texts, time that of the stream.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, without a pattern; of the polynomial hash
_TABLE_BITS = 4  # places in the filter for each gram, as a power of two: 1 in 16 of all other grams passes


@dataclass
class NgramTable:
    """The different n-grams of one length, sorted by their hash.

    Args:
        ids: int32 [m, n].
        hashes: uint64 [m].
        filter: Whether any hash begins with these bits, bool [2^bits].
        shift: Number of bits of a hash behind those.
        equal: Most grams with one hash; 1 but for a collision.
    """

    ids: np.ndarray
    hashes: np.ndarray
    filter: np.ndarray
    shift: np.uint64
    equal: int

    @classmethod
    def of(cls, grams: np.ndarray) -> tuple[NgramTable, np.ndarray]:
        """Puts equal grams together; also returns the row of each given one, int64 [given]."""
        hashes = _hashes(grams)
        order = np.argsort(hashes, kind="stable")
        sorted_ids, hashes = grams[order], hashes[order]
        # where two grams share a hash, one may stand twice, which does no harm: both are marked
        new = np.ones(len(order), np.bool_)
        new[1:] = (hashes[1:] != hashes[:-1]) | (sorted_ids[1:] != sorted_ids[:-1]).any(1)
        rows = np.empty(len(order), np.int64)
        rows[order] = np.cumsum(new) - 1
        ids, hashes = sorted_ids[new], hashes[new]
        bits = len(ids).bit_length() + _TABLE_BITS
        shift = np.uint64(64 - bits)
        table = np.zeros(1 << bits, np.bool_)
        table[hashes >> shift] = True
        return cls(ids, hashes, table, shift, _most_equal(hashes)), rows

    def find(
        self, stream: np.ndarray, hashes: np.ndarray, whole: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the grams that begin at the places of a stream where `whole` holds, by their hashes.

        Returns:
            Places in the stream and rows of the table, int64 [found] each, in no certain order.
        """
        places = np.flatnonzero(self.filter[hashes >> self.shift] & whole)
        first = np.searchsorted(self.hashes, hashes[places])
        found = [(places[:0], first[:0])]
        for offset in range(self.equal):
            row = np.minimum(first + offset, len(self.hashes) - 1)
            same = self.hashes[row] == hashes[places]
            row, at = row[same], places[same]
            window = stream[at[:, None] + np.arange(self.ids.shape[1])]
            equal = (self.ids[row] == window).all(1)
            found.append((at[equal], row[equal]))
        return np.concatenate([each for each, _ in found]), np.concatenate([each for _, each in found])


def rolling_hashes(stream: np.ndarray, lengths: Collection[int]) -> Iterator[tuple[int, np.ndarray]]:
    """For each of the lengths n, in ascending order, the hash of the n-gram at each place of a stream.

    Returns:
        n and hashes, uint64 [length of the stream - n + 1]; none for an n that the stream is too short for.
    """
    wide, hashes = stream.astype(np.uint64), np.zeros(len(stream), np.uint64)
    for n in range(1, min(max(lengths, default=0), len(stream)) + 1):
        hashes = hashes[: len(stream) - n + 1] * _FACTOR + wide[n - 1 :] + np.uint64(1)
        if n in lengths:
            yield n, hashes


def _most_equal(hashes: np.ndarray) -> int:
    """Length of the longest run of equal values in sorted hashes, uint64 [m]."""
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1], [True]]))
    return int(np.diff(starts).max())


def _hashes(grams: np.ndarray) -> np.ndarray:
    """Hash of each row, uint64 [m], as `NgramSearch.feed` forms it."""
    found = np.zeros(len(grams), np.uint64)
    for column in grams.astype(np.uint64).T:
        found = found * _FACTOR + column + np.uint64(1)
    return found


class NgramSearch:
    """Looks for the n-grams of texts in a stream that arrives in blocks.

    Args:
        texts: Token ids of the texts, int [length] each.
        lengths: N of each text.
        breaks: Ids that no n-gram holds: ends of documents, and padding.
    """

    def __init__(self, texts: Sequence[np.ndarray], lengths: Sequence[int], breaks: Collection[int]) -> None:
        self._breaks = np.array(sorted(breaks), np.int32)
        self._grams: dict[int, NgramTable] = {}
        self._seen: dict[int, np.ndarray] = {}  # whether the stream has each gram, bool [m]
        self._members: list[tuple[int, np.ndarray]] = [(0, np.empty(0, np.int64))] * len(texts)
        for n in sorted(set(lengths)):
            self._add(n, [place for place, length in enumerate(lengths) if length == n], texts)
        self._most = max(lengths, default=1)
        self._tail = np.empty(0, np.int32)

    def _add(self, n: int, places: Sequence[int], texts: Sequence[np.ndarray]) -> None:
        windows = [ngrams_of(np.asarray(texts[place], np.int32), n) for place in places]
        grams = np.concatenate(windows)
        if not len(grams):
            return
        self._grams[n], rows = NgramTable.of(grams)
        self._seen[n] = np.zeros(len(self._grams[n].ids), np.bool_)
        ends = np.cumsum([len(each) for each in windows])
        members = np.split(rows, ends[:-1])
        for place, row in zip(places, members, strict=True):
            self._members[place] = (n, row)

    def feed(self, ids: np.ndarray) -> None:
        """Takes the next ids of the stream, int [any shape]; grams may begin in an earlier block."""
        stream = np.concatenate([self._tail, ids.reshape(-1).astype(np.int32)])
        broken = np.concatenate([[0], np.cumsum(np.isin(stream, self._breaks))])
        for n, hashes in rolling_hashes(stream, self._grams.keys()):
            whole = broken[n:] == broken[: len(broken) - n]
            self._seen[n][self._grams[n].find(stream, hashes, whole)[1]] = True
        # a gram that lies in the tail alone is found twice, which changes nothing
        self._tail = stream[max(len(stream) - self._most + 1, 0) :]

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Number of n-grams of each text, and of those that the stream has, int64 [texts] each."""
        counts = [len(rows) for _, rows in self._members]
        found = [int(self._seen[n][rows].sum()) if len(rows) else 0 for n, rows in self._members]
        return np.array(counts, np.int64), np.array(found, np.int64)


def ngrams_of(ids: np.ndarray, n: int) -> np.ndarray:
    """All n-grams of a text, int32 [length - n + 1, n]; [0, n] for a shorter text."""
    if len(ids) < n:
        return np.empty((0, n), np.int32)
    return np.lib.stride_tricks.sliding_window_view(ids, n)
