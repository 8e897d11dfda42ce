"""Time from `bash run_scripts/run_serve.sh` to the first answer, cold and warm, with where it goes.

- cold: the files of MindSpore, numpy and this project are not in the page cache
- warm: the next start

The parts are read off the server's own output. Nothing is installed or trained: give a checkpoint, such as
runs/quickstart/run. The last line is JSON, seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen

import machine
from rounds import report, summarize
from start_up import drop_pages

ROOT = Path(__file__).parents[1]
GRAPH = re.compile(r"graph .*: ([\d.]+) s$")
# What a line of the output ends, by words in it.
LISTENING, DESCRIBED, COMPILED, READY = ": listening", " slots and ", "graph ", ": ready"


def start(checkpoint: str) -> dict[str, float]:
    """Starts the server, asks for one token, and ends it.

    Returns:
        Seconds of each part, and "total".

    Raises:
        RuntimeError: It ended before it was ready, or not with 0 in the end.
    """
    words = ["--checkpoint", os.path.abspath(checkpoint), "--port", "0", "--device", "CPU"]
    began = time.perf_counter()
    process = subprocess.Popen(
        ["bash", str(ROOT / "run_scripts/run_serve.sh"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PANGU_PYTHON": sys.executable},
    )
    times: dict[str, float] = {}
    lines, graphs, address = [], 0.0, ""
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        word = next((word for word in (LISTENING, DESCRIBED, COMPILED, READY) if word in line), None)
        if word is not None:
            times.setdefault(word, time.perf_counter() - began)
        if found := GRAPH.search(line):
            graphs += float(found[1])
        if word == LISTENING:
            address = line.partition(LISTENING)[0]
        elif word == READY:
            break
    if READY not in times:
        raise RuntimeError(f"exit code {process.wait()}: {''.join(lines)}")
    ask(address)
    total = time.perf_counter() - began
    process.send_signal(signal.SIGINT)
    if process.wait(60):
        raise RuntimeError(f"exit code {process.returncode} in the end: {process.stdout.read()}")
    return parts(times, graphs, total)


def ask(address: str) -> None:
    """Waits for one token."""
    body = json.dumps({"model": "pangu", "prompt": [20], "max_tokens": 1}).encode()
    request = Request(f"{address}/v1/completions", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        assert json.load(answer)["usage"]["completion_tokens"] <= 1


def parts(times: dict[str, float], graphs: float, total: float) -> dict[str, float]:
    """What the seconds went to, from the times at which the lines came."""
    return {
        "front": times[LISTENING],
        "MindSpore, checkpoint's description": times[DESCRIBED] - times[LISTENING],
        "weights": times[COMPILED] - times[DESCRIBED] - graphs,
        "graphs": graphs,
        "prefixes": times[READY] - times[COMPILED],
        "first answer": total - times[READY],
        "total": total,
    }


def main() -> None:
    """Prints the times as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="run or checkpoint to serve")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = {"metric": "serve_start", **machine.this_machine(machine.usable_cores())}
    for state in ("cold", "warm"):
        rounds = []
        for _ in range(options.rounds):
            if state == "cold":
                drop_pages()
            rounds.append(start(options.checkpoint))
        summary = summarize([each["total"] for each in rounds])
        report({state: summary})
        found[state] = {
            name: round(statistics.median(rounds[number][name] for number in summary.quiet_rounds), 2)
            for name in rounds[0]
        }
    print(json.dumps({**found, "rounds": options.rounds}))


if __name__ == "__main__":
    main()
