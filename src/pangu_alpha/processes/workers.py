"""Runs one function over many jobs in several processes, with progress; results keep the order of the jobs.

Knows nothing of what the jobs do.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
# Called with (units of work done since the last call, tokens made since the last call).
Advance = Callable[[int, int], None]

_POLL_SECONDS = 0.25


def run_jobs(
    function: Callable[[Job, Advance], Result], jobs: Sequence[Job], workers: int, advance: Advance
) -> list[Result]:
    """Calls function(job, advance) for every job in a pool of its own; see `Pool.run`.

    Args:
        workers: Number of processes; 1 runs the jobs in this process.
    """
    if workers == 1 or len(jobs) <= 1:
        return [function(job, advance) for job in jobs]
    with Pool(min(workers, len(jobs))) as pool:
        return pool.run(function, jobs, advance)


class Pool:
    """Processes that take one list of jobs after another, so that what they have loaded stays loaded.

    They are started by the first list of several jobs.

    Args:
        workers: Number of processes; 1 runs the jobs in this process.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._totals: Any = None
        self._pool: ProcessPoolExecutor | None = None

    def run(
        self, function: Callable[[Job, Advance], Result], jobs: Sequence[Job], advance: Advance
    ) -> list[Result]:
        """Calls function(job, advance) for every job, and returns the results in order.

        Args:
            function: A function at module level, so that it can be pickled; it reports its progress to
                `advance`.
            jobs: Must be picklable; the first ones start first.
            advance: Called in this process with the progress of all jobs.

        Raises:
            ValueError: A worker process was killed. What a job raises is passed on unchanged as soon as the
                running jobs have ended; the other jobs are not started.
        """
        if self._workers == 1 or len(jobs) <= 1:
            return [function(job, advance) for job in jobs]
        pool = self._started()
        futures: list[Future] = []
        try:
            for job in jobs:  # a process that was killed since the last list is noticed here
                futures.append(pool.submit(_call, function, job))
            _watch(futures, self._totals, advance)
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker process was killed, most often for lack of memory; finished files are kept: "
                "run the same command again, with fewer --workers"
            ) from error
        finally:
            if len(futures) < len(jobs) or any(not each.done() or each.exception() for each in futures):
                self.close()

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Spawned, not forked: the tokenizer and MindSpore have threads, which do not survive a fork.
            context = multiprocessing.get_context("spawn")
            self._totals = context.Array("q", 2)
            self._pool = ProcessPoolExecutor(self._workers, context, _enter, (self._totals,))
        return self._pool

    def close(self) -> None:
        """Waits for the running jobs; those that have not begun are given up."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _watch(futures: list[Future], totals: Any, advance: Advance) -> None:
    seen, pending = list(totals), set(futures)
    while pending:
        done, pending = wait(pending, _POLL_SECONDS, FIRST_EXCEPTION)
        now = list(totals)
        advance(now[0] - seen[0], now[1] - seen[1])
        seen = now
        for future in done:
            future.result()  # raises the first failure, which ends the watch


_totals: Any = None


def _enter(totals: Any) -> None:
    global _totals
    _totals = totals
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    # A pool's workers wait forever if their parent is killed, because each of them holds the other end of the
    # queue open.
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs only in the workers of a pool
    parent.join()
    os._exit(1)


def _call(function: Callable[[Job, Advance], Result], job: Job) -> Result:
    return function(job, _advance)


def _advance(units: int, tokens: int) -> None:
    with _totals.get_lock():
        _totals[0] += units
        _totals[1] += tokens
