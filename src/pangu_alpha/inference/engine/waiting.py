"""The queue of samples that wait for a row: first come, first served within a key, and keys take turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pangu_alpha.inference.engine.requests import Limits, QueueFullError, Request, Score


@dataclass(eq=False)
class Job:
    """A request with what is known of it so far.

    Args:
        submitted: Time of the clock.
        waiting: Samples without a row yet.
        open: Samples that have not ended.
        logits: Those after the prompt, while samples wait that need them.
        scores: Of the prompt's ids from the second one on.
        scored: Whether they were given out.
        finite: Whether all that was computed of the prompt so far is finite.
    """

    number: int
    request: Request
    submitted: float
    waiting: deque[int]
    open: set[int]
    logits: np.ndarray | None = None
    scores: list[Score] = field(default_factory=list)
    scored: bool = False
    finite: bool = True

    @property
    def deadline(self) -> float:
        """Time of the clock at which the request is given up."""
        timeout = self.request.timeout
        return float("inf") if timeout is None else self.submitted + timeout


class WaitingQueue:
    """Jobs of which samples wait.

    Args:
        limits: Checked by `check` only.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._keys: dict[str, deque[Job]] = {}  # the key whose turn it is comes first
        self.requests = 0
        self.tokens = 0

    def check(self, request: Request, free: int) -> None:
        """Refuses a request for which there is no room.

        Args:
            free: Number of rows that the next tick gives out. Who gets one does not count as waiting, or a
                request would be refused because others came in the same moment.

        Raises:
            QueueFullError: As it says.
        """
        limits = self._limits
        if limits == Limits():
            return
        free, requests, tokens = self._after(free)
        if request.samples <= free:
            return
        if limits.requests is not None and requests >= limits.requests:
            raise QueueFullError(
                f"the queue is full: {requests} requests are waiting, and {limits.requests} may; "
                "try again later",
                "requests",
            )
        if limits.tokens is not None and tokens + request.tokens > limits.tokens:
            raise QueueFullError(
                f"the queue is full: requests of {tokens} tokens are waiting, so that one of "
                f"{request.tokens} would exceed the limit of {limits.tokens}; try again later",
                "tokens",
            )

    def _after(self, free: int) -> tuple[int, int, int]:
        """What is left when free rows have been given out: such rows, waiting requests and their tokens."""
        requests, tokens = self.requests, self.tokens
        turns = deque(deque(job for job in jobs for _ in job.waiting) for jobs in self._keys.values())
        while free and turns:  # as `pop` does it
            samples = turns.popleft()
            job = samples.popleft()
            free -= 1
            if not samples or samples[0] is not job:
                requests -= 1
                tokens -= job.request.tokens
            if samples:
                turns.append(samples)
        return free, requests, tokens

    def add(self, job: Job) -> None:
        """Puts a job behind the others of its key."""
        self._keys.setdefault(job.request.key, deque()).append(job)
        self.requests += 1
        self.tokens += job.request.tokens

    def pop(self) -> tuple[Job, int] | None:
        """Takes the next sample, or None if nothing waits; the next turn is another key's."""
        if not self._keys:
            return None
        key = next(iter(self._keys))
        job = self._keys[key][0]
        sample = job.waiting.popleft()
        if not job.waiting:
            self.remove(job)
        if key in self._keys:
            self._keys[key] = self._keys.pop(key)  # to the end
        return job, sample

    def drop(self, job: Job, samples: Iterable[int]) -> None:
        """Removes waiting samples of a job."""
        if not job.waiting:
            return
        gone = set(samples)
        job.waiting = deque(each for each in job.waiting if each not in gone)
        if not job.waiting:
            self.remove(job)

    def remove(self, job: Job) -> None:
        """Removes a job that waits."""
        jobs = self._keys[job.request.key]
        jobs.remove(job)
        if not jobs:
            del self._keys[job.request.key]
        self.requests -= 1
        self.tokens -= job.request.tokens
