"""The model learns, scores a text alone as in a batch, and is the same file each time."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest

from pangu_alpha.corpus.quality import HashedModel, HashedSettings, hashed_model
from pangu_alpha.corpus.quality.hashed_model import features

SMALL = HashedSettings(bits=12, epochs=3)
GOOD = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳"
BAD = "首页登录注册返回顶部上一篇下一篇更多版权所有联系我们网站地图点击购买"


def examples(seed, count=200):
    rng = random.Random(seed)
    texts, labels = [], []
    for number in range(count):
        common = "的一是在不了有和人这"
        own = BAD if number % 2 else GOOD
        texts.append("".join(rng.choices(own + common * 3, k=rng.randrange(20, 120))))
        labels.append(bool(number % 2))
    return texts, labels


def test_it_learns_what_it_has_not_seen():
    model = HashedModel.train(*examples(0), SMALL)
    texts, labels = examples(1)
    scores = model.scores(texts)
    assert scores.dtype == np.float32 and ((scores > 0.5) == labels).mean() > 0.95
    assert ((scores >= 0) & (scores <= 1)).all()


def test_features_are_the_grams_of_a_plain_loop():
    settings = HashedSettings(bits=18, most_characters=30)
    texts = ["版权２０２０所有ABC", "好", "", "长" * 100]
    places, owners, counts = features(texts, settings)
    # equal grams share a weight, others (here) do not
    seen: dict[str, int] = {}
    at = 0
    for n in (1, 2, 3):
        for number, text in enumerate(texts):
            plain = text[:30].lower().ljust(n, "\0")
            for i in range(len(plain) - n + 1):
                assert seen.setdefault(plain[i : i + n], places[at]) == places[at] and owners[at] == number
                at += 1
    assert at == len(places) and len({*seen.values()}) == len(seen)
    assert counts.tolist() == np.bincount(owners).tolist()
    same = features(["第1页 A", "第7页\ta"], settings)[0]
    assert sorted(features(["第1页 A"], settings)[0]) == sorted(features(["第7页\ta"], settings)[0])
    assert len(same) == 2 * (5 + 4 + 3)


def test_scores_do_not_depend_on_the_batch_nor_on_the_order_of_sums(monkeypatch):
    model = HashedModel.train(*examples(0), SMALL)
    texts = [*examples(2)[0], "", "短", "长文" * 3000]
    together = model.log_odds(texts)
    assert (np.concatenate([model.log_odds([each]) for each in texts]) == together).all()
    monkeypatch.setattr(hashed_model, "_CHARACTERS", 50)
    assert (model.log_odds(texts) == together).all()
    places, _, counts = features(texts[:1], SMALL)
    backwards = sum(model.weights[places][::-1].astype(float).tolist())
    assert backwards / counts[0] + model.bias == together[0]


def test_equal_training_gives_equal_bytes_and_load_gives_back_the_scores(tmp_path):
    texts, labels = examples(0)
    digests = set()
    for number in range(2):
        HashedModel.train(texts, labels, SMALL).save(tmp_path / f"{number}.npz")
        digests.add(hashlib.sha256((tmp_path / f"{number}.npz").read_bytes()).hexdigest())
    assert len(digests) == 1
    loaded = HashedModel.load(tmp_path / "0.npz")
    assert loaded.settings == SMALL
    assert (loaded.scores(texts) == HashedModel.train(texts, labels, SMALL).scores(texts)).all()
    other = HashedModel.train(texts, labels, HashedSettings(bits=12, epochs=3, seed=2))
    assert (other.weights != loaded.weights).any()


def test_a_rare_class_weighs_as_much_as_a_frequent_one():
    texts, labels = examples(0, 400)
    keep = [not label or number % 20 == 1 for number, label in enumerate(labels)]
    rare = [each for each, kept in zip(texts, keep, strict=True) if kept]
    model = HashedModel.train(rare, [each for each, kept in zip(labels, keep, strict=True) if kept], SMALL)
    texts, labels = examples(1)
    assert (model.scores(texts)[np.array(labels)] > 0.5).mean() > 0.9


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="of one class; give examples of good and of bad"):
        HashedModel.train(["a", "b"], [True, True], SMALL)
    with pytest.raises(ValueError, match="2 texts have 1 labels"):
        HashedModel.train(["a", "b"], [True], SMALL)
    with pytest.raises(FileNotFoundError, match="train a hashed model, or name its file"):
        HashedModel.load(tmp_path / "none.npz")
    path = tmp_path / "model.npz"
    model = HashedModel.train(*examples(0), SMALL)
    model.save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="is no hashed model, or is damaged"):
        HashedModel.load(path)
    np.savez(path, weights=np.array([object()], object), about=np.array("{}"))
    with pytest.raises(ValueError, match="is no hashed model"):
        HashedModel.load(path)
    np.savez(path, weights=model.weights, about=np.array('{"format": 9}'))
    with pytest.raises(ValueError, match="has format 9, this release reads 1"):
        HashedModel.load(path)
    HashedModel(SMALL, model.weights[:-1], 0.0).save(path)
    with pytest.raises(ValueError, match="lacks some of its 4096 weights"):
        HashedModel.load(path)
