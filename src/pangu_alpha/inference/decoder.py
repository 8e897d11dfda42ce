"""Runs the network on new tokens only, with the keys and values of earlier tokens kept in a cache.

There is one graph for each bucket of prompt lengths, and one that adds a token to every row. Knows ids, slots
and documents; nothing of sampling or text.
Letters: B rows, S new tokens, C slots, T = B*S, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from pangu_alpha.inference.caches import Caches
from pangu_alpha.model.cache import places_of
from pangu_alpha.model.pangu import PanguAlpha

SMALLEST_BUCKET = 64


class CachedForward(nn.Cell):
    """Computes the logits after one token of each row, with attention to the cache.

    A token in slot n attends to the slots from the first one of its document up to n. Its position, both for
    the position table and for the query layer, is n minus that first slot.

    Args:
        model: A model whose attentions already have their caches.
        context: Number of slots C.
        whole_blocks: Whether the blocks have cells that compute one token of each row.

    Inputs:
        - **ids** (Tensor) - int32 [B, S].
        - **slots** (Tensor) - int32 [B, S], slot of the cache for each token.
        - **starts** (Tensor) - int32 [B, S], slot of the first token of its document.
        - **places** (Tensor) - int32 [B, heads, S, 3], the slots in the form that the caches take.
        - **last** (Tensor) - int32 [B], index of the token among S whose logits are returned.
        - **table** (Tensor) - [V, H], the word embedding's table once more. MindSpore 2.9 copies a parameter
          that is read before and after the caches are written, here twice for each token.

    Outputs:
        Tensor [B, V], float32.
    """

    def __init__(self, model: PanguAlpha, context: int, whole_blocks: bool) -> None:
        super().__init__(auto_prefix=False)
        self.model = model
        self.whole_blocks = whole_blocks
        self.concat = ops.Concat(1)
        self.places = Tensor(np.arange(context, dtype=np.int32).reshape(1, 1, -1))
        self.sub = ops.Sub()
        self.at_most = ops.LessEqual()
        self.at_least = ops.GreaterEqual()
        self.both = ops.LogicalAnd()
        self.expand_dims = ops.ExpandDims()
        self.gather = ops.Gather()
        self.cast = ops.Cast()

    @property
    def compile_phase(self) -> str:
        """The phase of the graph that was used last."""
        return self._compile_phase

    @compile_phase.setter
    def compile_phase(self, value: str) -> None:
        # MindSpore 2.9 writes the phase into every cell before each call, some 3 ms for a 350M.
        if value != self._compile_phase:
            nn.Cell.compile_phase.fset(self, value)

    def construct(self, ids, slots, starts, places, last, table):
        batch, length = ids.shape
        positions = self.sub(slots, starts)
        if self.whole_blocks and length == 1:
            rows = self.cast(ops.range(0, batch, 1), ms.int32).reshape((batch, 1))
            x = self.model.hidden_states(ids, positions, None, None, self.concat((rows, slots, starts)))
            return self.cast(self.model.logits(x, table), ms.float32)
        past = self.at_most(self.places, self.expand_dims(slots, 2))
        own = self.at_least(self.places, self.expand_dims(starts, 2))
        mask = self.both(past, own)  # [B, S, C]
        x = self.model.hidden_states(ids, positions, mask, None, places)
        if length > 1:
            x = self.gather(x, ops.range(0, batch * length, length) + last, 0)  # [T, H] -> [B, H]
        return self.cast(self.model.logits(x, table), ms.float32)


class Decoder:
    """Feeds prompts and then single tokens to a model with a cache; every row keeps its own place.

    Args:
        model: Gets caches of all slots in every attention, which `close` removes. Its weights must not change
            until then.
        end_of_document: Id after which positions restart at 0 and nothing earlier is attended to.
        batch_size: Number of rows B that every call computes.
        context: Number of slots C, at most the model's sequence length, which is the default. A smaller
            context is faster, because the attention of every token reads all slots.

    Raises:
        ValueError: The context does not fit the model, or another decoder holds the model.
    """

    def __init__(
        self, model: PanguAlpha, end_of_document: int, batch_size: int = 1, context: int | None = None
    ) -> None:
        limit = model.config.seq_length
        self.context = limit if context is None else context
        if not 1 <= self.context <= limit:
            raise ValueError(f"context: {context} must lie between 1 and the model's sequence length {limit}")
        self.model = model
        self.batch_size = batch_size
        self._end_of_document = end_of_document
        self.caches = Caches(model, batch_size, self.context, "decoder")
        self.caches.attach()
        self.forward = CachedForward(model, self.context, self.caches.whole_blocks).set_train(False)
        if ms.get_context("device_target") == "CPU":
            # With this option MindSpore 2.9 runs the kernels of a graph one after another instead of as
            # messages between threads, which would add a tenth to the time: a token needs some 700 kernels
            # of microseconds. The option can go when the CPU backend does so by default.
            self.forward.set_jit_config(ms.JitConfig(jit_level="O0", infer_boost="on"))
        self._table = Tensor(model.word_embedding.table.asnumpy())
        self._slots = np.zeros(batch_size, np.int32)  # slot of each row's next token
        self._starts = np.zeros(batch_size, np.int32)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """Clears all rows and feeds one prompt to each.

        Args:
            prompts: Ids, at most B prompts of 1 to C ids each.

        Returns:
            float32 [B, V], logits after each prompt's last id; rows without a prompt hold arbitrary values.
        """
        assert len(prompts) <= self.batch_size and all(1 <= len(ids) <= self.context for ids in prompts)
        bucket = self.bucket(max(len(ids) for ids in prompts))
        ids = np.zeros((self.batch_size, bucket), np.int32)
        starts = np.zeros_like(ids)
        lengths = np.ones(self.batch_size, np.int32)
        for row, prompt in enumerate(prompts):
            lengths[row] = len(prompt)
            ids[row, : len(prompt)] = prompt
            starts[row], self._starts[row] = self._documents(ids[row], len(prompt))
        self._slots = lengths.copy()
        # Keys of the padding go to slots beyond the prompt; each is overwritten before any token attends to
        # it.
        slots = np.broadcast_to(np.arange(bucket, dtype=np.int32), ids.shape)
        return self._run(ids, slots, starts, lengths - 1)

    def step(self, tokens: Sequence[int], active: Sequence[bool]) -> np.ndarray:
        """Adds one token to every active row, which must have room for it.

        Args:
            tokens: B ids; those of inactive rows do not matter.
            active: B flags; inactive rows are computed too, but keep their place.

        Returns:
            float32 [B, V], logits after each token.
        """
        ids = np.asarray(tokens, np.int32)
        moves = np.asarray(active, bool)
        assert not (moves & (self._slots >= self.context)).any()
        slots = np.minimum(self._slots, self.context - 1)[:, None]
        starts = np.minimum(self._starts[:, None], slots)
        logits = self._run(ids[:, None], slots, starts, np.zeros_like(ids))
        self._slots = self._slots + moves
        self._starts = np.where(moves & (ids == self._end_of_document), self._slots, self._starts)
        return logits

    def has_room(self, row: int) -> bool:
        """Whether a row can take another token."""
        return bool(self._slots[row] < self.context)

    def bucket(self, length: int) -> int:
        """The length to which a prompt is padded: 64, 128, ... up to the context."""
        size = SMALLEST_BUCKET
        while size < length:
            size *= 2
        return min(size, self.context)

    def close(self) -> None:
        """Removes the caches from the model."""
        self.caches.detach()

    def _documents(self, ids: np.ndarray, length: int) -> tuple[np.ndarray, int]:
        """First slot of each token's document, and of the document that the next token will belong to."""
        begins = np.zeros(len(ids) + 1, np.int32)
        ends = np.flatnonzero(ids[:length] == self._end_of_document)
        begins[ends + 1] = ends + 1
        starts = np.maximum.accumulate(begins)
        return starts[:-1], int(starts[length])

    def _run(self, ids: np.ndarray, slots: np.ndarray, starts: np.ndarray, last: np.ndarray) -> np.ndarray:
        places = places_of(slots, self.model.config.num_heads)
        arrays = (ids, slots, starts, places, last)
        inputs = [Tensor(np.ascontiguousarray(array)) for array in arrays]
        return self.forward(*inputs, self._table).asnumpy()
