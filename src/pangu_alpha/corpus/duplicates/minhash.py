"""MinHash signatures of texts over character shingles, and the band keys that near copies share.

A batch of texts is one vector of shingles: each permutation is one multiplication of that vector and one
minimum over the part of each text. Letters of shapes: T texts, S shingles, K permutations, B bands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pangu_alpha.config.corpus import SignatureSettings
from pangu_alpha.corpus.folding import folded_batches
from pangu_alpha.corpus.hashing import FACTOR, mixed, ngram_hashes

_BLOCK, _TOGETHER = 8192, 8  # shingles and permutations of one product, whose 512 kB stay in the cache
_LARGEST = np.uint64(0xFFFFFFFFFFFFFFFF)
_HALF = np.uint64(32)


def multipliers(settings: SignatureSettings, hashes: int) -> np.ndarray:
    """The odd factors of the first permutations, uint64 [hashes]."""
    # a counter through the mixing function rather than a generator, whose stream may change between releases
    counter = np.arange(1, hashes + 1, dtype=np.uint64)
    return mixed(mixed(np.array([settings.seed], np.uint64)) + counter * FACTOR) | np.uint64(1)


def signatures(texts: Sequence[str], settings: SignatureSettings, hashes: int | None = None) -> np.ndarray:
    """Signs texts: of each permutation, the upper half of the least product with a shingle of the text.

    A text's row does not depend on the other texts of the batch, and begins alike however long it is.

    Args:
        hashes: Length of a row; None takes K, that of the bands.

    Returns:
        uint32 [T, K], or [T, hashes].
    """
    factors = multipliers(settings, settings.permutations if hashes is None else hashes)
    rows = np.empty((len(texts), len(factors)), np.uint32)
    for part, codes, starts in folded_batches(texts):
        shingles, firsts = ngram_hashes(codes, starts, settings.shingle_characters)
        rows[part] = (_least_products(shingles, firsts, factors) >> _HALF).T
    return rows


def _least_products(hashes: np.ndarray, firsts: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Least product of each factor with the shingles of each text, uint64 [K, T]."""
    least = np.full((len(factors), len(firsts)), _LARGEST)
    product = np.empty((_TOGETHER, min(_BLOCK, len(hashes))), np.uint64)
    for start in range(0, len(hashes), _BLOCK):
        block = hashes[start : start + _BLOCK]
        inside = slice(
            int(np.searchsorted(firsts, start, "right")) - 1, int(np.searchsorted(firsts, start + len(block)))
        )
        borders = np.maximum(firsts[inside] - start, 0)
        for first in range(0, len(factors), _TOGETHER):
            some = factors[first : first + _TOGETHER]
            products = np.multiply(some[:, None], block, out=product[: len(some), : len(block)])
            found = least[first : first + _TOGETHER, inside]
            # a text may go on in the next block
            np.minimum(found, np.minimum.reduceat(products, borders, axis=1), out=found)
    return least


def band_keys(rows: np.ndarray, bands: int) -> np.ndarray:
    """Keys of the bands of signatures, which differ between bands.

    Args:
        rows: Signatures, uint32 [T, K], with K a multiple of `bands`.
        bands: B.

    Returns:
        int64 [T, B].
    """
    cut = rows.reshape(len(rows), bands, -1).astype(np.uint64)
    keys = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64), cut.shape[:2])
    for row in range(cut.shape[2]):
        keys = mixed(keys * FACTOR + cut[:, :, row] + np.uint64(1))
    return keys.view(np.int64)


def estimated_jaccard(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Share of equal hashes in pairs of signatures [..., K], float64 [...].

    It estimates Jaccard's index J of the sets of shingles, with a standard deviation of sqrt(J (1 - J) / K).
    """
    return (first == second).mean(axis=-1)
