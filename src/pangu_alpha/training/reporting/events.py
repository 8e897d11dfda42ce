"""Writes a run's metrics for TensorBoard; losing them never delays or ends the run.

tensorboardX 2.6 writes in a thread and does not report an error that has ended it; once its queue is full,
a caller that adds to it waits forever. This module can shrink when a later version reports such errors.
"""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

_QUEUE = 1000  # scalars; room for those that are added before the end of the thread is noticed


class Events:
    """Writes scalars for TensorBoard.

    Args:
        folder: Folder of the event files.
        step: Number of steps done before; TensorBoard hides later values, which a killed process wrote.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX import SummaryWriter  # imported after mindspore, because both bring a protobuf

        self._folder = folder
        self._writer = SummaryWriter(str(folder), purge_step=step + 1, max_queue=_QUEUE)
        self._thread = self._writer.file_writer.event_writer._worker  # no public attribute shows if it lives

    def add(self, name: str, value: float, step: int) -> None:
        """Adds a scalar, or logs a warning if the disk did not take earlier ones."""
        if self._writer is None:
            return
        if self._thread.is_alive():
            self._writer.add_scalar(name, value, step)
        else:
            self._lose("the disk did not take them")

    def close(self) -> None:
        """Writes the remaining scalars."""
        if self._writer is None or not self._thread.is_alive():
            return
        try:
            self._writer.close()
        except OSError as error:
            self._lose(error.strerror)

    def _lose(self, reason: str | None) -> None:
        self._writer = None
        logger.warning(
            "%s: no more events for TensorBoard (%s); metrics.jsonl has all of them", self._folder, reason
        )
