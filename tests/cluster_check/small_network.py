"""A tiny network with the official weights as a checkpoint, a vocabulary beside it, and a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pangu_alpha.checkpoint.foreign.mindspore.released import released_names
from pangu_alpha.checkpoint.native.format import Manifest, write_checkpoint
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.text.vocabulary import train_vocabulary

FIXTURES = Path(__file__).parents[1] / "fixtures"
CONFIG = ModelConfig(1000, 64, 3, 4, seq_length=32)
_TEXT = "天下大势，分久必合，合久必分。周末七国分争，并入于秦。" * 4
_PIECES = 31


def write_network(folder):
    """Writes step_00000001, vocab.model and text.txt to a folder; returns the paths of all three."""
    arrays = dict(np.load(FIXTURES / "oracle_tiny.npz"))
    weights = {}
    for name, (official, flip) in released_names(CONFIG).items():
        array = arrays[f"plain/param/{official}"]
        weights[name] = np.ascontiguousarray(array.T if flip else array)
    path, vocabulary, text = (folder / name for name in ("step_00000001", "vocab.model", "text.txt"))
    write_checkpoint(path, {"model": weights}, Manifest(1, 0, {"model": to_mapping(CONFIG)}))
    train_vocabulary([_TEXT] * 20, str(vocabulary), _PIECES)
    text.write_text(_TEXT, "utf-8")
    return path, vocabulary, text
