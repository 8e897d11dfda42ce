"""A small training run with records of its own, for replays for which no config is given."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from pangu_alpha.config.data import DataConfig, SourceConfig
from pangu_alpha.config.families import Chip
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.optim import LossScaleConfig, OptimConfig
from pangu_alpha.config.run import CheckpointConfig, RunConfig, TrainConfig
from pangu_alpha.data.preprocess import PreprocessConfig, preprocess
from pangu_alpha.text.vocabulary import train_vocabulary

_CHARACTERS = "天下大势分久必合合久必分周末七国分争并入于秦及秦灭之后楚汉分争又并入于汉"
_PIECES = 60  # size of the vocabulary
_SOURCES = {"one": (300, 3.0), "two": (100, 1.0)}  # documents, weight
# Clipping is inactive, because norms are below 100; so a wrong factor changes moments and weights. The first
# update has learning rate 0, and the second one half of the peak. A larger peak moves tokens onto positions
# of the opposite sign within ten steps, and the norm of a row that is almost 0 enlarges rounding a
# hundredfold, on one process as well. Adam divides by sqrt(v) + epsilon: queries and keys of a narrow network
# have gradients of 1e-6, whose rounding a smaller epsilon would turn into updates. Loss scales (used in
# float16 only) overflow by far or not at all: partial sums of a rank are smaller than those of one process,
# so that a narrow overflow could happen on one side only.
_OPTIM = OptimConfig(
    learning_rate=3e-3,
    end_learning_rate=3e-4,
    warmup_steps=2,
    decay_steps=20,
    epsilon=1e-4,
    clip_norm=100.0,
    loss_scale=LossScaleConfig(initial=2.0**32, factor=256.0, window=8),
)


def small_records(folder: Path, seq_length: int) -> DataConfig:
    """Makes two sets of records of random Chinese text, and their vocabulary.

    Args:
        folder: Folder for the records, unless an earlier call has made them.
    """
    vocabulary = folder / "vocab.model"
    texts = {name: _texts(seed, _SOURCES[name][0]) for seed, name in enumerate(_SOURCES, start=1)}
    if not vocabulary.exists():
        folder.mkdir(parents=True, exist_ok=True)
        train_vocabulary(texts["one"], str(vocabulary), _PIECES)
    sources = {}
    for name, (_, weight) in _SOURCES.items():
        records = folder / f"{name}_{seq_length}"
        if not (records / "manifest.json").exists():
            (folder / f"{name}.txt").write_text("\n\n".join(texts[name]), "utf-8")
            inputs = (str(folder / f"{name}.txt"),)
            preprocess(PreprocessConfig(inputs, str(vocabulary), str(records), seq_length=seq_length))
        sources[name] = SourceConfig(str(records), weight)
    return DataConfig(sources, vocabulary=str(vocabulary))


def small_run(folder: Path, every: int = 10, chip: Chip = "910B", **model: Any) -> TrainConfig:
    """A run of a small network.

    Args:
        folder: Folder for the records.
        every: Steps between checkpoints.
        chip: Family of the devices for which the run is compiled.
        model: Fields of ModelConfig that differ from a network of two layers in float32 without dropout.
    """
    shape: dict[str, Any] = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "seq_length": 16}
    shape |= {"dropout": 0.0, "compute_dtype": "float32"}
    network = ModelConfig(vocab_size=_PIECES, **shape | model)
    run = RunConfig(
        str(folder / "run"),
        steps=1,
        tensorboard=False,
        peak_tflops=0.1,
        chip=chip,
        checkpoint=CheckpointConfig(every=every),
    )
    return TrainConfig(network, small_records(folder / "records", network.seq_length), run, _OPTIM)


def _texts(seed: int, documents: int) -> list[str]:
    rng = random.Random(seed)
    lengths = (rng.randrange(5, 60) for _ in range(documents))
    return ["".join(rng.choice(_CHARACTERS) for _ in range(length)) + "。" for length in lengths]
