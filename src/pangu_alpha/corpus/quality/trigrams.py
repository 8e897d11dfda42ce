"""Perplexity under a model of character trigrams: interpolated Kneser-Ney with one discount an order.

Chen and Goodman (1999), section 3. A trigram of code points is one 63-bit number, so a model is a few sorted
arrays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pangu_alpha.config.option import option
from pangu_alpha.config.schema import validate
from pangu_alpha.corpus.folding import folded_batches
from pangu_alpha.corpus.quality.exact_math import exp, log
from pangu_alpha.corpus.quality.hashed_model import read_model
from pangu_alpha.files.shown import shown

_BITS = np.uint64(21)  # of a code point
_FORMAT = 1
_NAMES = ("grams", "chances", "pairs", "pair_chances", "pair_rests", "rests", "letters", "letter_chances")
_LAST = np.uint64((1 << 21) - 1)


@dataclass(frozen=True)
class TrigramSettings:
    """How perplexity is measured.

    Raises:
        ConfigError: Lists all fields that have the wrong type or lie outside their bounds.
    """

    discount: float = option(0.75, "taken from each count and given to shorter n-grams", above=0, below=1)
    least_characters: int = option(
        50,
        "letters and digits of a text that is scored; the perplexity of a shorter one is chance",
        at_least=1,
        unit="characters",
    )

    def __post_init__(self) -> None:
        validate(self)


class TrigramModel:
    """A trained model. Texts are folded first, so punctuation and spaces are not part of it.

    Args:
        settings: It was built with.
        arrays: By the names that `save` writes.
    """

    def __init__(self, settings: TrigramSettings, arrays: dict[str, np.ndarray]) -> None:
        self.settings, self._arrays = settings, arrays

    @classmethod
    def train(cls, texts: Iterable[str], settings: TrigramSettings | None = None) -> TrigramModel:
        """Counts the trigrams of texts, in batches; memory is that of the different trigrams.

        Raises:
            ValueError: The texts have no letters.
        """
        settings = settings or TrigramSettings()
        grams, counts = _counted(_batches_of(texts))
        if not len(grams):
            raise ValueError("the texts to train the trigram model on have no letters; give it good texts")
        return cls(settings, _smoothed(grams, counts, settings.discount))

    def nats(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Sum of the negative log likelihoods of a text's characters, float64 [texts], and their number."""
        sums, counts = np.zeros(len(texts)), np.zeros(len(texts), np.int64)
        for rows, codes, starts in folded_batches(texts):
            counts[rows] = np.diff(starts)
            owners = np.repeat(np.arange(len(starts) - 1), counts[rows])
            losses = -log(self._chances(_trigrams(codes, starts)))
            sums[rows] = np.bincount(owners, losses, len(starts) - 1)
        return sums, counts

    def perplexities(self, texts: Sequence[str]) -> np.ndarray:
        """Perplexity a character, float32 [texts]; NaN for a text that is too short to be scored."""
        sums, counts = self.nats(texts)
        enough = counts >= self.settings.least_characters
        found = np.full(len(texts), np.nan, np.float32)
        found[enough] = exp(sums[enough] / counts[enough])
        return found

    def _chances(self, grams: np.ndarray) -> np.ndarray:
        """Probability of the last character of each trigram after the first two, float64 [trigrams]."""
        own = self._arrays
        letter = _looked_up(own["letters"], own["letter_chances"], grams & _LAST, own["letter_chances"][-1])
        pair = grams & ((np.uint64(1) << (_BITS * np.uint64(2))) - np.uint64(1))
        before_pair = _looked_up(own["letters"], own["rests"], pair >> _BITS, 1.0)
        two = _looked_up(own["pairs"], own["pair_chances"], pair, 0.0) + before_pair * letter
        before = _looked_up(own["pairs"], own["pair_rests"], grams >> _BITS, 1.0)
        return _looked_up(own["grams"], own["chances"], grams, 0.0) + before * two

    def save(self, path: str | Path) -> None:
        """Writes one .npz file without any pickled object; equal models give equal bytes."""
        about = json.dumps({"format": _FORMAT, **asdict(self.settings)}, sort_keys=True)
        with Path(path).open("wb") as file:
            np.savez_compressed(file, **self._arrays, about=np.array(about))

    @classmethod
    def load(cls, path: str | Path) -> TrigramModel:
        """Reads a model.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not a model that `save` wrote, or of a later release.
        """
        about, arrays = read_model(path, _NAMES, "trigram model", _FORMAT)
        lengths = [len(arrays[name]) for name in _NAMES]
        if lengths[0] != lengths[1] or len({*lengths[2:5]}) != 1 or len({*lengths[5:7], lengths[7] - 1}) != 1:
            raise ValueError(f"{shown(path)}: its arrays do not fit each other; train it again")
        return cls(TrigramSettings(**about), arrays)


def _batches_of(texts: Iterable[str], size: int = 1000) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _counted(batches: Iterable[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """The different trigrams, sorted, uint64, and how often each occurs, int64."""
    grams, counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    for batch in batches:
        for _, codes, starts in folded_batches(batch):
            new, times = np.unique(_trigrams(codes, starts), return_counts=True)
            merged, places = np.unique(np.append(grams, new), return_inverse=True)
            added = np.zeros(len(merged), np.int64)
            added[places[: len(grams)]] += counts
            added[places[len(grams) :]] += times
            grams, counts = merged, added
    return grams, counts


def _trigrams(codes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The trigram that ends at each character, uint64 [characters]; before a text there are zeros."""
    wide = codes.astype(np.uint64)
    found = wide.copy()
    lengths = np.diff(starts)
    place = np.arange(len(codes)) - np.repeat(starts[:-1], lengths)
    for back in (1, 2):
        earlier = np.zeros_like(wide)
        earlier[back:] = wide[:-back]
        earlier[place < back] = 0
        found |= earlier << (_BITS * np.uint64(back))
    return found


def _smoothed(grams: np.ndarray, counts: np.ndarray, discount: float) -> dict[str, np.ndarray]:
    """The discounted probability of each n-gram, and the rest that a context leaves to shorter n-grams."""
    pair_of = np.uint64((1 << 42) - 1)
    chances, context_rests, contexts = _discounted(grams >> _BITS, counts, discount)
    # shorter n-grams count the different characters that come before them, not how often they come
    pairs, before = np.unique(grams & pair_of, return_counts=True)
    pair_chances, pair_context_rests, pair_contexts = _discounted(pairs >> _BITS, before, discount)
    letters, different = np.unique(pairs & _LAST, return_counts=True)
    total = int(different.sum())
    letter_chances = (different - discount) / total
    # what is left is spread over the letters and one for all that were never seen
    spare = discount * len(letters) / total / (len(letters) + 1)
    known = np.union1d(letters, pair_contexts)
    all_pairs = np.union1d(pairs, contexts)
    return {
        "grams": grams,
        "chances": chances,
        "pairs": all_pairs,
        "pair_chances": _looked_up(pairs, pair_chances, all_pairs, 0.0),
        "pair_rests": _looked_up(contexts, context_rests, all_pairs, 1.0),
        "letters": known,
        "rests": _looked_up(pair_contexts, pair_context_rests, known, 1.0),
        "letter_chances": np.append(_looked_up(letters, letter_chances, known, 0.0) + spare, spare),
    }


def _discounted(
    context: np.ndarray, counts: np.ndarray, discount: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Discounted probability of each n-gram, and the rest and the name of each context; input is sorted."""
    names, first, kinds = np.unique(context, return_index=True, return_counts=True)
    totals = np.add.reduceat(counts, first)
    return (counts - discount) / np.repeat(totals, kinds), discount * kinds / totals, names


def _looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray, missing: float) -> np.ndarray:
    """Value of each wanted key in sorted keys, float64; `missing` where it is none of them."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], missing)
