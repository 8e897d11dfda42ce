"""The order of training samples: a pure function of the seed and the sample's number.

Sample n of a mixture belongs to a source (`Mixture`) and is a window of it (`Permutation`). Both are closed
forms over arrays of positions, so memory does not grow with the corpus, and the batch size, the number of
devices and the moment of a resume do not matter. data.position handles changed mixtures. Knows no files and
no MindSpore.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from pangu_alpha.data.hashing import mix64

# Slots of the mixture's repeating table when the weights have no small common denominator. With 2^16 slots a
# share is exact to 1.6e-5 of all tokens, and the table takes less than 1 MB.
_SLOTS = 1 << 16

# Rounds of the Feistel network. Four suffice for wide halves (Luby and Rackoff, 1988), but the halves of a
# small corpus are only a few values wide: over 6 windows, all 720 orders are equally frequent from about 20
# rounds on.
_ROUNDS = 24

_U64 = np.uint64


class Permutation:
    """A seeded permutation of 0..size-1 for every epoch, which is evaluated at any place without storing it.

    It is a Feistel network over pairs from a grid of ceil(sqrt(size)) columns. It adds instead of using
    exclusive or, so that the sides need not be powers of two. The few places of the grid beyond `size` (less
    than one column) are mapped again until they fall inside (Black and Rogaway, "Ciphers with Arbitrary
    Finite Domains", 2002).

    Args:
        size: Number of windows.
        seed: `run.seed`, which all sources share.
        name: Name of the source. Each source has its own order, which does not change when other sources
            join or leave the mixture.
        shuffle: False gives the written order in every epoch.
    """

    def __init__(self, size: int, seed: int = 0, name: str = "", shuffle: bool = True) -> None:
        if size < 1:
            raise ValueError(f"size: {size} windows cannot be put in order; there must be at least 1")
        self.size = size
        self._shuffle = shuffle
        self._sides = (math.isqrt(size - 1) + 1, -(-size // (math.isqrt(size - 1) + 1)))
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        self._key = _U64(int.from_bytes(digest[:8], "little"))

    def __call__(self, draws: np.ndarray) -> np.ndarray:
        """Returns the windows of the given draws; draw n lies in epoch n // size.

        Args:
            draws: int64 array of numbers from 0.

        Returns:
            int64 array of the same shape, values in [0, size).
        """
        epochs, places = np.divmod(np.asarray(draws, np.int64), self.size)
        if not self._shuffle:
            return places
        keys = mix64(self._key ^ mix64(epochs.astype(_U64)))
        windows = self._network(places.astype(_U64), keys)
        outside = windows >= _U64(self.size)
        while outside.any():
            windows[outside] = self._network(windows[outside], keys[outside])
            outside = windows >= _U64(self.size)
        return windows.astype(np.int64)

    def _network(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        this_side, other_side = (_U64(side) for side in self._sides)
        this, other = values % this_side, values // this_side
        for number in range(_ROUNDS):
            turned = (this + mix64(mix64(keys + _U64(number)) ^ other) % this_side) % this_side
            this, other = other, turned
            this_side, other_side = other_side, this_side
        assert _ROUNDS % 2 == 0  # so that each half is back on its own side of the grid
        return this + other * this_side


def window_at(draw: int, size: int, seed: int = 0, name: str = "", shuffle: bool = True) -> int:
    """Returns the window that the given draw takes from a source of `size` windows; see `Permutation`."""
    return int(Permutation(size, seed, name, shuffle)(np.array([draw]))[0])


class Mixture:
    """Assigns samples to sources by a repeating table over which every source is spread evenly.

    Source i owns s_i of the table's P slots. Its j-th slot is due at (j + 1/2) / s_i, and slots are ordered
    by their due times. After n samples, source i has given n * s_i / P of them, within
    1/2 + (s_i / P) * (number of sources) / 2: rounding a source's share at the due time loses at most half a
    sample of its own, and n itself is off by at most half a sample for each source. After whole periods the
    shares are exact. Memory is O(P), with P <= 65536.

    Args:
        weights: Share of the samples (hence of the tokens) of each source relative to the others; positive.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.names = tuple(weights)
        for name, weight in weights.items():
            if not (weight > 0 and math.isfinite(weight)):
                raise ValueError(f"weight of source {name!r}: {weight} must be positive and finite")
        self._slots = _slots([weights[name] for name in self.names])
        self.period = int(self._slots.sum())
        owner = np.repeat(np.arange(len(self.names)), self._slots)
        number = np.concatenate([np.arange(slots) for slots in self._slots])
        order = np.argsort((number + 0.5) / self._slots[owner], kind="stable")
        self._owner, self._number = owner[order], number[order]

    @property
    def slots(self) -> tuple[int, ...]:
        """How many samples of a period each source gives; mixtures with equal slots assign samples alike."""
        return tuple(self._slots.tolist())

    @property
    def shares(self) -> dict[str, float]:
        """The share of each source in the table, after rounding; the shares add up to 1."""
        return {name: int(slots) / self.period for name, slots in zip(self.names, self._slots, strict=True)}

    def __call__(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the source and the draw of the given samples.

        Args:
            samples: int64 array of numbers from 0.

        Returns:
            Two int64 arrays of the same shape: the source's index in `names`, and how many samples that
            source gave before.
        """
        periods, places = np.divmod(np.asarray(samples, np.int64), self.period)
        sources = self._owner[places]
        return sources, periods * self._slots[sources] + self._number[places]

    def counts(self, samples: int) -> np.ndarray:
        """How many of the first `samples` samples come from each source, int64."""
        periods, places = divmod(samples, self.period)
        return periods * self._slots + np.bincount(self._owner[:places], minlength=len(self.names))


def _slots(weights: list[float]) -> np.ndarray:
    """Whole numbers in the proportion of the weights, exact if the decimals as written allow it."""
    exact = [Fraction(str(weight)) for weight in weights]
    total = sum(exact)
    shares = [weight / total for weight in exact]
    period = math.lcm(*(share.denominator for share in shares))
    if period <= _SLOTS:
        return np.array([int(share * period) for share in shares])
    if len(weights) > _SLOTS:
        raise ValueError(f"{len(weights)} sources are more than the {_SLOTS} a mixture can hold")
    # Largest remainder, but at least one slot each, so that every source in the config is read.
    slots = [max(1, int(share * _SLOTS)) for share in shares]
    left = _SLOTS - sum(slots)
    by_need = sorted(range(len(slots)), key=lambda i: shares[i] * _SLOTS - slots[i], reverse=left > 0)
    while left:
        for i in by_need:
            if left and (left > 0 or slots[i] > 1):
                step = 1 if left > 0 else -1
                slots[i] += step
                left -= step
    return np.array(slots)
