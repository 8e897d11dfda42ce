"""Feeds texts and single tokens to a model with a cache, in rows that do not depend on each other.

There are graphs for a chunk of one row (forward.Feed), for a token of every row (forward.Step), for the
logits after one or all tokens of a chunk (forward.Lines), and for copying or clearing a row. Their shapes are
fixed, so nothing is compiled for a new length or prompt. Where a kernel computes a token
(model.fused_network), no graph does. Knows ids, slots and documents; nothing of sampling or text.
Letters: B rows, P pinned rows, S new tokens, C slots for tokens, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from mindspore import Tensor, nn

from pangu_alpha.inference.cached_rows import CachedRows
from pangu_alpha.inference.caches import Caches
from pangu_alpha.inference.forward import ClearRow, CopyRow, Feed, Lines, Step
from pangu_alpha.model.cache import places_of
from pangu_alpha.model.fused_network import token_kernel
from pangu_alpha.model.pangu import PanguAlpha

CHUNK = 64  # ids of a call; every server has the same number, or bits would depend on how texts are divided
SHORT = 32  # ids of a call for the last chunk of a text, if it is as short as that


class Decoder:
    """A model with a cache of B rows that are stepped together, and P pinned rows that are never stepped.

    Each row has one slot more than the context, the spill slot: padding and rows that are not active are
    computed too, and write there. So no call changes what belongs to a row that it is not for, and what a row
    gives does not depend on what other rows hold or do, bit for bit.

    Args:
        model: Gets caches of all slots in every attention, which `close` removes. Its weights must not change
            until then.
        end_of_document: Id after which positions restart at 0 and nothing earlier is attended to.
        rows: Number of rows B, all of which every step computes.
        context: Number of slots C, at most the model's sequence length, which is the default. A smaller
            context takes less memory, and on Ascend less time, because attention reads all slots there.
        pinned: Number of rows P, with the numbers B to B+P-1.

    Raises:
        ValueError: The context does not fit the model, the cache does not fit into memory, or another decoder
            holds the model.
    """

    chunk = CHUNK

    def __init__(
        self,
        model: PanguAlpha,
        end_of_document: int,
        rows: int = 1,
        context: int | None = None,
        pinned: int = 0,
    ) -> None:
        limit = model.config.seq_length
        self.context = limit if context is None else context
        if not 1 <= self.context <= limit:
            raise ValueError(f"context: {context} must lie between 1 and the model's sequence length {limit}")
        self.model, self.rows, self.pinned = model, rows, pinned
        self.vocab_size = model.config.vocab_size
        self._cached = CachedRows(rows + pinned, self.context, end_of_document)
        slots = self.context + 1
        # The kernel of attention takes a call with as many keys as queries for one without a cache.
        slots += slots in (SHORT, CHUNK)
        self.caches = Caches(model, rows + pinned, slots, "decoder")
        self.caches.attach()
        self._token = token_kernel(model, [cache.table for cache in self.caches.cells], rows)
        self.cells: dict[str, nn.Cell] = {
            "feed": Feed(model, slots),
            "score": Lines(model),
            "step": Step(model, slots),
            "copy": CopyRow(self.caches.cells),
            "clear": ClearRow(self.caches.cells),
        }
        self._graphs: list[str] = []
        self._table = Tensor.from_numpy(model.word_embedding.table.asnumpy())

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of all graphs compiled so far; after `warm_up` none is added."""
        return tuple(self._graphs)

    def warm_up(self) -> dict[str, float]:
        """Compiles all graphs, and takes the memory of the caches; changes no row.

        Returns:
            Seconds of the first call of each graph, and of a step, by name.
        """
        none, nothing = np.zeros(self.rows, np.int32), np.zeros(0, np.int32)
        works: dict[str, Callable[[], object]] = {}
        for size in (SHORT, CHUNK):
            works[f"feed {size}"] = partial(self._feed, 0, nothing, nothing, 0, size)
        for size in (1, SHORT, CHUNK):
            hidden = Tensor(np.zeros((size, self.model.config.hidden_size)), self.model.compute_dtype)
            works[f"score {size}"] = partial(self._lines, hidden)
        spill = none + self.context
        works["step"] = partial(self._step, none, spill, spill, np.arange(self.rows))
        works["copy"] = partial(self._copy, 0, 0, 0)
        works["clear"] = partial(self._compile, "clear", "clear", np.zeros(1, np.int32))
        if self._token is not None:
            self._token.take_memory()
        return {name: _seconds(work) for name, work in works.items()}

    def feed(self, row: int, ids: Sequence[int], start: int) -> np.ndarray:
        """Puts ids into a row's slots from `start` on; what the row held from there on is forgotten.

        Args:
            row: Any row, pinned ones included.
            ids: 1 to 64 of them, which do not cross a multiple of 64 slots.
            start: Any slot up to the row's length. With the kernels in C++, the parts in which a text is fed
                change no bit of what it gives; with other operators those may that end within the first 32
                slots of a chunk, because a smaller graph computes them.

        Returns:
            float32 [V], logits after the last id.
        """
        return self._lines(self._write(row, ids, start)[0]).asnumpy()[0]

    def write(self, row: int, ids: Sequence[int], start: int) -> bool:
        """As `feed`, without the logits, for which the whole word table is read.

        Returns:
            Whether all numbers that the network has computed for the ids are finite, as far as its last
            hidden states show.
        """
        hidden = self._write(row, ids, start)[
            1
        ].asnumpy()  # waits: a step's kernel reads the caches by itself
        return bool(np.isfinite(hidden[: len(ids)].astype(np.float32)).all())

    def score(self, row: int, ids: Sequence[int], start: int) -> np.ndarray:
        """As `feed`, but returns the logits after every id.

        Returns:
            float32 [n, V]; the last line is what `feed` returns. The others may differ from what `feed` would
            return after them in the last bits, because a product of many rows adds up in another order.
        """
        last, hidden = self._write(row, ids, start)
        lines = self._lines(hidden).asnumpy()[: len(ids)]
        lines[-1] = self._lines(last).asnumpy()[0]
        return lines

    def step(self, tokens: Sequence[int], active: Sequence[bool]) -> np.ndarray:
        """Adds one token to every active row, which must have room for it.

        Args:
            tokens: B ids; those of inactive rows do not matter.
            active: B flags; inactive rows keep all that they hold.

        Returns:
            float32 [B, V], logits after each token; without meaning for inactive rows.
        """
        ids = np.where(active, np.asarray(tokens, np.int32), 0)
        slots, starts = self._cached.step(ids, np.asarray(active, bool))
        return self._step(ids, slots, starts, np.flatnonzero(active))

    def copy(self, source: int, row: int, length: int) -> None:
        """Makes a row the first `length` slots of another one; either may be pinned."""
        self._cached.copy(source, row, length)
        self._copy(source, row, length)

    def clear(self, row: int) -> None:
        """Empties a row that may hold numbers which are not finite, as no other method does."""
        self._cached.copy(row, row, 0)
        self._run("clear", "clear", np.array([row], np.int32)).asnumpy()

    def length(self, row: int) -> int:
        """Number of slots of a row that hold tokens."""
        return int(self._cached.lengths[row])

    def has_room(self, row: int) -> bool:
        """Whether a row can take another token."""
        return self.length(row) < self.context

    def close(self) -> None:
        """Removes the caches from the model."""
        self.caches.detach()

    def _write(self, row: int, ids: Sequence[int], start: int) -> tuple[Tensor, Tensor]:
        end = start % CHUNK + len(ids)
        assert end <= CHUNK, f"{len(ids)} ids from slot {start} on cross a border of chunks"
        given = np.asarray(ids, np.int32)
        starts = self._cached.write(row, given, start)
        # By the place of its end, so that the short graph is used for the beginning of a chunk alone.
        return self._feed(row, given, starts, start, SHORT if end <= SHORT else CHUNK)

    def _feed(
        self, row: int, ids: np.ndarray, starts: np.ndarray, start: int, size: int
    ) -> tuple[Tensor, Tensor]:
        """Runs a chunk, padded to `size`; the hidden state of its last id, and those of all."""
        count = len(ids)
        every = np.zeros((4, 1, size), np.int32)  # ids; slots and starts that they attend to; slots to write
        every[0, 0, :count] = ids
        every[1, 0] = start + np.minimum(np.arange(size), max(count, 1) - 1)
        every[2, 0, :count], every[2, 0, count:] = starts, starts[-1] if count else start
        every[3, 0, :count], every[3, 0, count:] = every[1, 0, :count], self.context
        places = places_of(every[3], self.model.config.num_heads, row)
        last = np.array([max(count, 1) - 1], np.int32)
        return self._run("feed", f"feed {size}", every[0], every[1], every[2], places, last)

    def _step(self, ids: np.ndarray, slots: np.ndarray, starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Runs a token of every row, or with a kernel of the given `rows`; the others are int32 [B]."""
        if self._token is not None:
            places = np.column_stack([np.arange(self.rows), slots, starts])
            if len(rows) == self.rows:
                return self._token(ids, places)
            logits = np.zeros((self.rows, self.vocab_size), np.float32)
            logits[rows] = self._token(ids[rows], places[rows])
            return logits
        places = places_of(slots[:, None], self.model.config.num_heads)
        every = (each[:, None] for each in (ids, slots, starts))
        return self._run("step", "step", *every, places, self._table).asnumpy()

    def _lines(self, hidden: Tensor) -> Tensor:
        return self._run("score", f"score {hidden.shape[0]}", hidden, self._table)

    def _copy(self, source: int, row: int, length: int) -> None:
        self._run("copy", "copy", np.array([source, row, length], np.int32)).asnumpy()

    def _run(self, kind: str, name: str, *inputs: np.ndarray | Tensor):  # -> what the cell gives
        cell = self.cells[kind]
        known = len(cell.compile_cache)
        found = cell(*_tensors(inputs))
        if len(cell.compile_cache) > known:
            self._compiled(name)
        return found

    def _compile(self, kind: str, name: str, *inputs: np.ndarray | Tensor) -> None:
        """Compiles what `_run` would run."""
        cell = self.cells[kind]
        known = len(cell.compile_cache)
        cell.compile(*_tensors(inputs))
        if len(cell.compile_cache) > known:
            self._compiled(name)

    def _compiled(self, name: str) -> None:
        self._graphs.append(name)
        if self._token is not None:
            self._token.look_up()


def _tensors(inputs: Sequence[np.ndarray | Tensor]) -> list[Tensor]:
    return [Tensor(each) if isinstance(each, np.ndarray) else each for each in inputs]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    found = work()
    for each in found if isinstance(found, tuple) else (found,):
        if isinstance(each, Tensor):
            each.asnumpy()  # the graph runs while Python goes on
    return time.perf_counter() - began
