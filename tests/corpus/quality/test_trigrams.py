"""The model is that of a slow loop over dictionaries, and its probabilities add up to one."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from pangu_alpha.corpus.folding import fold
from pangu_alpha.corpus.quality import TrigramModel, TrigramSettings, trigrams

TEXTS = ["春眠不觉晓，处处闻啼鸟。", "夜来风雨声，花落知多少。", "处处春风来", "春", "，", "夜夜夜夜来"]
D = 0.75


def slow_model(texts):
    """Probability of c after a, b: interpolated Kneser-Ney, with dictionaries."""
    three: Counter = Counter()
    for text in texts:
        letters = ["", "", *fold(text)]
        three.update(tuple(letters[i : i + 3]) for i in range(len(letters) - 2))
    two = Counter((b, c) for _, b, c in three)
    one = Counter(c for _, c in two)

    def level(counts, context_of, lower):
        totals, kinds = defaultdict(int), defaultdict(int)
        for gram, count in counts.items():
            totals[context_of(gram)] += count
            kinds[context_of(gram)] += 1

        def chance(gram):
            context = context_of(gram)
            if not totals.get(context):
                return lower(gram)
            own = max(counts.get(gram, 0) - D, 0) / totals[context]
            return own + D * kinds[context] / totals[context] * lower(gram)

        return chance

    total = sum(one.values())

    def letter(gram):
        spare = D * len(one) / total / (len(one) + 1)
        return spare + (max(one.get(gram[-1], 0) - D, 0) / total)

    pair = level(two, lambda gram: gram[0], letter)
    return level(three, lambda gram: gram[:2], lambda gram: pair(gram[1:])), sorted(one)


def test_it_is_the_slow_model():
    model = TrigramModel.train(TEXTS)
    chance, _ = slow_model(TEXTS)
    for text in [*TEXTS, "落花知春", "从未见过的字", "春眠"]:
        letters = ["", "", *fold(text)]
        expected = -sum(math.log(chance(tuple(letters[i : i + 3]))) for i in range(len(letters) - 2))
        sums, counts = model.nats([text])
        assert sums[0] == pytest.approx(expected, rel=1e-12) and counts[0] == len(letters) - 2


def test_probabilities_add_up_to_one():
    model = TrigramModel.train(TEXTS[:4])
    _, letters = slow_model(TEXTS[:4])
    for a, b in [("春", "眠"), ("不", "在"), ("无", "无"), ("\0", "\0"), ("\0", "夜")]:
        grams = [ord(a) << 42 | ord(b) << 21 | ord(c) for c in [*letters, "☃"]]
        assert model._chances(np.array(grams, np.uint64)).sum() == pytest.approx(1, rel=1e-12)


def test_perplexity_of_short_texts_is_not_given_and_batches_do_not_matter():
    model = TrigramModel.train(["春眠不觉晓处处闻啼鸟" * 20], TrigramSettings(least_characters=10))
    texts = ["春眠不觉", "春眠不觉晓处处闻啼鸟", "天地玄黄宇宙洪荒日月盈昃", "", "。" * 20]
    found = model.perplexities(texts)
    assert np.isnan(found).tolist() == [True, False, False, True, False]
    assert 1 < found[1] < 5 and found[2] > 10 * found[1]
    sums, counts = model.nats(texts[1:2])
    assert found[1] == np.float32(np.exp(sums[0] / counts[0]))
    alone = np.concatenate([model.perplexities([each]) for each in texts])
    assert (alone.view(np.uint32) == found.view(np.uint32)).all()


def test_batches_of_training_do_not_matter_and_equal_models_are_equal_files(tmp_path, monkeypatch):
    TrigramModel.train(TEXTS * 300).save(tmp_path / "a.npz")
    monkeypatch.setattr(trigrams._batches_of, "__defaults__", (7,))
    TrigramModel.train(iter(TEXTS * 300)).save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = TrigramModel.load(tmp_path / "a.npz")
    assert (loaded.nats(TEXTS)[0] == TrigramModel.train(TEXTS * 300).nats(TEXTS)[0]).all()
    with pytest.raises(ValueError, match="have no letters"):
        TrigramModel.train([])
    np.savez(tmp_path / "c.npz", a=np.ones(1))
    with pytest.raises(ValueError, match="is no trigram model"):
        TrigramModel.load(tmp_path / "c.npz")
