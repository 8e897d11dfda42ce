"""Shows how far an evaluation is and how long it will take."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

logger = logging.getLogger(__name__)

_EVERY = 30.0  # seconds between two lines where there is no terminal


class Progress:
    """A bar on a terminal, else a line now and then.

    Args:
        groups: Number of groups of items in all.
    """

    def __init__(self, groups: int) -> None:
        self._groups, self._done, self._computed, self._items = groups, 0, 0, 0
        self._began = self._last = time.monotonic()
        self._shown = sys.stderr.isatty()
        self._bar = tqdm(total=groups, unit="group", disable=not self._shown)

    def skip(self, groups: int) -> None:
        """Counts groups that were there before."""
        self._done += groups
        self._bar.update(groups)

    def step(self, title: str, items: int) -> None:
        """Counts a group that was computed."""
        self._done, self._computed, self._items = self._done + 1, self._computed + 1, self._items + items
        self._bar.set_description(title, refresh=False)
        self._bar.update(1)
        now = time.monotonic()
        if not self._shown and (now - self._last >= _EVERY or self._computed == 1):
            self._last = now
            logger.info("%s", self._line(title, now))

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()

    def _line(self, title: str, now: float) -> str:
        seconds = max(now - self._began, 1e-9)
        left = int(seconds / self._computed * (self._groups - self._done))
        rate = self._items / seconds
        return f"{title}: {self._done}/{self._groups} groups, {rate:.1f} items/s, {_duration(left)} left"


def _duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
