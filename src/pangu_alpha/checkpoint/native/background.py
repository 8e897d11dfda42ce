"""Saving beside the training: the arrays are copied, which is all an update waits for; a thread writes them.

Knows arrays and a function that writes them; nothing of folders or models.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.checkpoint.native.format import Manifest

logger = logging.getLogger(__name__)

_COPIERS = 4  # threads; one does not take all of a server's memory bandwidth
Entry = tuple[str, str, np.ndarray]  # stem, name, values
Spec = tuple[str, str, tuple[int, ...], Any]  # stem, name, shape, numpy type
Write = Callable[[Mapping[str, Mapping[str, np.ndarray]], Manifest], Path]


@dataclass(frozen=True)
class Saved:
    """A finished save.

    Args:
        path: What `write` returned.
        step: Of the training.
        held: How long the training stood still for it. Unit: seconds.
        took: From its beginning to the last byte on the disk. Unit: seconds.
    """

    path: Path
    step: int
    held: float
    took: float


class BackgroundSaver:
    """Saves one checkpoint at a time; to be used in a `with` block, whose end waits for the last one.

    Args:
        write: Writes arrays by stem and name and a manifest, such as CheckpointStore.save; runs in a thread.
        background: False writes before `save` returns, without a copy.
    """

    def __init__(self, write: Write, background: bool = True) -> None:
        self._write = write
        self._background = background
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._copiers = ThreadPoolExecutor(_copiers(), "checkpoint copy")
        self._reserving: Future[None] | None = None
        self._running: Future[tuple[Path, int, float]] | None = None
        self._copies: list[Future[None]] = []
        self._held = 0.0  # seconds
        self._buffers: dict[str, dict[str, np.ndarray]] = {}

    def __enter__(self) -> BackgroundSaver:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            logger.error("the checkpoint under way failed, too: %s", failure)  # not instead of the first
        finally:
            self._thread.shutdown()
            self._copiers.shutdown()

    def reserve(self, specs: Iterable[Spec]) -> None:
        """Makes room for copies of such arrays, in the thread; without it the first save does.

        A page that is written for the first time costs many times a page that is written again.
        """
        if self._background:
            self._reserving = self._thread.submit(self._reserve, [*specs])

    def save(self, arrays: Iterable[Entry], manifest: Manifest) -> Saved | None:
        """Begins a save, or does it all where there is no background; waits for one that is under way.

        Args:
            arrays: What to save; their values must not change before `copied` has returned.
            manifest: What to say about them.

        Returns:
            The save before, where nobody has asked for it yet.

        Raises:
            CheckpointError: The save before failed. That of this one comes from `finished` or `wait`.
        """
        began = time.perf_counter()
        if self._running is not None and not self._running.done():
            logger.info("the checkpoint before is still being written: waiting for it")
        before = self.wait()
        if self._reserving is not None:
            self._reserving.result()
            self._reserving = None
        taken = self._copy(arrays) if self._background else _grouped(arrays)
        self._running = self._thread.submit(self._save, taken, manifest, [*self._copies], began)
        if not self._background:
            self._running.exception()  # waits
        self._held = time.perf_counter() - began
        return before

    def copied(self) -> None:
        """Returns when nothing more is read from the arrays of the last save."""
        began = time.perf_counter()
        for copy in self._copies:
            copy.result()
        self._copies = []
        self._held += time.perf_counter() - began

    def finished(self) -> Saved | None:
        """The save that was under way, if it has ended since.

        Raises:
            CheckpointError: It failed.
        """
        return self.wait() if self._running is not None and self._running.done() else None

    def wait(self) -> Saved | None:
        """The save that is under way, when it has ended; None where there is none.

        Raises:
            CheckpointError: It failed.
        """
        running, self._running = self._running, None
        if running is None:
            return None
        path, step, took = running.result()
        return Saved(path, step, self._held, took)

    def _save(
        self,
        arrays: Mapping[str, Mapping[str, np.ndarray]],
        manifest: Manifest,
        copies: Iterable[Future[None]],
        began: float,
    ) -> tuple[Path, int, float]:
        for copy in copies:
            copy.result()
        path = self._write(arrays, manifest)
        return path, manifest.step, time.perf_counter() - began

    def _reserve(self, specs: Iterable[Spec]) -> None:
        for stem, name, shape, dtype in specs:
            buffer = self._buffers.setdefault(stem, {})[name] = np.empty(shape, dtype)
            buffer[...] = 0

    def _copy(self, arrays: Iterable[Entry]) -> dict[str, dict[str, np.ndarray]]:
        copies: dict[str, dict[str, np.ndarray]] = {}
        pairs: list[tuple[np.ndarray, np.ndarray]] = []
        for stem, name, array in arrays:
            buffers = self._buffers.setdefault(stem, {})
            buffer = buffers.get(name)
            if buffer is None or buffer.shape != array.shape or buffer.dtype != array.dtype:
                buffer = buffers[name] = np.empty(array.shape, array.dtype)
            pairs.append((buffer, array))
            copies.setdefault(stem, {})[name] = buffer
        queue = iter(pairs)  # shared: handing over each pair would take longer than copying most of them
        self._copies = [self._copiers.submit(_copy_all, queue) for _ in range(_copiers())]
        return copies


def _copiers() -> int:
    return min(_COPIERS, os.cpu_count() or 1)


def _copy_all(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
    for buffer, array in pairs:
        np.copyto(buffer, array)


def _grouped(arrays: Iterable[Entry]) -> dict[str, dict[str, np.ndarray]]:
    groups: dict[str, dict[str, np.ndarray]] = {}
    for stem, name, array in arrays:
        groups.setdefault(stem, {})[name] = array
    return groups
