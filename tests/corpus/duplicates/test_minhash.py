"""Signatures equal a slow reference, do not depend on the batch, and estimate Jaccard without bias."""

from __future__ import annotations

import numpy as np
import pytest

from pangu_alpha.config.corpus import SignatureSettings
from pangu_alpha.config.schema import ConfigError
from pangu_alpha.corpus import folding
from pangu_alpha.corpus.duplicates import (
    band_keys,
    estimated_jaccard,
    signatures,
)
from pangu_alpha.corpus.folding import fold

SETTINGS = SignatureSettings()
MASK = 2**64 - 1


def mix(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def shingle_hashes(text, n):
    codes = [ord(each) for each in fold(text)]
    codes += [0] * (n - len(codes))
    found = set()
    for i in range(len(codes) - n + 1):
        value = 0
        for code in codes[i : i + n]:
            value = (value * 0x9E3779B97F4A7C15 + code + 1) & MASK
        found.add(mix(value))
    return found


def slow_signature(text, settings):
    factors = [
        mix((mix(settings.seed) + k * 0x9E3779B97F4A7C15) & MASK) | 1
        for k in range(1, settings.permutations + 1)
    ]
    hashes = shingle_hashes(text, settings.shingle_characters)
    return [min(factor * each & MASK for each in hashes) >> 32 for factor in factors]


def texts_of(rng, lengths):
    return ["".join(map(chr, rng.integers(0x4E00, 0x9FA5, length))) for length in lengths]


def test_a_slow_reference_gives_the_same():
    rng = np.random.default_rng(0)
    texts = ["", "短", "。", "一二三四五", "Ａ㎡b" * 30, *texts_of(rng, [4, 5, 6, 300, 20])]
    for settings in (SETTINGS, SignatureSettings(shingle_characters=3, bands=3, rows=5, seed=7)):
        found = signatures(texts, settings)
        assert found.dtype == np.uint32 and found.shape == (len(texts), settings.permutations)
        assert found.tolist() == [slow_signature(each, settings) for each in texts]


@pytest.mark.parametrize("size", (5, 1000, 9000))
def test_a_text_alone_is_signed_as_in_a_batch(size, monkeypatch):
    """The batch and the long texts reach over blocks of the product and batches of the folding."""
    rng = np.random.default_rng(1)
    texts = ["", *texts_of(rng, [3, 40000, 17, 5, 8192, 8196, 2, 300])]
    alone = np.concatenate([signatures([each], SETTINGS) for each in texts])
    assert (signatures(texts, SETTINGS) == alone).all()
    monkeypatch.setattr(folding, "_BATCH", size)
    assert (signatures(texts, SETTINGS) == alone).all()
    assert signatures([], SETTINGS).shape == (0, 200)


def test_band_keys_are_equal_where_a_band_is_and_nowhere_else():
    rng = np.random.default_rng(2)
    rows = rng.integers(0, 2**32, (50, 200), dtype=np.uint32)
    rows[1::2] = rows[::2]
    rows[1, 35] += 1
    rows[:, 10:20] = rows[:, 0:10]  # equal bands have different keys at different places
    keys = band_keys(rows, 20)
    assert keys.shape == (50, 20) and keys.dtype == np.int64
    assert (keys[0] == keys[1]).tolist() == [band != 3 for band in range(20)]
    assert (keys[2:][::2] == keys[3:][::2]).all()
    assert len(np.unique(keys)) == 25 * 20 + 1
    assert (band_keys(rows[7:8], 20) == keys[7]).all()


def planted(rng, count, jaccard, shingles=400):
    """Pairs of texts with an exactly known index: single characters, far apart, are replaced."""
    pairs, n = [], 5
    changed = round(shingles * (1 - jaccard) / (n * (1 + jaccard)))
    for _ in range(count):
        codes = rng.choice(np.arange(0x4E00, 0x9FA5), shingles + n - 1, replace=False)
        other = codes.copy()
        places = (np.arange(changed) + 0.5) * len(codes) / max(changed, 1)
        other[places.astype(int)] = rng.choice(np.arange(0x20000, 0x2A000), changed, replace=False)
        pairs.append(["".join(map(chr, each)) for each in (codes, other)])
    return pairs


def exact_jaccard(first, second):
    a, b = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (first, second))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("target", (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95))
def test_planted_pairs_lie_on_the_s_curve_and_are_estimated_without_bias(target):
    rng = np.random.default_rng(int(target * 100))
    pairs = planted(rng, 400, target)
    jaccard = np.array([exact_jaccard(*each) for each in pairs])
    first, second = (signatures(list(each), SETTINGS) for each in zip(*pairs, strict=True))
    error = estimated_jaccard(first, second) - jaccard
    sigma = np.sqrt(jaccard * (1 - jaccard) / SETTINGS.permutations)
    assert abs(error.mean()) < 3 * sigma.mean() / np.sqrt(len(pairs))
    assert 0.85 < error.std() / sigma.mean() < 1.15
    expected = 1 - (1 - jaccard**SETTINGS.rows) ** SETTINGS.bands
    found = (band_keys(first, 20) == band_keys(second, 20)).any(1)
    allowed = 3 * np.sqrt((expected * (1 - expected)).sum()) + 1e-9
    assert abs(found.sum() - expected.sum()) <= allowed


def test_settings_are_checked():
    assert SETTINGS.permutations == 200
    with pytest.raises(ConfigError, match="rows"):
        SignatureSettings(rows=0)
    assert (signatures(["同"], SETTINGS) != signatures(["同"], SignatureSettings(seed=2))).any()
