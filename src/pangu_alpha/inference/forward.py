"""The graphs of a decoder: the network on new tokens, with the keys and values of earlier ones in caches.

A token in slot n attends to the slots from the first one of its document up to n. Its position, both for the
position table and for the query layer, is n minus that first slot.
Letters: B rows, S new tokens, C slots of a cache, N heads, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from pangu_alpha.model.graph import GraphCell
from pangu_alpha.model.pangu import PanguAlpha


class Graph(GraphCell):
    """A graph without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.set_train(False)
        if ms.get_context("device_target") == "CPU":
            # With this option MindSpore 2.9 runs the kernels of a graph one after another instead of as
            # messages between threads, which would add a tenth to the time: a token needs some 700 kernels
            # of microseconds. The option can go when the CPU backend does so by default.
            self.set_jit_config(ms.JitConfig(jit_level="O0", infer_boost="on"))


class _Cached(Graph):
    """What feeding and stepping share.

    Args:
        model: A model whose attentions already have their caches.
        slots: Number of slots C.
    """

    def __init__(self, model: PanguAlpha, slots: int) -> None:
        super().__init__()
        self.model = model
        self.every = Tensor(np.arange(slots, dtype=np.int32).reshape(1, 1, -1))
        self.sub = ops.Sub()
        self.at_most = ops.LessEqual()
        self.at_least = ops.GreaterEqual()
        self.both = ops.LogicalAnd()
        self.expand_dims = ops.ExpandDims()
        self.gather = ops.Gather()
        self.cast = ops.Cast()

    def hidden(self, ids, slots, starts, places):
        """The hidden states [B*S, H]."""
        past = self.at_most(self.every, self.expand_dims(slots, 2))
        own = self.at_least(self.every, self.expand_dims(starts, 2))
        mask = self.both(past, own)  # [B, S, C]
        return self.model.hidden_states(ids, self.sub(slots, starts), mask, None, places)


class Feed(_Cached):
    """The hidden state of one token of a chunk, and those of all its tokens.

    Inputs:
        - **ids** (Tensor) - int32 [1, S].
        - **slots** (Tensor) - int32 [1, S], the last slot that each token attends to.
        - **starts** (Tensor) - int32 [1, S], slot of the first token of its document.
        - **places** (Tensor) - int32 [1, N, S, 3], where the caches store its key and value.
        - **last** (Tensor) - int32 [1], index of the one token.

    Outputs:
        (Tensor [1, H], Tensor [S, H]), compute type.
    """

    def construct(self, ids, slots, starts, places, last):
        x = self.hidden(ids, slots, starts, places)
        return self.gather(x, last, 0), x


class Step(_Cached):
    """The logits after one token of each row.

    Inputs:
        As Feed, with ids, slots and starts [B, 1] and places [B, N, 1, 3], and without **last**.
        - **table** (Tensor) - [V, H], the word embedding's table once more. MindSpore 2.9 copies a parameter
          that is read before and after the caches are written, here twice for each call.

    Outputs:
        Tensor [B, V], float32.
    """

    def construct(self, ids, slots, starts, places, table):
        x = self.hidden(ids, slots, starts, places)
        return self.cast(self.model.logits(x, table), ms.float32)


class Lines(Graph):
    """The logits after tokens of a chunk, from the hidden states that Feed gives.

    Inputs:
        - **hidden** (Tensor) - [S, H].
        - **table** (Tensor) - [V, H].

    Outputs:
        Tensor [S, V], float32.
    """

    def __init__(self, model: PanguAlpha) -> None:
        super().__init__()
        self.model = model
        self.cast = ops.Cast()

    def construct(self, hidden, table):
        return self.cast(self.model.logits(hidden, table), ms.float32)


class _OfCaches(Graph):
    def __init__(self, caches: Sequence[Any]) -> None:
        super().__init__()
        self.caches = nn.CellList(list(caches), auto_prefix=False)
        self.neg = ops.Neg()


class CopyRow(_OfCaches):
    """Copies the beginning of one row of all caches over that of another.

    Inputs:
        - **numbers** (Tensor) - int32 [3]: source, destination, number of slots.

    Outputs:
        Tensor int32 [3], of no meaning: a graph must have a result.
    """

    def construct(self, numbers):
        for cache in self.caches:
            cache.copy(numbers)
        return self.neg(numbers)


class ClearRow(_OfCaches):
    """Fills one row of all caches with zeros.

    Inputs:
        - **row** (Tensor) - int32 [1].

    Outputs:
        Tensor int32 [1], of no meaning: a graph must have a result.
    """

    def construct(self, row):
        for cache in self.caches:
            cache.clear(row)
        return self.neg(row)
