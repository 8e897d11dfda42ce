"""Limits a minute, as buckets that fill evenly. Tokens are taken by an estimate, and settled at the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pangu_alpha.serving.access.keys import Key
from pangu_alpha.serving.wire.errors import ApiError

_MINUTE = 60.0


@dataclass
class Bucket:
    """Holds at most `size`, and fills completely in a minute.

    Args:
        level: What it holds; below 0 after an estimate that was too low.
        at: Time at which it held that.
    """

    size: int
    level: float
    at: float

    def fill(self, now: float) -> None:
        """Brings the level up to the present."""
        self.level = min(self.size, self.level + (now - self.at) * self.size / _MINUTE)
        self.at = now

    def wait(self, amount: float) -> float:
        """Seconds until it holds an amount; more than it can hold counts as all that it can."""
        return max(0.0, (min(amount, self.size) - self.level) * _MINUTE / self.size)

    @property
    def reset(self) -> float:
        """Seconds until it is full."""
        return (self.size - self.level) * _MINUTE / self.size


class Limiter:
    """The limits of all keys.

    Args:
        clock: Seconds from any fixed time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[str, dict[str, Bucket]] = {}

    def take(self, key: Key | None, tokens: int) -> dict[str, str]:
        """Takes one request and its estimated tokens.

        Returns:
            Headers that tell the client what is left.

        Raises:
            ApiError: A limit is reached (429); nothing was taken.
        """
        buckets = self._of(key)
        wanted = {"requests": 1, "tokens": tokens}
        waits = {name: bucket.wait(wanted[name]) for name, bucket in buckets.items()}
        name = max(waits, key=lambda each: waits[each], default="")
        if name and waits[name] > 0:
            limit = buckets[name].size
            raise ApiError(
                429,
                f"this key may use {limit} {name} a minute; try again in {math.ceil(waits[name])} s",
                "rate_limit_exceeded",
                retry_after=math.ceil(waits[name]),
                headers=_headers(buckets),
            )
        for name, bucket in buckets.items():
            bucket.level -= min(wanted[name], bucket.size)
        return _headers(buckets)

    def settle(self, key: Key | None, estimated: int, used: int) -> None:
        """Gives back what a request did not use of its estimate."""
        if bucket := self._of(key).get("tokens"):
            bucket.level = min(bucket.size, bucket.level + min(estimated, bucket.size) - used)

    def _of(self, key: Key | None) -> dict[str, Bucket]:
        if key is None:
            return {}
        now = self._clock()
        if key.name not in self._buckets:
            sizes = {"requests": key.requests, "tokens": key.tokens}
            self._buckets[key.name] = {
                name: Bucket(size, size, now) for name, size in sizes.items() if size is not None
            }
        for bucket in self._buckets[key.name].values():
            bucket.fill(now)
        return self._buckets[key.name]


def _headers(buckets: dict[str, Bucket]) -> dict[str, str]:
    found = {}
    for name, bucket in buckets.items():
        found[f"x-ratelimit-limit-{name}"] = str(bucket.size)
        found[f"x-ratelimit-remaining-{name}"] = str(max(0, int(bucket.level)))
        found[f"x-ratelimit-reset-{name}"] = f"{bucket.reset:.1f}s"
    return found
