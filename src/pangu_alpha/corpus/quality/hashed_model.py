"""Logistic regression over hashed character 1- to 3-grams, trained and scored the same to the bit anywhere.

Features of a text are the shares of its n-grams, as in fastText. Sums are formed in a fixed order, and those
of scores are exact: weights are multiples of 2^-20, and float64 holds any sum of up to 2^25 of them.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pangu_alpha.config.option import option
from pangu_alpha.config.schema import validate
from pangu_alpha.corpus.hashing import FACTOR, code_points, mixed, ngram_hashes
from pangu_alpha.corpus.quality.exact_math import sigmoid
from pangu_alpha.files.shown import shown

_STEP = 2.0**-20  # weights are multiples of it
_LARGEST = 2.0**7  # and not larger than this, so that float32 holds them
_NGRAMS = (1, 2, 3)
_CHARACTERS = 1 << 18  # that are scored at once
_FORMAT = 1
_SMALL = 1e-12  # keeps the slope of a weight without a gradient finite


@dataclass(frozen=True)
class HashedSettings:
    """How a hashed model is built and trained.

    Raises:
        ConfigError: Lists all fields that have the wrong type or lie outside their bounds.
    """

    bits: int = option(18, "the model has 2 to this power weights", at_least=8, at_most=22)
    most_characters: int = option(
        2000, "of a text that are looked at, from its start", at_least=1, unit="characters"
    )
    epochs: int = option(5, "passes over the training texts", at_least=1)
    batch: int = option(64, "texts of a step", at_least=1)
    learning_rate: float = option(10.0, "of Adagrad", above=0)
    seed: int = option(1, "of the order of the training texts", at_least=0)

    def __post_init__(self) -> None:
        validate(self)


class HashedModel:
    """A trained model.

    Args:
        settings: It was built with.
        weights: float32 [2^bits].
        bias: Of the log odds.
    """

    def __init__(self, settings: HashedSettings, weights: np.ndarray, bias: float) -> None:
        self.settings, self.weights, self.bias = settings, weights, bias

    @classmethod
    def train(
        cls, texts: Sequence[str], labels: Sequence[bool] | np.ndarray, settings: HashedSettings | None = None
    ) -> HashedModel:
        """Trains by Adagrad on the mean logistic loss; both classes weigh the same.

        Args:
            texts: Training texts.
            labels: True for those that shall score near 1.
            settings: None takes the defaults.

        Raises:
            ValueError: There are not as many labels as texts, or only one class.
        """
        settings = settings or HashedSettings()
        label = np.asarray(labels, np.float64)
        if len(label) != len(texts):
            raise ValueError(f"{len(texts)} texts have {len(label)} labels; give one label for each text")
        positive = int(label.sum())
        if positive in (0, len(label)):
            raise ValueError(
                f"all {len(label)} training texts are of one class; give examples of good and of bad texts"
            )
        weight = np.where(label > 0, 0.5 / positive, 0.5 / (len(label) - positive)) * len(label)
        trained = _Training(settings)
        places = np.arange(len(texts), dtype=np.uint64)
        for epoch in range(settings.epochs):
            salt = mixed(np.array([settings.seed * 1_000_003 + epoch], np.uint64))
            order = np.argsort(mixed(places * FACTOR + salt), kind="stable")
            for start in range(0, len(order), settings.batch):
                some = order[start : start + settings.batch]
                trained.step([texts[place] for place in some], label[some], weight[some])
        return cls(settings, *trained.rounded())

    def log_odds(self, texts: Sequence[str]) -> np.ndarray:
        """Log odds of the positive class, float64 [texts]; those of a text do not depend on the others."""
        found = np.empty(len(texts), np.float64)
        for part in _batches(texts, self.settings.most_characters):
            places, owners, counts = features(texts[part], self.settings)
            sums = np.bincount(owners, self.weights[places].astype(np.float64), len(counts))
            found[part] = sums / counts + self.bias
        return found

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Probability of the positive class, float32 [texts]."""
        return sigmoid(self.log_odds(texts)).astype(np.float32)

    def save(self, path: str | Path) -> None:
        """Writes one .npz file without any pickled object; equal models give equal bytes."""
        about = json.dumps({"format": _FORMAT, "bias": self.bias, **asdict(self.settings)}, sort_keys=True)
        with Path(path).open("wb") as file:
            np.savez_compressed(file, weights=self.weights, about=np.array(about))

    @classmethod
    def load(cls, path: str | Path) -> HashedModel:
        """Reads a model.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not a model that `save` wrote, or of a later release.
        """
        about, arrays = read_model(path, ("weights",), "hashed model", _FORMAT)
        bias = float(about.pop("bias"))
        settings, weights = HashedSettings(**about), arrays["weights"]
        if weights.shape != (1 << settings.bits,) or weights.dtype != np.float32:
            raise ValueError(f"{shown(path)}: lacks some of its {1 << settings.bits} weights; train it again")
        return cls(settings, weights, bias)


def read_model(path: str | Path, names: Sequence[str], kind: str, format: int) -> tuple[dict, dict]:
    """Reads the description and the arrays of a model file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no model of this kind, damaged, or of a later release.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{shown(path)}: there is no such file; train a {kind}, or name its file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays, about = {name: file[name] for name in names}, json.loads(str(file["about"]))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{shown(path)}: is no {kind}, or is damaged ({error}); train it again") from error
    if (found := about.pop("format", None)) != format:
        raise ValueError(f"{shown(path)}: has format {found}, this release reads {format}; train it again")
    return about, arrays


class _Training:
    """Weights while they are trained, float64, and the sums of squares of Adagrad."""

    def __init__(self, settings: HashedSettings) -> None:
        self._settings = settings
        self._weights = np.zeros((1 << settings.bits) + 1)  # the last one is the bias
        self._squares = np.zeros_like(self._weights)

    def step(self, texts: Sequence[str], label: np.ndarray, weight: np.ndarray) -> None:
        places, owners, counts = features(texts, self._settings)
        # bincount adds in the order of its input, which reduceat and dot do not promise
        odds = np.bincount(owners, self._weights[places], len(counts)) / counts + self._weights[-1]
        error = weight * (sigmoid(odds) - label) / len(texts)
        gradient = np.bincount(places, (error / counts)[owners], len(self._weights))
        gradient[-1] = np.cumsum(error)[-1]
        self._squares += gradient * gradient
        self._weights -= self._settings.learning_rate * gradient / (np.sqrt(self._squares) + _SMALL)

    def rounded(self) -> tuple[np.ndarray, float]:
        """Weights float32 and the bias, all multiples of _STEP where float32 can hold them."""
        steps = np.rint(np.clip(self._weights, -_LARGEST, _LARGEST) / _STEP)
        # float32 has 24 bits: larger weights are cut to fewer binary places, and remain multiples
        return (steps[:-1] * _STEP).astype(np.float32), float(steps[-1] * _STEP)


def features(texts: Sequence[str], settings: HashedSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashed n-grams of texts.

    Returns:
        The weight of each n-gram, int64 [n-grams], its text, int64 [n-grams], and the number of n-grams of
        each text, int64 [texts].
    """
    codes, starts = code_points([text[: settings.most_characters] for text in texts])
    codes = _plain(codes)
    places, owners, totals = [], [], np.zeros(len(texts), np.int64)
    for n in _NGRAMS:
        hashes, firsts = ngram_hashes(codes, starts, n)
        counts = np.diff(np.append(firsts, len(hashes)))
        salted = mixed(hashes + np.array([n], np.uint64) * FACTOR)
        places.append((salted >> np.uint64(64 - settings.bits)).astype(np.int64))
        owners.append(np.repeat(np.arange(len(texts)), counts))
        totals += counts
    return np.concatenate(places), np.concatenate(owners), totals


def _plain(codes: np.ndarray) -> np.ndarray:
    """Makes one digit of all ASCII digits, lower case of ASCII letters, and a space of every control."""
    table = np.arange(128, dtype=np.uint32)
    table[:33], table[48:58], table[65:91] = 32, 48, np.arange(97, 123)
    return np.where(codes < 128, table[np.minimum(codes, 127)], codes)


def _batches(texts: Sequence[str], most: int) -> Iterator[slice]:
    """Slices of texts of about _CHARACTERS characters, each text counted up to `most`."""
    start, size = 0, 0
    for place, text in enumerate(texts):
        if size and size + min(len(text), most) > _CHARACTERS:
            yield slice(start, place)
            start, size = place, 0
        size += min(len(text), most)
    if start < len(texts):
        yield slice(start, len(texts))
