"""The bound of the queue, counted in the front so that a refusal needs no tick of the engine."""

from __future__ import annotations

from dataclasses import dataclass

from pangu_alpha.serving.wire.errors import ApiError

_RETRY = 2.0  # seconds; a guess of the time in which a slot or two go free


@dataclass
class Ticket:
    """One admitted request.

    Args:
        left: Samples that have no slot yet.
        tokens: Ids of its prompts.
        running: Samples that have a slot.
    """

    left: int
    tokens: int
    running: int = 0


class Admission:
    """Counts what waits and what runs.

    Args:
        slots: Continuations that run at once.
        queue: Requests that may wait.
        queue_tokens: Prompt tokens that may wait.
    """

    def __init__(self, slots: int, queue: int, queue_tokens: int) -> None:
        self._slots, self._queue, self._queue_tokens = slots, queue, queue_tokens
        self._tickets: list[Ticket] = []

    @property
    def waiting(self) -> int:
        """Number of requests of which a sample has no slot yet."""
        return sum(ticket.left > 0 for ticket in self._tickets)

    @property
    def running(self) -> int:
        """Number of samples that have a slot."""
        return sum(ticket.running for ticket in self._tickets)

    @property
    def open(self) -> int:
        """Number of requests that have not ended."""
        return len(self._tickets)

    @property
    def full(self) -> bool:
        """Whether one more request of a single sample would be refused."""
        return not self._fits(1, 1)

    def enter(self, samples: int, tokens: int) -> Ticket:
        """Admits a request.

        Args:
            samples: Of all its prompts together.
            tokens: Ids of its prompts.

        Raises:
            ApiError: The queue is full (429).
        """
        if not self._fits(samples, tokens):
            queued = len(self._after_free_slots()[1])
            raise ApiError(
                429,
                f"the server is busy: {queued} requests are waiting; try again later",
                "queue_full",
                retry_after=_RETRY,
            )
        ticket = Ticket(samples, tokens)
        self._tickets.append(ticket)
        return ticket

    def started(self, ticket: Ticket) -> None:
        """A sample has got a slot."""
        ticket.left -= 1
        ticket.running += 1

    def ended(self, ticket: Ticket) -> None:
        """A sample that had a slot has ended."""
        ticket.running -= 1

    def leave(self, ticket: Ticket) -> None:
        """The request has ended, however it did."""
        self._tickets = [each for each in self._tickets if each is not ticket]

    def _fits(self, samples: int, tokens: int) -> bool:
        free, queued = self._after_free_slots()
        if samples <= free:
            return True
        held = sum(ticket.tokens for ticket in queued)
        # A request that is alone may be as large as it likes: nothing stands in its way.
        return not self._tickets or (len(queued) < self._queue and held + tokens <= self._queue_tokens)

    def _after_free_slots(self) -> tuple[int, list[Ticket]]:
        """The slots that nobody here takes, and the requests that wait although the free ones are given out.

        The engine gives them out in its next tick only. Requests that come before it would otherwise find the
        queue full of those that need not wait in it.
        """
        free, queued = self._slots - self.running, []
        for ticket in self._tickets:
            if ticket.left > free:
                queued.append(ticket)
            free = max(0, free - ticket.left)
        return free, queued
