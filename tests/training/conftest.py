"""Records of a small corpus and a configuration that trains on them in seconds."""

from __future__ import annotations

import random

import pytest
import yaml

from pangu_alpha.data.preprocess import PreprocessConfig, preprocess
from pangu_alpha.text.vocabulary import train_vocabulary

_CHARACTERS = "天下大势分久必合合久必分周末七国分争并入于秦及秦灭之后楚汉分争又并入于汉"


def _write(path, seed, documents):
    rng = random.Random(seed)
    texts = [
        "".join(rng.choice(_CHARACTERS) for _ in range(rng.randrange(5, 60))) + "。" for _ in range(documents)
    ]
    path.write_text("\n\n".join(texts), "utf-8")
    return texts


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Section `data` of a run: two sources of unequal weight, validation, vocabulary."""
    folder = tmp_path_factory.mktemp("data")
    texts = _write(folder / "one.txt", 1, 300)
    vocabulary = str(folder / "vocab.model")
    train_vocabulary(texts, vocabulary, 60)
    for seed, (name, documents) in enumerate({"two": 100, "validation": 30}.items(), start=2):
        _write(folder / f"{name}.txt", seed, documents)
    for name in ("one", "two", "validation"):
        preprocess(
            PreprocessConfig((str(folder / f"{name}.txt"),), vocabulary, str(folder / name), seq_length=16)
        )
    return {
        "train": {
            "one": {"records": str(folder / "one"), "weight": 3.0},
            "two": {"records": str(folder / "two"), "weight": 1.0},
        },
        "validation": str(folder / "validation"),
        "vocabulary": vocabulary,
    }


@pytest.fixture
def settings(data, tmp_path):
    """A whole run as a mapping: 20 steps of 2 micro-batches, dropout on."""
    return {
        "model": {
            "vocab_size": 60,
            "hidden_size": 32,
            "num_layers": 3,
            "num_heads": 4,
            "seq_length": 16,
            "dropout": 0.1,
        },
        "data": data,
        "optim": {"learning_rate": 1e-2, "end_learning_rate": 1e-3, "warmup_steps": 5, "decay_steps": 20},
        "run": {
            "output": str(tmp_path / "run"),
            "steps": 20,
            "batch_size": 4,
            "device": "CPU",
            "evaluate_every": 10,
            "tensorboard": False,
            "peak_tflops": 0.1,
            "checkpoint": {"every": 10},
        },
        "parallel": {"micro_batches": 2},
    }


@pytest.fixture
def config_file(tmp_path):
    """Writes a mapping as YAML and returns its path."""

    def write(settings, name="run.yaml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(settings, allow_unicode=True), "utf-8")
        return str(path)

    return write
