"""Folding in batches by a table gives what NFKC and Python's character classes give for each text."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest

from pangu_alpha.corpus import folding
from pangu_alpha.corpus.duplicates import exact_keys
from pangu_alpha.corpus.folding import fold, folded_batches, folded_with_places


def plainly(text):
    kept = [c for each in unicodedata.normalize("NFKC", text) for c in each.lower() if c.isalnum()]
    return "".join(kept) or "".join(text.split())


def in_batches(texts):
    found = []
    for _, codes, starts in folded_batches(texts):
        whole = codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
        found += [whole[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]
    return found


def test_what_is_folded():
    assert fold("Ａ１，b  C。\n①㈱Ⅳ ½ ﬁ") == "a1bc1株iv12fi"
    assert fold("ガ") == fold("ｶﾞ") == fold("カ\u3099")
    assert fold("İΣ") == "iσ"
    assert fold("☆ ☆\n！") == "☆☆！"
    assert fold("") == ""


def test_every_character_by_the_table_is_folded_as_alone():
    beyond = [*range(0x35000, 0xE0000), *range(0xE0200, 0x110000)]
    assert not any(map(str.isalnum, map(chr, beyond)))
    assert unicodedata.is_normalized("NFKC", "".join(map(chr, beyond)))
    assert (folding._table()[beyond] == 0).all()
    within = [*range(0xD800), *range(0xE000, 0x35000), *range(0xE0000, 0xE0200)]
    # a letter beside each, for a text without any is not folded by the table
    texts = ["中" + chr(each) for each in within]
    assert in_batches(texts) == [plainly(each) for each in texts]


@pytest.mark.parametrize("seed", range(3))
def test_random_neighbours_do_not_change_a_text(seed):
    """Marks, jamo and compatibility forms next to each other, where composition could reach across."""
    rng = random.Random(seed)
    odd = "e\u0301\u0323ｶﾞ\u1100\u1161\u11a8각Σσς¨´ﬁ㎡½①…℃№\u0345İ\u200d中。 \ufeff\ud800"
    alphabet = [*odd, *"中文a1", *(chr(rng.randrange(0xD000)) for _ in range(300))]
    texts = ["".join(rng.choices(alphabet, k=rng.randrange(12))) for _ in range(3000)]
    assert in_batches(texts) == [plainly(each) for each in texts]
    assert [fold(each) for each in texts] == [plainly(each) for each in texts]


def test_keys_are_equal_for_equal_folded_texts_only_and_do_not_depend_on_the_batch(monkeypatch):
    texts = ["你好，世界", "你好 世界！", "你好世间", "", "…", "…", "☆", "a" * 50, "Ａ" * 50]
    keys = exact_keys(texts)
    assert keys.shape == (9, 2) and keys.dtype == np.uint64
    same = [[(keys[i] == keys[j]).all() for j in range(9)] for i in range(9)]
    assert same == [[plainly(a) == plainly(b) for b in texts] for a in texts]
    assert (exact_keys(texts[:1]) == keys[:1]).all()
    monkeypatch.setattr(folding, "_BATCH", 7)
    assert (exact_keys(texts) == keys).all()
    assert exact_keys([]).shape == (0, 2)


def test_each_folded_character_has_its_place():
    text = "Ａ，㎡ 中①b"
    codes, places = folded_with_places(text)
    assert "".join(map(chr, codes)) == fold(text) == "am2中1b"
    assert places.tolist() == [0, 2, 2, 4, 5, 6]
    assert [each.tolist() for each in folded_with_places("中，文")] == [[ord("中"), ord("文")], [0, 2]]
    assert [len(each) for each in folded_with_places("")] == [0, 0]
