"""Reads a user's fastText model; the package fasttext is needed for nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.files.shown import quoted, shown

_HAN_RUN = re.compile("[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


class FastTextModel:
    """A supervised model in fastText's .bin form.

    fastText predicts one text at a time in one thread, so its scores do not depend on what runs beside it.

    Args:
        path: The file.
        label: Whose probability is the score, such as "__label__spam".
        characters: Whether Han characters are words; false leaves the text as it is, for a model that was
            trained on text without spaces or on words that are already separated.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The package is missing, or the file is no model with this label.
    """

    def __init__(self, path: str | Path, label: str, characters: bool = False) -> None:
        self._label, self._characters = label, characters
        self._model = _load(path)
        if label not in (labels := list(self._model.get_labels())):
            known = ", ".join(labels[:10])
            raise ValueError(f"{shown(path)}: has no label {quoted(label)}; its labels are {known}")

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Probability of the label, float32 [texts]."""
        return np.array([self._score(text) for text in texts], np.float32)

    def _score(self, text: str) -> float:
        # fastText takes one line
        line = " ".join(self._separated(text).split())
        labels, values = self._model.predict(line, k=-1)
        found = dict(zip(labels, values, strict=True))
        return min(max(float(found.get(self._label, 0.0)), 0.0), 1.0)

    def _separated(self, text: str) -> str:
        return _HAN_RUN.sub(r" \g<0> ", text) if self._characters else text


def _load(path: str | Path) -> Any:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{shown(path)}: there is no such file; name the .bin file of a model")
    try:
        import fasttext
    except ImportError as error:
        raise ValueError(
            f"{shown(path)}: reading a fastText model needs the package fasttext-wheel; "
            "install it, or use the model that `corpus.py` trains"
        ) from error
    try:
        return fasttext.load_model(str(path))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{shown(path)}: is no fastText model ({error}); give a .bin file") from error
