"""A small corpus, a vocabulary trained on it, and records made of both."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from pangu_alpha.data.preprocess import PreprocessConfig, preprocess
from pangu_alpha.text.vocabulary import train_vocabulary

_CHARACTERS = "天下大势分久必合合久必分周末七国分争并入于秦及秦灭之后楚汉分争又并入于汉"


def _document(rng: random.Random) -> str:
    return "".join(rng.choice(_CHARACTERS) for _ in range(rng.randrange(1, 60))) + "。"


@pytest.fixture(scope="session")
def vocab_file(tmp_path_factory) -> str:
    """A vocabulary of 60 pieces or so."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.model"
    train_vocabulary([_document(rng) for _ in range(200)], path, 60)
    return str(path)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> tuple[str, ...]:
    """Five files of four kinds, one of them empty."""
    folder: Path = tmp_path_factory.mktemp("corpus")
    rng = random.Random(1)
    documents = [_document(rng) for _ in range(120)]
    (folder / "a.txt").write_text("\n\n".join(documents[:40]), encoding="utf-8")
    (folder / "b.txt").write_bytes(b"")
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in documents[40:]]
    (folder / "c.jsonl").write_text("\n".join(lines[:50]), encoding="utf-8")
    with gzip.open(folder / "d.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines[50:79]))
    (folder / "e.jsonl").write_text(lines[79], encoding="utf-8")
    return tuple(str(folder / name) for name in ("a.txt", "b.txt", "c.jsonl", "d.jsonl.gz", "e.jsonl"))


@pytest.fixture(scope="session")
def config(vocab_file, corpus, tmp_path_factory) -> PreprocessConfig:
    """Settings that give several shards."""
    output = str(tmp_path_factory.mktemp("records") / "train")
    return PreprocessConfig(corpus, vocab_file, output, seq_length=16, windows_per_shard=50)


@pytest.fixture(scope="session")
def records(config) -> str:
    """A finished folder; tests copy it before they damage it."""
    preprocess(config)
    return config.output
