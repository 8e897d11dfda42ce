"""Saves beside the training: an update waits only until the arrays are copied; a thread writes the copies.

Knows arrays and a function that writes them, but neither folders nor models.
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

_COPIERS = 4  # threads; a single one cannot use a server's whole memory bandwidth
Entry = tuple[str, str, np.ndarray]  # stem, name, values
Spec = tuple[str, str, tuple[int, ...], Any]  # stem, name, shape, numpy type
Write = Callable[[Mapping[str, Mapping[str, np.ndarray]], Manifest], Path]


@dataclass(frozen=True)
class Saved:
    """A finished save.

    Args:
        path: The value that `write` returned.
        step: Training step of the checkpoint.
        held: Time for which the training stood still. Unit: seconds.
        took: Time from the beginning to the last byte on disk. Unit: seconds.
    """

    path: Path
    step: int
    held: float
    took: float


class BackgroundSaver:
    """Saves one checkpoint at a time. A `with` block waits at its end for the last save.

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
            logger.error("the checkpoint under way failed, too: %s", failure)  # the first one is raised
        finally:
            self._thread.shutdown()
            self._copiers.shutdown()

    def reserve(self, specs: Iterable[Spec]) -> None:
        """Allocates the copies of such arrays in the thread; otherwise the first save does.

        Writing a memory page for the first time takes many times as long as writing it again.
        """
        if self._background:
            self._reserving = self._thread.submit(self._reserve, [*specs])

    def save(self, arrays: Iterable[Entry], manifest: Manifest) -> Saved | None:
        """Begins a save, or completes it if there is no background; first waits for a save under way.

        Args:
            arrays: What to save; their values must not change before `copied` has returned.

        Returns:
            The previous save, unless `finished` or `wait` has already returned it.

        Raises:
            CheckpointError: The previous save failed. A failure of this one is raised by `finished` or
                `wait`.
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
        """Waits until the arrays of the last save have been copied and may change."""
        began = time.perf_counter()
        for copy in self._copies:
            copy.result()
        self._copies = []
        self._held += time.perf_counter() - began

    def finished(self) -> Saved | None:
        """Returns the save that was under way if it has ended since, otherwise None.

        Raises:
            CheckpointError: The save failed.
        """
        return self.wait() if self._running is not None and self._running.done() else None

    def wait(self) -> Saved | None:
        """Waits for the save that is under way and returns it; None if there is none.

        Raises:
            CheckpointError: The save failed.
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
        queue = iter(pairs)  # shared: submitting each pair would take longer than copying most of them
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
