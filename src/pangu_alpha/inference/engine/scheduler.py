"""The engine: one loop for all generation, in ticks, over the rows of one decoder.

A tick drops what was cancelled or has expired, gives free rows to what waits, computes one chunk of the
oldest unfinished prompt, and adds one token to every row whose prompt was complete before. So a running row
never waits longer than a chunk and a step. Knows ids only; in tests, a fake decoder replaces the network.

What a sample becomes is a function of its request and the decoder: what a row gets in a step does not depend
on the others, prompts are computed in chunks that begin at multiples of the chunk's size, and cached prefixes
end there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence

import numpy as np

from pangu_alpha.inference.engine.prefixes import Place, Rows
from pangu_alpha.inference.engine.requests import (
    Counts,
    Event,
    Finished,
    Limits,
    PromptScores,
    QueueFullError,
    Reason,
    RefusedError,
    Request,
    Started,
    Token,
    Usage,
    problems,
)
from pangu_alpha.inference.engine.row_decoder import RowDecoder
from pangu_alpha.inference.engine.runs import Run
from pangu_alpha.inference.engine.scores import scores_of
from pangu_alpha.inference.engine.waiting import Job, WaitingQueue
from pangu_alpha.inference.sampling import NotFiniteError, Sampler


class Engine:
    """Continues prompts of requests that may come and go at any time.

    Args:
        stop_ids: End a continuation, and are not given out.
        banned: Ids that are never generated.
        limits: Of what may wait for a row.
        clock: Seconds; read once a tick, for timeouts and the times in Usage.
    """

    def __init__(
        self,
        decoder: RowDecoder,
        stop_ids: Collection[int],
        banned: Collection[int] = (),
        limits: Limits = Limits(),  # noqa: B008  it is frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.decoder = decoder
        self.counts = Counts()
        self._stop_ids = frozenset(stop_ids)
        self._banned = np.zeros(decoder.vocab_size, bool)
        self._banned[list(banned)] = True
        self._clock = clock
        self._now = clock()
        self._queue = WaitingQueue(limits)
        self._rows = Rows(decoder.rows, decoder.pinned, decoder.chunk)
        self._unpinned = deque(self._rows.pins)
        self._jobs: dict[int, Job] = {}
        self._runs: list[Run] = []  # in the order in which they got their rows
        self._deadlines: dict[int, float] = {}
        self._cancelled: list[tuple[int, int | None]] = []

    @property
    def busy(self) -> bool:
        """Whether a tick would do anything."""
        return bool(self._jobs)

    @property
    def running(self) -> int:
        """Number of rows in use."""
        return len(self._runs)

    @property
    def waiting(self) -> int:
        """Number of requests of which a sample waits for a row."""
        return self._queue.requests

    @property
    def waiting_tokens(self) -> int:
        """What these may take, as `Limits` counts it."""
        return self._queue.tokens

    @property
    def used_slots(self) -> int:
        """Number of the cache's slots that running requests fill, of `decoder.rows * decoder.context`."""
        return sum(len(self._rows.held[run.row].text) for run in self._runs)

    def submit(self, request: Request) -> int:
        """Queues a request.

        Returns:
            Its number, which all its events bear.

        Raises:
            RefusedError: Lists everything for which the request can never be computed.
            QueueFullError: Too much is waiting already.
        """
        if found := list(problems(request, self.decoder.context, self._banned)):
            raise RefusedError("; ".join(found))
        try:
            self._queue.check(request, len(self._rows.idle))
        except QueueFullError as error:
            self.counts.rejected[error.limit] += 1
            raise
        number = self.counts.submitted
        self.counts.submitted += 1
        samples = range(request.first_sample, request.first_sample + request.samples)
        job = Job(number, request, self._clock(), deque(samples), set(samples))
        self._jobs[number] = job
        if request.timeout is not None:
            self._deadlines[number] = job.deadline
        self._queue.add(job)
        return number

    def cancel(self, number: int, sample: int | None = None) -> None:
        """Gives up a request or one of its samples, before the next tick computes anything.

        No event of it follows. A request that has ended or never was is no error.
        """
        self._cancelled.append((number, sample))

    def pin(self, ids: Sequence[int]) -> int:
        """Computes the beginning of texts to come into a row that is kept for it, for all keys.

        Returns:
            How many of the ids were computed: whole chunks only, as far as they fit; 0 if the network's
            numbers for them are not finite.

        Raises:
            RefusedError: No row is left for it.
        """
        if not self._unpinned:
            raise RefusedError(
                f"all {self.decoder.pinned} pinned rows are taken; give the decoder more of them"
            )
        chunk = self.decoder.chunk
        length = min(len(ids), self.decoder.context) // chunk * chunk
        row = self._unpinned.popleft()
        for start in range(0, length, chunk):
            if not self.decoder.write(row, ids[start : start + chunk], start):
                self._clear(row)
                self._unpinned.appendleft(row)
                return 0
            self._rows.fed(row, ids[start : start + chunk], start)
        return length

    def tick(self, early: Callable[[list[Event]], None] | None = None) -> list[Event]:
        """Computes a chunk and a step at most; see the module.

        Args:
            early: Called before the step with what happened so far if there is a token in it, so that the
                first token of a text need not wait for the step of others. It must not raise.

        Returns:
            What happened, in this order, without the events that `early` got.
        """
        events: list[Event] = []
        self._now = self._clock()
        self.counts.ticks += 1
        self._drop_cancelled()
        self._drop_expired(events)
        decoding = [run for run in self._runs if not run.in_prefill]
        self._admit(events)
        self._feed(events)
        if early is not None and decoding and any(isinstance(event, Token) for event in events):
            early(events)
            events = []
        self._step(decoding, events)
        return events

    def _drop_cancelled(self) -> None:
        for number, sample in self._cancelled:
            if job := self._jobs.get(number):
                gone = job.open & ({sample} if sample is not None else job.open)
                self.counts.finished["cancelled"] += len(gone)
                self._drop(job, gone)
        self._cancelled.clear()

    def _drop_expired(self, events: list[Event]) -> None:
        for number, deadline in [*self._deadlines.items()]:
            if self._now >= deadline:
                job = self._jobs[number]
                runs = {run.sample: run for run in self._runs if run.job is job}
                for sample in sorted(job.open):
                    events.append(Finished(number, sample, "expired", self._usage(job, runs.get(sample))))
                self.counts.finished["expired"] += len(job.open)
                self._drop(job, set(job.open))

    def _drop(self, job: Job, samples: set[int]) -> None:
        self._queue.drop(job, samples)
        for run in [run for run in self._runs if run.job is job and run.sample in samples]:
            self._release(run)
        self._close(job, samples)

    def _close(self, job: Job, samples: set[int]) -> None:
        """Forgets a job when all its samples have ended."""
        job.open -= samples
        if not job.open:
            del self._jobs[job.number]
            self._deadlines.pop(job.number, None)

    def _release(self, run: Run) -> None:
        self._runs.remove(run)
        if run.damaged or not run.job.finite:
            self._clear(run.row)
        self._rows.release(run.row)

    def _clear(self, row: int) -> None:
        """Empties a row that may hold NaN.

        A sum with a weight of 0 for a slot that holds NaN is NaN as well, so the next text of the row would
        be damaged, even if it attends to none of these slots.
        """
        self.decoder.clear(row)
        self._rows.held[row].keep(0)

    def _admit(self, events: list[Event]) -> None:
        while self._rows.idle and (found := self._queue.pop()):
            job, sample = found
            place = self._place(job)
            run = Run(job, sample, place.row, self._sampler(job.request, sample), self._now)
            known = self._rows.take(place, job.request.key)
            if place.length and place.source != place.row:
                self.decoder.copy(place.source, place.row, place.length)
            run.fed = run.cached = place.length
            self._runs.append(run)
            self.counts.prompt += len(job.request.prompt)
            self.counts.cached += run.cached
            events.append(Started(job.number, sample, run.cached, self._now - job.submitted))
            if known and (top := job.request.prompt_logprobs) is not None:
                job.scores = [score._replace(top=score.top[:top]) for score in known]
            if not run.in_prefill:
                assert job.logits is not None
                self._begin(run, job.logits, events)

    def _sampler(self, request: Request, sample: int) -> Sampler:
        return Sampler(request.sampling, request.prompt, self._banned, sample, request.logit_bias)

    def _place(self, job: Job) -> Place:
        """Where the next sample goes: behind the whole prompt of another sample if one has computed it."""
        request, rows = job.request, self._rows
        if any(run.job is job and run.in_prefill for run in self._runs):
            return Place(rows.oldest(), -1, 0)  # it waits for the other one
        if job.logits is not None:
            holder = rows.holder(request.prompt, request.key)
            if holder is not None and (row := rows.oldest(but=holder)) != holder:
                return Place(row, holder, len(request.prompt))
        return rows.place(request)

    def _feed(self, events: list[Event]) -> None:
        """Computes the next chunk of the oldest unfinished prompt."""
        run = next((run for run in self._runs if run.in_prefill), None)
        if run is None:
            return
        prompt, start, chunk = run.job.request.prompt, run.fed, self.decoder.chunk
        ids = prompt[start : (start // chunk + 1) * chunk]
        logits = self._compute(run, ids, start)
        self._rows.fed(run.row, ids, start)
        run.fed += len(ids)
        self.counts.feeds += 1
        self.counts.fed += len(ids)
        if not run.job.finite:  # at once: nobody may take the prompt's beginning from this row
            for each in (run, *self._waiting_for(run)):
                self._finish(each, "not_finite", events)
        elif not run.in_prefill:
            assert logits is not None
            self._share(run, logits, events)

    def _compute(self, run: Run, ids: Sequence[int], start: int) -> np.ndarray | None:
        """Writes a part of a prompt, and scores it if the request asks for it; logits after the prompt."""
        job, top = run.job, run.job.request.prompt_logprobs
        if top is None or job.scored:
            if start + len(ids) < len(job.request.prompt):
                job.finite &= self.decoder.write(run.row, ids, start)
                return None
            logits = self.decoder.feed(run.row, ids, start)
            job.finite &= bool(np.isfinite(logits).all())
            return logits
        lines = self.decoder.score(run.row, ids, start)
        job.finite &= bool(np.isfinite(lines).all())
        if job.finite:
            predicted = job.request.prompt[start + 1 : start + len(ids) + 1]
            job.scores[start:] = scores_of(lines, predicted, top)
        return lines[-1]

    def _share(self, run: Run, logits: np.ndarray, events: list[Event]) -> None:
        """Begins to generate in a row whose prompt is complete, and in those of other samples of it."""
        job = run.job
        request = job.request
        if request.prompt_logprobs is not None and not job.scored:
            job.scored = True
            held = self._rows.held[run.row]
            held.scores, held.top = list(job.scores), request.prompt_logprobs
            events.append(PromptScores(job.number, tuple(job.scores)))
        job.logits = logits
        same = self._waiting_for(run)
        for other in same:
            self.decoder.copy(run.row, other.row, run.fed)
            self._rows.copy(run.row, other.row, run.fed)
            self.counts.cached += run.fed - other.cached
            other.fed = other.cached = run.fed
        for each in (run, *same):
            self._begin(each, logits, events)

    def _waiting_for(self, run: Run) -> list[Run]:
        """The other samples that have a row, but not yet their prompt."""
        same = [other for other in self._runs if other.job is run.job and other is not run]
        return [other for other in same if other.in_prefill]

    def _begin(self, run: Run, logits: np.ndarray, events: list[Event]) -> None:
        run.prefilled = self._clock()
        if not run.job.waiting:
            run.job.logits = None  # no other sample needs them
        if run.job.request.max_new_tokens:
            self._choose(run, logits, events)
        else:
            self._finish(run, "length", events)

    def _step(self, decoding: Sequence[Run], events: list[Event]) -> None:
        """Adds a token to rows."""
        if not decoding:
            return
        tokens, active = [0] * self.decoder.rows, [False] * self.decoder.rows
        for run in decoding:
            tokens[run.row], active[run.row] = run.token, True
        logits = self.decoder.step(tokens, active)
        self.counts.steps += 1
        for run in decoding:
            self._rows.held[run.row].text.append(run.token)
        for run in decoding:
            self._choose(run, logits[run.row], events)

    def _choose(self, run: Run, logits: np.ndarray, events: list[Event]) -> None:
        """Takes a run's next token, and ends the run if it was the last one."""
        request = run.job.request
        try:
            token = run.sampler(logits)
        except NotFiniteError:
            return self._finish(run, "not_finite", events)
        if token in self._stop_ids or token in request.stop_ids:
            return self._finish(run, "stop", events)
        run.token = token
        run.generated += 1
        self.counts.generated += 1
        score = None if request.logprobs is None else scores_of(logits[None], [token], request.logprobs)[0]
        events.append(Token(run.job.number, run.sample, token, score))
        if reason := self._reason(run):
            self._finish(run, reason, events)

    def _reason(self, run: Run) -> Reason | None:
        """Why a run ends with the token that it has just got; None if it goes on."""
        request = run.job.request
        if request.finished is not None and request.finished(run.sample, run.token):
            return "stop"
        if run.generated >= request.max_new_tokens:
            return "length"
        if len(self._rows.held[run.row].text) >= self.decoder.context:
            return "context"
        return None

    def _finish(self, run: Run, reason: Reason, events: list[Event]) -> None:
        events.append(Finished(run.job.number, run.sample, reason, self._usage(run.job, run)))
        self.counts.finished[reason] += 1
        run.damaged = reason == "not_finite"
        self._release(run)
        self._close(run.job, {run.sample})

    def _usage(self, job: Job, run: Run | None) -> Usage:
        prompt = len(job.request.prompt)
        if run is None:
            return Usage(prompt, 0, 0, self._now - job.submitted, 0.0, 0.0)
        now = self._clock()
        prefilled = now if run.in_prefill else run.prefilled
        return Usage(
            prompt,
            run.cached,
            run.generated,
            run.started - job.submitted,
            prefilled - run.started,
            now - prefilled,
        )
