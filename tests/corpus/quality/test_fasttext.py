"""A user's model gives its own probabilities; without the package or the file the error says what to do."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from pangu_alpha.corpus.quality import FastTextModel


@pytest.fixture
def fake(monkeypatch):
    """A stand-in for the package, which notes what it is asked."""
    asked = []

    class Model:
        def get_labels(self):
            return ["__label__good", "__label__spam"]

        def predict(self, line, k):
            asked.append((line, k))
            return ("__label__spam", "__label__good"), np.array([1.00001, 0.1])

    module = types.SimpleNamespace(load_model=lambda path: Model())
    monkeypatch.setitem(sys.modules, "fasttext", module)
    return asked


def test_scores_are_the_probability_of_the_label(fake, tmp_path):
    (tmp_path / "m.bin").write_bytes(b"")
    scores = FastTextModel(tmp_path / "m.bin", "__label__spam", characters=True).scores(["你好\nabc", ""])
    assert scores.dtype == np.float32 and scores.tolist() == [1.0, 1.0]
    assert fake == [("你 好 abc", -1), ("", -1)]
    good = FastTextModel(tmp_path / "m.bin", "__label__good").scores(["你好\nabc"])
    assert good.tolist() == [np.float32(0.1)] and fake[-1] == ("你好 abc", -1)
    with pytest.raises(ValueError, match="has no label 'spam'; its labels are __label__good, __label__spam"):
        FastTextModel(tmp_path / "m.bin", "spam")


def test_a_missing_file_and_a_missing_package(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match="name the .bin file"):
        FastTextModel(tmp_path / "none.bin", "__label__spam")
    monkeypatch.setitem(sys.modules, "fasttext", None)
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="needs the package fasttext-wheel; install it"):
        FastTextModel(tmp_path / "m.bin", "__label__spam")


def test_a_real_model(tmp_path):
    fasttext = pytest.importorskip("fasttext", reason="the package fasttext-wheel is not installed")
    lines = ["__label__spam 点 击 购 买", "__label__good 春 眠 不 觉 晓"] * 50
    (tmp_path / "train.txt").write_text("\n".join(lines), "utf-8")
    model = fasttext.train_supervised(str(tmp_path / "train.txt"), thread=1, epoch=20, lr=1.0, dim=8)
    model.save_model(str(tmp_path / "m.bin"))
    found = FastTextModel(tmp_path / "m.bin", "__label__spam", characters=True)
    spam, good = found.scores(["点击购买", "春眠不觉晓"])
    assert spam > 0.9 > 0.1 > good
    (tmp_path / "m.bin").write_bytes(b"no model")
    with pytest.raises(ValueError, match="is no fastText model"):
        FastTextModel(tmp_path / "m.bin", "__label__spam")
