"""The small training run that checks share: its text, its configuration, and its losses."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from pangu_alpha.config.run import TrainConfig, load_train_config
from pangu_alpha.data.preprocess import PreprocessConfig, preprocess
from pangu_alpha.files.lock import hold_folder
from pangu_alpha.files.reading import read_json_lines
from pangu_alpha.files.writing import write_text
from pangu_alpha.files.yaml_text import yaml_text
from pangu_alpha.text.vocabulary import train_vocabulary

STEPS, SAVE_EVERY = 100, 20
SAMPLES = 8  # of a step, or one for each rank
_LENGTH, _PIECES, _DOCUMENTS = 32, 60, 400
_CHARACTERS = "天下大势分久必合久合必分周末七国争并入于秦及灭之后楚汉光武中兴"


def prepare(folder: Path, length: int = _LENGTH) -> None:
    """Writes vocabulary and records of a made-up text, the same on every machine, unless they are there.

    Args:
        length: Tokens of a record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "records" / "manifest.json").exists():
        return
    with hold_folder(folder, "writing a check's records"):
        drawn = random.Random(1)
        texts = [_document(drawn) for _ in range(_DOCUMENTS)]
        write_text(folder / "text.txt", "\n\n".join(texts))
        vocabulary = str(folder / "vocab.model")
        train_vocabulary(texts, vocabulary, _PIECES)
        preprocess(
            PreprocessConfig(
                (str(folder / "text.txt"),), vocabulary, str(folder / "records"), seq_length=length
            )
        )


def _document(drawn: random.Random) -> str:
    """Characters that mostly follow each other in a fixed order, so that there is something to learn."""
    place, found = drawn.randrange(len(_CHARACTERS)), []
    for _ in range(drawn.randrange(20, 80)):
        place = drawn.randrange(len(_CHARACTERS)) if drawn.random() < 0.3 else (place + 1) % len(_CHARACTERS)
        found.append(_CHARACTERS[place])
    return "".join(found) + "。"


def config_of(data: Path, output: Path, device: str, dtype: str, ranks: int = 1) -> Path:
    """Writes the YAML of a run beside its output, and returns its path.

    Args:
        data: Folder that `prepare` filled.
        dtype: Type of the matrix products.
        ranks: Data-parallel ranks; a step has the same samples for any number that divides SAMPLES.
    """
    settings: dict[str, Any] = {
        "model": {"vocab_size": _PIECES, "hidden_size": 64, "num_layers": 3, "num_heads": 4,
                  "seq_length": _LENGTH, "dropout": 0.1, "compute_dtype": dtype},
        "data": {"train": {"text": {"records": str(data / "records")}},
                 "vocabulary": str(data / "vocab.model")},
        "optim": {"learning_rate": 5e-3, "end_learning_rate": 5e-4, "warmup_steps": 10, "decay_steps": STEPS},
        "run": {"output": str(output), "steps": STEPS, "batch_size": per_rank(ranks), "device": device,
                "log_every": 1, "tensorboard": False, "peak_tflops": 1.0, "check_replicas_every": 10,
                "checkpoint": {"every": SAVE_EVERY, "keep_last": 2}},
        "parallel": {"dp": ranks},
    }  # fmt: skip
    path = output.with_suffix(".yaml")
    write_text(path, yaml_text(settings))
    return path


def per_rank(ranks: int) -> int:
    """Samples of a step on each rank."""
    return max(SAMPLES // ranks, 1)


def loaded(path: Path, *overrides: str) -> TrainConfig:
    """Reads the configuration of a run."""
    return load_train_config(str(path), overrides)


def curve(output: Path) -> dict[str, list[float]]:
    """The losses and norms of a run's steps, in order, from its metrics.jsonl."""
    rows = [row for _, row in read_json_lines(output / "metrics.jsonl", numbers_only=False) if "loss" in row]
    return {"steps": [row["step"] for row in rows], "losses": [row["loss"] for row in rows]}
