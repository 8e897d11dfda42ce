"""TensorBoard's copy of a run's metrics, whose loss never stops or ends the run.

tensorboardX 2.6 writes in a thread and says nothing when an error has ended it; once its queue is full,
whoever adds to it waits for ever.
"""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

_QUEUE = 1000  # scalars; room for those that are added before the thread's end is noticed


class Events:
    """Writes scalars for TensorBoard.

    Args:
        folder: Of the event files.
        step: Steps done before; TensorBoard hides what a process that was killed wrote beyond it.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX import SummaryWriter  # after mindspore: both bring a protobuf

        self._folder = folder
        self._writer = SummaryWriter(str(folder), purge_step=step + 1, max_queue=_QUEUE)
        self._thread = self._writer.file_writer.event_writer._worker  # nothing public tells that it lives

    def add(self, name: str, value: float, step: int) -> None:
        """Adds a scalar; a warning instead if the disk has not taken earlier ones."""
        if self._writer is None:
            return
        if self._thread.is_alive():
            self._writer.add_scalar(name, value, step)
        else:
            self._lose("the disk did not take them")

    def close(self) -> None:
        """Writes the rest."""
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
