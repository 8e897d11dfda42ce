"""A run that trains in seconds, and the documented entry of the launcher as a process."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SCRIPTS = Path(__file__).parents[2] / "run_scripts"
_CHARACTERS = "天下大势分久必合合久必分周末七国分争并入于秦及秦灭之后楚汉分争又并入于汉"


@pytest.fixture(scope="session")
def records(tmp_path_factory):
    """Section `data` of a run: training and validation records and their vocabulary."""
    from pangu_alpha.data.preprocess import PreprocessConfig, preprocess
    from pangu_alpha.text.vocabulary import train_vocabulary

    folder = tmp_path_factory.mktemp("records")
    rng = random.Random(7)
    texts = ["".join(rng.choices(_CHARACTERS, k=rng.randrange(5, 60))) + "。" for _ in range(200)]
    vocabulary = str(folder / "vocab.model")
    train_vocabulary(texts, vocabulary, 60)
    for name, part in {"train": texts, "validation": texts[:9]}.items():
        (folder / f"{name}.txt").write_text("\n\n".join(part), "utf-8")
        source = (str(folder / f"{name}.txt"),)
        preprocess(PreprocessConfig(source, vocabulary, str(folder / name), seq_length=16, pad_last=True))
    train = {"text": {"records": str(folder / "train")}}
    return {"train": train, "validation": str(folder / "validation"), "vocabulary": vocabulary}


@pytest.fixture(scope="session")
def config(records, tmp_path_factory):
    """Path of the YAML of a run of 2 data-parallel ranks with 2 micro-batches and dropout."""
    settings = {
        "model": {
            "vocab_size": 60,
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "seq_length": 16,
            "dropout": 0.1,
        },
        "data": records,
        "optim": {"learning_rate": 1e-2, "end_learning_rate": 1e-3, "warmup_steps": 5, "decay_steps": 60},
        "run": {
            "output": "given by the test",
            "steps": 60,
            "batch_size": 3,
            "evaluate_every": 20,
            "tensorboard": False,
            "peak_tflops": 0.1,
            "checkpoint": {"every": 10},
        },
        "parallel": {"dp": 2, "micro_batches": 2},
    }
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), "utf-8")
    return str(path)


@pytest.fixture(scope="session")
def script(tmp_path_factory):
    """Starts a script of run_scripts/ with this interpreter, which has a name of its own in a folder with a
    blank and no `python` beside it."""
    interpreter = tmp_path_factory.mktemp("an interpreter") / "python3.11"
    interpreter.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', "utf-8")
    interpreter.chmod(0o755)

    def start(name, *words):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PANGU_PYTHON": str(interpreter)}
        command = ["bash", str(SCRIPTS / name), *words]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )

    return start


@pytest.fixture
def port():
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])
