"""Signals of real processes: the first asks, a second one insists, and lost output ends nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pangu_alpha.processes import signals
from pangu_alpha.processes.signals import Signals, signal_name


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (9, "SIGKILL"),
        (32, "signal 32"),  # glibc keeps 32 and 33 for itself
        (33, "signal 33"),
        (34, "SIGRTMIN"),
        (35, "SIGRTMIN+1"),
        (63, "SIGRTMIN+29"),
        (64, "SIGRTMAX"),
        (65, "signal 65"),
        (255, "signal 255"),
    ],
)
def test_every_number_has_a_name(number, name):
    assert signal_name(number) == name


def run(body, **options):
    """A process that runs `body`."""
    text = f"import os, signal, sys\nfrom pangu_alpha.processes import signals\n{body}"
    command, pipe = [sys.executable, "-c", text], subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **options)


def test_the_first_signal_asks_and_the_handlers_come_back(hang_up):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    with Signals() as taken:
        for number in (signal.SIGHUP, signal.SIGTERM):  # in one second: one wish
            os.kill(os.getpid(), number)
        assert (taken.number, taken.again) == (signal.SIGHUP, 0)
    assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]


def test_a_second_signal_insists_unless_it_is_a_hang_up(hang_up, monkeypatch):
    monkeypatch.setattr(signals, "TOGETHER", 0.0)
    insisted = []
    with Signals(insisted.append) as taken:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
    assert (taken.number, taken.again) == (signal.SIGINT, signal.SIGTERM)
    assert insisted == [signal.SIGTERM]


def test_a_hang_up_that_is_ignored_stays_ignored():
    body = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
with signals.Signals() as taken:
    os.kill(os.getpid(), signal.SIGHUP)
    print(taken.number)
"""
    assert run(body).communicate()[0] == "0\n"


def test_a_second_signal_stops_a_process_that_is_busy_outside_of_python():
    body = """
import hashlib
signals.TOGETHER = 0.0
with signals.Signals(signals.stop_at_once):
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # ten minutes in which no handler of Python's runs
"""
    process = run(body)
    assert process.stdout.readline() == "busy\n"
    while process.poll() is None:  # signals of one number that wait at the same time are one
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert "signal 15 again: stopped at once" in process.stderr.read()


def test_a_reader_that_is_gone_counts_as_a_signal_and_raises_nothing():
    body = """
with signals.Signals() as taken:
    sys.stdin.read()
    print("one", flush=True)
    print("two", flush=True)
    print(taken.number, end="", file=sys.stderr, flush=True)
sys.stdout.flush()
"""
    process = run(body, stdin=subprocess.PIPE)
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == str(int(signal.SIGPIPE)) and process.wait() == 0


def test_a_full_disk_takes_the_output_and_not_the_run():
    body = """
sys.stdout = open("/dev/full", "w")
with signals.Signals() as taken:
    print("lost", flush=True)
    print(taken.number, end="", file=sys.stderr, flush=True)
os._exit(0)
"""
    assert run(body).communicate()[1] == "0"
