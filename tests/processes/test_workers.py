"""The pool of workers: a process that is killed between two lists of jobs ends the second one in words."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from pangu_alpha.processes.workers import Pool


def doubled(job, advance):
    advance(1, 0)
    return 2 * job


def test_a_worker_killed_between_two_lists_is_named_and_the_pool_begins_anew():
    with Pool(2) as pool:
        assert pool.run(doubled, [1, 2, 3], lambda units, tokens: None) == [2, 4, 6]
        workers = [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]
        assert workers
        os.kill(workers[0].pid, signal.SIGKILL)
        time.sleep(1.0)  # until the pool has noticed
        with pytest.raises(ValueError, match="a worker process was killed"):
            pool.run(doubled, [1, 2, 3], lambda units, tokens: None)
        assert pool.run(doubled, [4, 5], lambda units, tokens: None) == [8, 10]
