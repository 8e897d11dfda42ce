"""A decoder whose logits are a function of the ids that a row holds: no network, and microseconds a call.

It checks what the engine must keep to, and counts what it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pangu_alpha.config.generate import SamplingConfig
from pangu_alpha.inference.sampling import Sampler

_STATES = 4099  # prime


def state_after(ids: Sequence[int]) -> int:
    """Line of the table with the logits after ids."""
    state = 1
    for token in ids:
        state = (state * 31 + token + 7) % _STATES
    return state


class FakeDecoder:
    """A RowDecoder; see there."""

    def __init__(self, rows=3, context=24, chunk=4, vocab_size=13, pinned=0, seed=0) -> None:
        self.rows, self.context, self.chunk, self.vocab_size = rows, context, chunk, vocab_size
        self.pinned = pinned
        self.table = np.random.default_rng(seed).standard_normal((_STATES, vocab_size)).astype(np.float32) * 2
        self.texts: list[list[int]] = [[] for _ in range(rows + pinned)]
        self.damaged = [False] * (rows + pinned)  # rows in which NaN was written
        self.fed: list[tuple[int, int, int]] = []  # (row, start, number of ids)
        self.copies: list[tuple[int, int, int]] = []
        self.steps: list[list[bool]] = []

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Those after ids."""
        return self.table[state_after(ids)]

    def feed(self, row: int, ids: Sequence[int], start: int) -> np.ndarray:
        return self.score(row, ids, start)[-1]

    def write(self, row: int, ids: Sequence[int], start: int) -> bool:
        return bool(np.isfinite(self.score(row, ids, start)).all())

    def score(self, row: int, ids: Sequence[int], start: int) -> np.ndarray:
        text = self.texts[row]
        assert 1 <= len(ids) <= self.chunk and start + len(ids) <= self.context
        assert start == len(text) or (start < len(text) and start % self.chunk == 0)
        assert start // self.chunk == (start + len(ids) - 1) // self.chunk, "over a border"
        self.fed.append((row, start, len(ids)))
        del text[start:]
        text += ids
        lines = np.stack([self.logits(text[: start + n + 1]) for n in range(len(ids))])
        return self.shown(row, lines)

    def step(self, tokens: Sequence[int], active: Sequence[bool]) -> np.ndarray:
        assert len(tokens) == len(active) == self.rows and any(active)
        self.steps.append([*active])
        logits = np.full((self.rows, self.vocab_size), np.nan, np.float32)
        for row, (token, moves) in enumerate(zip(tokens, active, strict=True)):
            if moves:
                assert len(self.texts[row]) < self.context, "a full row"
                self.texts[row].append(token)
                logits[row] = self.shown(row, self.logits(self.texts[row]))
        return logits

    def shown(self, row: int, logits: np.ndarray) -> np.ndarray:
        """NaN from the first NaN of a row on, whatever is written over it."""
        self.damaged[row] |= bool(np.isnan(logits).any())
        return np.full_like(logits, np.nan) if self.damaged[row] else logits

    def copy(self, source: int, row: int, length: int) -> None:
        assert source != row and 0 < length <= len(self.texts[source])
        self.copies.append((source, row, length))
        self.texts[row] = self.texts[source][:length]
        self.damaged[row] |= self.damaged[source]

    def clear(self, row: int) -> None:
        self.texts[row], self.damaged[row] = [], False

    def length(self, row: int) -> int:
        return len(self.texts[row])


class Clock:
    """Time that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def alone(decoder: FakeDecoder, request, sample=0, stop_ids=(), banned=None):
    """(ids, reason) of a request's sample, without an engine: the definition."""
    none = np.zeros(decoder.vocab_size, bool)
    sampler = Sampler(
        request.sampling, request.prompt, none if banned is None else banned, sample, request.logit_bias
    )
    ids: list[int] = []
    while True:
        if len(ids) >= request.max_new_tokens:
            return ids, "length"
        if len(request.prompt) + len(ids) > decoder.context:
            return ids, "context"
        token = sampler(decoder.logits([*request.prompt, *ids]))
        if token in stop_ids or token in request.stop_ids:
            return ids, "stop"
        ids.append(token)
        if request.finished is not None and request.finished(sample, token):
            return ids, "stop"


DRAWN = SamplingConfig(temperature=1.0, top_p=1.0)
