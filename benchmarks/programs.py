"""Peers that take turns: a program is a process with those it starts, stopped while another has its round.

Knows processes and pipes; what a round does stands in the benchmark.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import psutil
from rounds import Summary, summarize

Round = Callable[[], dict[str, float]]


class Program:
    """A process that runs one round for every line it gets.

    Args:
        script: The benchmark, which calls `serve` when its first argument is --worker.
        name: Of the program, the second argument.
        threads: For OpenMP.
        arguments: Further words of the command line.
    """

    def __init__(self, script: str, name: str, threads: int, *arguments: str) -> None:
        self.name = name
        self.threads = threads
        self.rounds: list[dict[str, float]] = []
        self._process = subprocess.Popen(
            [sys.executable, script, "--worker", name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        if self._process.stdout.readline().strip() != "ready":
            self._process.wait()
            raise RuntimeError(f"{name} did not start; see its messages above")
        self._signal(signal.SIGSTOP)

    def round(self) -> dict[str, float]:
        """Wakes the process for one round and returns what it measured.

        Adds "others": the cores that other processes used meanwhile, where the system says so.
        """
        began, before = time.perf_counter(), self._seconds_of_others()
        self._signal(signal.SIGCONT)
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        if before is not None:
            found["others"] = (self._seconds_of_others() - before) / (time.perf_counter() - began)
        self._signal(signal.SIGSTOP)
        self.rounds.append(found)
        return found

    def summary(self) -> Summary:
        """What the rounds say together."""
        others = [one["others"] for one in self.rounds] if "others" in self.rounds[0] else None
        return summarize([one["seconds"] for one in self.rounds], others, self.threads)

    def _seconds_of_others(self) -> float | None:
        """Processor time of all other processes and of other virtual machines so far; None outside Linux."""
        if not Path("/proc/stat").exists():
            return None
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = ticks
        busy = user + nice + system + interrupts + soft_interrupts + stolen
        own = sum(each.cpu_times().user + each.cpu_times().system for each in self._family())
        return busy / os.sysconf("SC_CLK_TCK") - own

    def _family(self) -> list[psutil.Process]:
        """The process and all that it has started, such as a server whose client it is."""
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]

    def _signal(self, number: signal.Signals) -> None:
        for each in self._family():
            each.send_signal(number)

    def close(self) -> None:
        """Ends the process."""
        self._signal(signal.SIGCONT)
        self._process.stdin.close()
        self._process.wait()


def start_all(
    script: str, names: Iterable[str], optional: Collection[str], threads: int, *arguments: str
) -> list[Program]:
    """Starts programs; one that is optional may fail to start, which a line says.

    Raises:
        RuntimeError: One that is not optional did not start.
    """
    programs = []
    for name in names:
        try:
            programs.append(Program(script, name, threads, *arguments))
        except RuntimeError as error:
            if name not in optional:
                raise
            print(f"without {name}: {error}", flush=True)
    return programs


def serve(make_round: Callable[..., Round], *arguments: Any) -> None:
    """The worker's side: builds, warms up, then one round for every line on stdin."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stdout; only figures may go there
    run = make_round(*arguments)
    run()
    print("ready", file=out, flush=True)
    for _ in sys.stdin:
        print(json.dumps(run()), file=out, flush=True)


def peak_memory() -> float:
    """Largest resident size of this process so far, in MB of 10^6 bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
