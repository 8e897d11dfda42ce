"""The program of docs/mindformers.md that trains with MindFormers' Trainer, run as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pangu_alpha.checkpoint.moving.reading import read_box
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.open_options import OpenOptions
from pangu_alpha.checkpoint.tensors import whole
from pangu_alpha.cli import checkpoint, preprocess

PAGE = Path(__file__).parents[2] / "docs" / "mindformers.md"


def recipe() -> str:
    """The block that the page says this test runs."""
    return re.search(r"test_trainer_recipe.*?```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1]


@pytest.fixture(scope="module")
def trained(exported, tmp_path_factory):
    """A folder in which it ran, in a process of its own: the Trainer changes MindSpore's settings."""
    folder = tmp_path_factory.mktemp("recipe")
    shutil.copytree(exported.run, folder / "runs" / "mine")
    characters = list("话说天下大势分久必合周末七国争并入于秦")
    text = "，".join("".join(np.random.default_rng(0).choice(characters, 250)))
    (folder / "text.txt").write_text(text, "utf-8")
    words = ["--input", folder / "text.txt", "--vocabulary", exported.run / "vocab.model"]
    words += ["--output", folder / "data" / "train", "--seq-length", "24"]
    assert not preprocess.main([str(word) for word in words])
    (folder / "recipe.py").write_text(recipe(), "utf-8")
    environment = os.environ | {"LOG_MF_PATH": str(folder / "logs")}
    command = [sys.executable, "recipe.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, done.stdout + done.stderr


def arrays(path, config):
    """Weights and moments, by stem and name."""
    source = open_source(path, OpenOptions(model=config, shared=True))
    found = {
        stem: {name: read_box(each, whole(each.shape)) for name, each in group.items()}
        for stem, group in source.tensors.items()
    }
    return source.manifest.step, found


def test_it_trains(trained, exported):
    folder, said = trained
    losses = [float(loss) for loss in re.findall(r"loss:\[([0-9.]+)/", said)]
    assert len(losses) > 5 and losses[-1] < 0.95 * losses[0]
    assert "overflow cond: False" in said


def test_what_it_leaves_is_read_here(trained, exported, capsys):
    folder, _ = trained
    run = str(folder / "runs" / "mine")
    assert checkpoint.main(["diff", run, str(folder / "start"), "--weights-only", "--quiet"]) == 0
    assert "the same" in capsys.readouterr().out
    step, trainers = arrays(folder / "trained" / "checkpoint", exported.config)
    _, weights = arrays(folder / "trained" / "checkpoint_network", exported.config)
    _, tuned = arrays(folder / "tuned", None)
    _, before = arrays(run, None)
    assert step > 5
    names = before["model"].keys()
    assert all(np.array_equal(trainers["model"][name], weights["model"][name]) for name in names)
    assert all(np.array_equal(tuned["model"][name], weights["model"][name]) for name in names)
    assert not any(np.array_equal(tuned["model"][name], before["model"][name]) for name in names)
    moments = trainers["optimizer"]
    assert moments.keys() == {f"adam_{moment}.{name}" for moment in "mv" for name in names}
    assert all((moments[f"adam_v.{name}"] >= 0).all() and moments[f"adam_v.{name}"].any() for name in names)
