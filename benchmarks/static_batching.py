"""Generation in groups of prompts up to their common end, as it was before there was an engine.

A group's prompts are computed at once and padded to the same length; then all rows get tokens until the
longest answer of the group is complete. Only engine_speed.py uses it, as what the engine is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mindspore import Tensor, ops

from pangu_alpha.inference.caches import Caches
from pangu_alpha.inference.forward import Step
from pangu_alpha.model.cache import places_of
from pangu_alpha.model.fused_network import token_kernel
from pangu_alpha.model.pangu import PanguAlpha

SMALLEST_BUCKET = 64


class WholeBatch(Step):
    """The logits [B, V] after one token of each row's prompt; see forward.Feed for the inputs."""

    def construct(self, ids, slots, starts, places, last, table):
        batch, length = ids.shape
        x = self.hidden(ids, slots, starts, places)
        x = self.gather(x, ops.range(0, batch * length, length) + last, 0)
        return self.model.logits(x, table)


class StaticBatching:
    """A model that generates in groups.

    Args:
        rows: Prompts of a group.
        context: Slots of a row.
        choose: Chooses a token by the logits [V].
    """

    def __init__(
        self, model: PanguAlpha, rows: int, context: int, choose: Callable[[np.ndarray], int]
    ) -> None:
        self.rows, self.context, self.choose = rows, context, choose
        self.heads = model.config.num_heads
        self.caches = Caches(model, rows, context + 1, "static")
        self.caches.attach()
        self.token = token_kernel(model, [cache.table for cache in self.caches.cells], rows)
        self.whole, self.single = WholeBatch(model, context + 1), Step(model, context + 1)
        self.table = Tensor(model.word_embedding.table.asnumpy())

    def bucket(self, length: int) -> int:
        """The length to which a group's prompts are padded."""
        size = SMALLEST_BUCKET
        while size < length:
            size *= 2
        return min(size, self.context)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Logits [B, V] after each prompt."""
        ids = np.zeros((self.rows, self.bucket(max(map(len, prompts)))), np.int32)
        last = np.zeros(self.rows, np.int32)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt
            last[row] = len(prompt) - 1
        slots = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
        slots = np.ascontiguousarray(slots)
        return self._call(self.whole, ids, slots, places_of(slots, self.heads), last)

    def step(self, tokens: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """Logits [B, V] after one more token of each row."""
        if self.token is not None:
            return self.token(tokens, np.column_stack([np.arange(self.rows), slots, np.zeros_like(slots)]))
        slots = slots[:, None].astype(np.int32)
        return self._call(self.single, tokens[:, None].astype(np.int32), slots, places_of(slots, self.heads))

    def _call(self, cell: Any, ids: np.ndarray, slots: np.ndarray, *more: np.ndarray) -> np.ndarray:
        arrays, known = (ids, slots, np.zeros_like(ids), *more), len(cell.compile_cache)
        found = cell(*map(Tensor, arrays), self.table).asnumpy()
        if self.token is not None and len(cell.compile_cache) > known:
            self.token.look_up()
        return found

    def generate(self, requests: Sequence[tuple[Sequence[int], int]]) -> None:
        """Continues prompts by as many new ids as each is to have."""
        for start in range(0, len(requests), self.rows):
            group = requests[start : start + self.rows]
            slots = np.zeros(self.rows, int)
            slots[: len(group)] = [len(prompt) for prompt, _ in group]
            logits = self.prefill([prompt for prompt, _ in group])
            tokens = np.zeros(self.rows, int)
            for number in range(max(new for _, new in group)):
                if number:
                    logits = self.step(tokens, np.minimum(slots, self.context - 1))
                    slots += 1
                for row, (_, new) in enumerate(group):
                    if number < new:
                        tokens[row] = self.choose(logits[row])
