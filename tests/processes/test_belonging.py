"""Processes with a launcher's mark: found, waited for, ended with it. The launcher is a `sleep`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pangu_alpha.files.lock import process_birth
from pangu_alpha.processes import belonging
from pangu_alpha.processes.belonging import (
    MARK,
    OUTPUT,
    Launcher,
    kill_marked,
    marked,
    orphans,
    wait_for_orphans,
)

# Says "saved" after SIGTERM, as a training does; "stubborn" does not end by it.
WORKER = """
import signal, sys, time
from pangu_alpha.processes import belonging
belonging._POLL = 0.01
stubborn = "stubborn" in sys.argv
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), stubborn or sys.exit(143)))
belonging.end_with_launcher()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def launcher():
    """A launcher that is alive until the test kills it."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def mark_of(process, grace=60):
    return Launcher(process.pid, process_birth(process.pid), grace).mark


def work(mark, output="/runs/a", *words, **environment):
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, *words],
        env={**os.environ, MARK: mark, OUTPUT: output, **environment},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return process


def end(process):
    process.kill()
    process.wait()


@pytest.mark.parametrize("mark", [None, "", "1", "x 2 3", "1 2 x", "1 2 3 4", "1 2 " + "9" * 5000])
def test_what_is_no_mark_names_no_launcher(mark):
    assert Launcher.parse(mark) is None


def test_a_mark_names_its_launcher():
    this = Launcher.this(grace=7)
    assert Launcher.parse(this.mark) == this == Launcher(os.getpid(), process_birth(os.getpid()), 7)
    assert this.alive
    assert not Launcher(os.getpid(), "1", 7).alive  # the number was handed out again


def test_a_worker_saves_and_ends_when_its_launcher_is_killed(launcher):
    worker = work(mark_of(launcher))
    assert worker.stdout.readline() == "ready\n"
    launcher.kill()
    launcher.wait()
    assert worker.wait(timeout=20) == 143
    assert worker.stdout.read().splitlines() == [
        "the launcher has ended: this worker saves and stops",
        "saved",
    ]


def test_a_worker_whose_launcher_was_gone_before_it_looked_ends_too(launcher):
    mark = mark_of(launcher)
    end(launcher)
    worker = work(mark)
    assert worker.wait(timeout=20) == 143 and "saved" in worker.stdout.read()


def test_a_worker_that_does_not_end_is_killed_after_the_grace(launcher):
    mark = mark_of(launcher, grace=0)
    end(launcher)
    worker = work(mark, "/runs/a", "stubborn")
    assert worker.wait(timeout=20) == -signal.SIGKILL


def test_a_scheduler_stays_until_the_workers_have_ended(launcher):
    mark = mark_of(launcher)
    workers = [work(mark, "/runs/a", "stubborn", MS_ROLE=role) for role in ("MS_WORKER", "MS_SCHED")]
    for process in workers:
        process.stdout.readline()
    end(launcher)
    worker, scheduler = workers
    assert worker.stdout.readline().startswith("the launcher has ended") and scheduler.poll() is None
    end(worker)
    assert scheduler.wait(timeout=20) == -signal.SIGKILL
    assert scheduler.stdout.read() == ""  # no SIGTERM, which would end it before they have saved


def test_orphans_are_found_by_their_run_and_their_launcher(launcher, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(belonging, "_POLL", 0.01)
    monkeypatch.setattr(belonging, "_KILLED_WITHIN", 0.0)
    run, mark = str(tmp_path / "run"), mark_of(launcher)
    worker = work(mark, run, "stubborn")
    worker.stdout.readline()
    assert marked(mark) == [worker.pid] and orphans(run) == []
    wait_for_orphans(run, 0)  # its launcher lives: the lock speaks for it
    end(launcher)
    assert orphans(run) == [worker.pid] and orphans(str(tmp_path)) == []
    with pytest.raises(ValueError, match=f"still work for it: {worker.pid}; .*kill -9 {worker.pid}"):
        wait_for_orphans(run, 0)
    monkeypatch.setattr(belonging, "_KILLED_WITHIN", 20.0)
    kill_marked(mark)
    assert worker.wait() == -signal.SIGKILL
    wait_for_orphans(run, 60)
    assert f"waiting for its processes {worker.pid} to save" in capsys.readouterr().out


def test_a_process_that_is_no_worker_follows_nobody(monkeypatch):
    import threading

    monkeypatch.delenv(MARK, raising=False)
    before = threading.active_count()
    belonging.end_with_launcher()
    assert threading.active_count() == before
