"""Workers that are children of msrun, for which a program stands in: found, asked, ended; some vanish."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from pangu_alpha.launcher.commands import Command
from pangu_alpha.launcher.workers import MsrunWorkers
from pangu_alpha.processes.belonging import MARK, Launcher, marked

MSRUN = """
import os, subprocess, sys, time
def start(role, rank):
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    return subprocess.Popen(sleep, env={**os.environ, "MS_ROLE": role, "RANK_ID": str(rank)})
children = [start("MS_SCHED", 0), start("MS_WORKER", 0), start("MS_WORKER", 1)]
time.sleep(60)
"""
GONE = 2**22 + 5  # above the highest number of a process


@pytest.fixture
def workers(tmp_path):
    mark = Launcher.this(grace=9).mark
    workers = MsrunWorkers(Command((sys.executable, "-c", MSRUN)), {MARK: mark}, tmp_path, 2)
    while len(workers.codes()) < 2:
        time.sleep(0.01)
    yield workers
    workers.kill()
    assert marked(mark) == []


def pid_of(workers, rank):
    return next(pid for pid, found in workers._ranks.items() if found == rank)


def test_a_worker_that_ends_is_seen_before_msrun_sees_it(workers):
    assert workers.codes() == {0: None, 1: None}
    os.kill(pid_of(workers, 1), signal.SIGKILL)
    while workers.codes()[1] is None:
        time.sleep(0.01)
    assert workers.codes() == {0: None, 1: -signal.SIGKILL}


def test_no_scheduler_outlives_a_msrun_that_was_killed(workers):
    workers._msrun.kill()
    workers._msrun.wait()
    assert len(marked(Launcher.this(grace=9).mark)) == 3
    workers.kill()
    assert marked(Launcher.this(grace=9).mark) == []


def test_processes_that_vanish_raise_nothing(workers, monkeypatch):
    workers._ranks[GONE] = 7
    assert workers.codes()[7] == 0  # msrun's log says nothing against it
    monkeypatch.setattr(workers, "_alive", lambda pids: [GONE])
    workers.terminate()
    workers._log.unlink()
    assert workers.first([0, 1]) == 0


def test_another_process_with_the_number_of_a_worker_is_no_worker(workers):
    workers._births[pid_of(workers, 0)] = "1"
    assert workers.codes() == {0: 0, 1: None}
    workers.terminate()
    assert workers._asked == {pid_of(workers, 1)}
