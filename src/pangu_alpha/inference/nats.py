"""Computes -log p of given tokens, with every token of a common beginning computed once.

The network's graph returns the hidden states of a pass of texts (see packing); another graph multiplies those
that count by the word table, some rows at a time. So logits exist for few tokens at once, and none leave the
device. Knows ids; nothing of text.
Letters: S tokens of a pass, C slots, H hidden, R rows, K labels of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from pangu_alpha.inference.caches import Caches
from pangu_alpha.inference.packing import Ids, Pass, pack
from pangu_alpha.model.cache import places_of
from pangu_alpha.model.pangu import PanguAlpha

TOKENS = 64  # of a pass, for each text that is computed at once
ROWS = (16, 64, 256)  # of the product with the word table
LABELS = 8  # of one row: candidates of one token share their row
_WAITING = 1024  # labels that wait until their rows are multiplied, so that few rows are padding


class Labelled(NamedTuple):
    """A text, of which the ids from `first` on are to be predicted; `first` lies in 1 .. len(ids) - 1."""

    ids: Ids
    first: int


class Predicted(NamedTuple):
    """How well some ids of a text were predicted.

    Args:
        nats: float32 [n], -log p of each.
        likeliest: bool [n], whether greedy generation would have chosen it.
    """

    nats: np.ndarray
    likeliest: np.ndarray


NOTHING = Predicted(np.zeros(0, np.float32), np.zeros(0, bool))  # of no id


class PackedForward(nn.Cell):
    """Computes the hidden states of one pass.

    Inputs:
        - **ids**, **positions** (Tensor) - int32 [1, S].
        - **mask** (Tensor) - float32 [1, S, C], 1 = may attend to the slot.
        - **places** (Tensor) - int32 [1, heads, S, 3], the slots in the form that the caches take.

    Outputs:
        Tensor [S, H], float32.
    """

    def __init__(self, model: PanguAlpha) -> None:
        super().__init__(auto_prefix=False)
        self.model = model
        self.cast = ops.Cast()

    def construct(self, ids, positions, mask, places):
        return self.cast(self.model.hidden_states(ids, positions, mask, None, places), ms.float32)


class TableNats(nn.Cell):
    """Computes -log p of labels, by a log-softmax without the loss's floor.

    The loss adds 1e-24 to a probability, so that all tokens below e^-55 would cost the same.

    Inputs:
        - **hidden** (Tensor) - float32 [R, H].
        - **labels** (Tensor) - int32 [R, K].
        - **table** (Tensor) - [V, H], the word embedding's.

    Outputs:
        (float32 [R, K], nats; bool [R, K], whether it is the likeliest id).
    """

    def __init__(self, model: PanguAlpha) -> None:
        super().__init__(auto_prefix=False)
        self.dtype = model.compute_dtype
        self.cast = ops.Cast()
        self.product = ops.MatMul(transpose_b=True)  # the model's own may be one for few rows
        self.log_softmax = ops.LogSoftmax(-1)
        self.pick = ops.GatherD()
        self.likeliest = ops.ArgMaxWithValue(axis=1, keep_dims=True)
        self.equal = ops.Equal()
        self.neg = ops.Neg()

    def construct(self, hidden, labels, table):
        product = self.product(self.cast(hidden, self.dtype), self.cast(table, self.dtype))
        scores = self.cast(product, ms.float32)
        nats = self.neg(self.pick(self.log_softmax(scores), 1, labels))
        return nats, self.equal(labels, self.likeliest(scores)[0])


class NatsEngine:
    """Computes nats with a model, to which it lends its caches only while it does so.

    Args:
        model: Its weights may not change.
        end_of_document: Id after which positions restart at 0 and nothing earlier is attended to.
        batch_size: A pass has up to 64 tokens for each of so many texts.
    """

    def __init__(self, model: PanguAlpha, end_of_document: int, batch_size: int) -> None:
        self.model = model
        self._end_of_document = end_of_document
        self._sizes = _ladder(TOKENS * batch_size)
        self._slots = model.config.seq_length + self._sizes[-1]
        self._caches = Caches(model, 1, self._slots, "scoring")
        self._forward = PackedForward(model).set_train(False)
        self._table = TableNats(model).set_train(False)

    def predict(self, texts: Sequence[Labelled]) -> list[Predicted]:
        """Computes the nats of texts; their values depend on which texts there are, not on their order.

        Args:
            texts: Each with at most one id more than the model's context, because the last one is only
                predicted.
        """
        order = sorted(range(len(texts)), key=lambda n: texts[n].ids)
        rows = _Rows(self, texts)
        self._caches.attach()
        try:
            for number, states, nodes in self._states([texts[n] for n in order]):
                rows.add(order[number], states, nodes)
        finally:
            self._caches.detach()
        rows.finish()
        return rows.results

    def _states(self, texts: Sequence[Labelled]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yields each text's number, the states that predict its labels [n, H], and their numbers [n]."""
        inputs = [text.ids[:-1] for text in texts]
        hidden = np.zeros((self.model.config.seq_length, self.model.config.hidden_size), np.float32)
        nodes = np.zeros(len(hidden), np.int64)
        computed = 0
        for each in pack(inputs, self._sizes, self._slots, self._end_of_document):
            states = self._run(each)
            for text, first, stop, row in each.parts:
                hidden[first:stop] = states[row : row + stop - first]
                nodes[first:stop] = computed + np.arange(row, row + stop - first)
                if stop == len(inputs[text]):
                    counted = slice(texts[text].first - 1, stop)
                    yield text, hidden[counted].copy(), nodes[counted].copy()
            computed += each.count

    def _run(self, each: Pass) -> np.ndarray:
        places = places_of(each.slots[None], self.model.config.num_heads)
        arrays = (each.ids[None], each.positions[None], each.mask[None], places)
        return self._forward(*(Tensor(array) for array in arrays)).asnumpy()

    def multiply(self, hidden: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nats and whether likeliest, of labels [n, K] after states [n, H]."""
        nats, likeliest = np.zeros(labels.shape, np.float32), np.zeros(labels.shape, bool)
        for start in range(0, len(hidden), ROWS[-1]):
            part = slice(start, min(start + ROWS[-1], len(hidden)))
            count = part.stop - start
            rows = next(size for size in ROWS if size >= count)
            states = np.zeros((rows, hidden.shape[1]), np.float32)
            ids = np.zeros((rows, labels.shape[1]), np.int32)
            states[:count], ids[:count] = hidden[part], labels[part]
            found = self._table(Tensor(states), Tensor(ids), self.model.word_embedding.table)
            nats[part], likeliest[part] = (each.asnumpy()[:count] for each in found)
        return nats, likeliest


class _Rows:
    """Collects states that wait for the word table, and the results.

    Args:
        texts: Give the labels, and the order of the results.
    """

    def __init__(self, engine: NatsEngine, texts: Sequence[Labelled]) -> None:
        self._engine = engine
        self._texts = texts
        self._waiting: list[tuple[int, np.ndarray, np.ndarray]] = []
        self._count = 0
        self.results = [NOTHING] * len(texts)

    def add(self, text: int, states: np.ndarray, nodes: np.ndarray) -> None:
        """Takes what one text needs."""
        self._waiting.append((text, states, nodes))
        self._count += len(nodes)
        if self._count >= _WAITING:
            self.finish()

    def finish(self) -> None:
        """Computes all that waits."""
        if not self._waiting:
            return
        numbers, states, nodes = zip(*self._waiting, strict=True)
        labels = np.concatenate([self._texts[n].ids[self._texts[n].first :] for n in numbers])
        first, rows, columns = shared_rows(np.concatenate(nodes))
        grid = np.zeros((len(first), LABELS), np.int32)
        grid[rows, columns] = labels
        nats, likeliest = self._engine.multiply(np.concatenate(states)[first], grid)
        ends = np.cumsum([len(each) for each in nodes])[:-1]
        split = np.split(nats[rows, columns], ends), np.split(likeliest[rows, columns], ends)
        for number, *found in zip(numbers, *split, strict=True):
            self.results[number] = Predicted(*found)
        self._waiting, self._count = [], 0


def shared_rows(nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lets labels after the same token share a row, up to LABELS of them.

    Args:
        nodes: int [n], number of the token before each label.

    Returns:
        For each row, a label that it serves; for each label, its row and column.
    """
    order = np.argsort(nodes, kind="stable")
    ordered = nodes[order]
    begins = np.r_[True, ordered[1:] != ordered[:-1]]
    places = np.arange(len(nodes))
    nth = places - np.maximum.accumulate(np.where(begins, places, 0))
    new = nth % LABELS == 0
    rows, columns = np.empty(len(nodes), np.int64), np.empty(len(nodes), np.int64)
    rows[order], columns[order] = np.cumsum(new) - 1, nth % LABELS
    return order[new], rows, columns


def _ladder(largest: int) -> list[int]:
    """64, 128, ... up to the largest size of a pass."""
    sizes = [TOKENS]
    while sizes[-1] < largest:
        sizes.append(min(2 * sizes[-1], largest))
    return sizes
