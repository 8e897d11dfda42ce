"""A sample of a request from the moment that it has a row to its end."""

from __future__ import annotations

from pangu_alpha.inference.engine.waiting import Job
from pangu_alpha.inference.sampling import Sampler


class Run:
    """A sample that has a row."""

    def __init__(self, job: Job, sample: int, row: int, sampler: Sampler, now: float) -> None:
        self.job, self.sample, self.row, self.sampler = job, sample, row, sampler
        self.fed = 0  # ids of the prompt that the row holds
        self.cached = 0
        self.generated = 0
        self.token = 0  # the last one, which the row does not hold yet
        self.damaged = False  # whether logits were not finite, so that the row may hold such numbers
        self.started = now
        self.prefilled = now

    @property
    def in_prefill(self) -> bool:
        """Whether a part of the prompt must still be computed."""
        return self.fed < len(self.job.request.prompt)
