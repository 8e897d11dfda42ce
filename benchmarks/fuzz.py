"""Throws damaged, random and oversized files at every front door and holds each answer to one rule.

A file of up to a megabyte is read or refused within 5 s of processor time and 500 MB of memory. A refusal is
a sentence of the program's own (exit code 2 of a command), never a traceback; what is read loses nothing that
is not counted. The doors stand in front_doors.py, the damage in mutations.py.

    python benchmarks/fuzz.py                                  # every door, 2,000 cases each: some minutes
    python benchmarks/fuzz.py --door config --cases 100000     # one door for longer
    python benchmarks/fuzz.py --door config --seed 1 --only 17 # one case again, with its traceback

Prints a line for each door and each kind of fault, and a JSON line last; exit code 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import json
import linecache
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType

from front_doors import DOORS, Case, LossError

SECONDS = 5.0  # processor time of one case
HANGS = 60  # seconds of the clock after which a case that waits for something is ended
MEMORY = 500 << 20  # bytes by which a case may raise the resident memory
_ADDRESS_SPACE = 4 << 30  # a case that asks for more fails instead of taking the machine with it


class HangError(Exception):
    """A case waited for something that did not come."""


@dataclass
class Tally:
    """What became of a door's cases.

    Args:
        door: Its name.
        cases: How many files were given.
        accepted: How many were read.
        faults: First case of each kind of fault: sentence to case number.
    """

    door: str
    cases: int = 0
    accepted: int = 0
    faults: dict[str, int] = field(default_factory=dict)


def attempt(enter: Callable[[], None]) -> tuple[bool, str | None]:
    """Gives one file to a door.

    Returns:
        Whether it was read, and the fault if the answer breaks the rule.
    """
    before, began = _resident("VmRSS"), time.process_time()
    _reset_peak()
    accepted, fault = False, None
    signal.alarm(HANGS)
    try:
        enter()
        accepted = True
    except (ValueError, OSError) as error:
        fault = _raw(error)
    except LossError as error:
        fault = f"lost without a word: {error}"
    except HangError:
        fault = f"waited for {HANGS} s"
    except SystemExit as error:  # argparse
        fault = None if error.code in (0, 2) else f"exit code {error.code}"
    except Exception as error:
        fault = f"{type(error).__name__} at {_place(error.__traceback__)}"
    finally:
        signal.alarm(0)
    took, grew = time.process_time() - began, _resident("VmHWM") - before
    if fault is None and took > SECONDS:
        fault = "took more than 5 s"
    if fault is None and grew > MEMORY:
        fault = "took more than 500 MB"
    return accepted, fault


def _raw(error: Exception) -> str | None:
    """The fault if an error is not a sentence of the program's own but one that Python raised."""
    if isinstance(error, OSError) and error.filename is not None:
        return None
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = "pangu_alpha" in last.filename and _raises(last.filename, last.lineno)
    return None if ours else f"{type(error).__name__} of Python's own at {_place(error.__traceback__)}"


def _raises(filename: str, line: int | None) -> bool:
    """Whether a statement begins with raise; one of several lines is reported by its first."""
    return linecache.getline(filename, line or 0).strip().startswith("raise ")


def _place(trace: TracebackType | None) -> str:
    """The innermost line of our own code."""
    ours = [each for each in traceback.extract_tb(trace) if "pangu_alpha" in each.filename]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"


def _resident(key: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(key))


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): VmHWM starts again from VmRSS


def run_door(name: str, seed: int, first: int, cases: int, seconds: float, folder: Path) -> Tally:
    """Gives a door so many cases, or as many as fit into some seconds."""
    tally, end = Tally(name), time.monotonic() + seconds
    (folder / "seeds").mkdir(parents=True)
    door = DOORS[name](folder / "seeds")
    (folder / "files").mkdir()
    for number in range(first, first + cases):
        (folder / "now").write_text(str(number))
        case: Case = door(Random(f"{name}/{seed}/{number}"), folder / "files")
        accepted, fault = attempt(case)
        tally.cases += 1
        tally.accepted += accepted
        if fault is not None:
            tally.faults.setdefault(fault, number)
        if time.monotonic() > end:
            break
    return tally


def _child(options: argparse.Namespace) -> int:
    """One door in a process of its own, which a crash or a bomb ends without the others."""
    soft = _resident("VmSize") + _ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _hang)
    tally = run_door(
        options.door, options.seed, options.first, options.cases, options.seconds, Path(options.child)
    )
    print(json.dumps(tally.__dict__))
    return 0


def _hang(number: int, frame: object) -> None:
    raise HangError


def _in_a_process(door: str, options: argparse.Namespace) -> Tally:
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{door}-"))
    words = ["--door", door, "--seed", options.seed, "--first", options.first, "--cases", options.cases]
    words += ["--seconds", options.seconds, "--child", folder]
    try:
        done = subprocess.run(
            [sys.executable, __file__, *map(str, words)],
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if done.returncode == 0:
            return Tally(**json.loads(done.stdout.splitlines()[-1]))
        case = int((folder / "now").read_text()) if (folder / "now").exists() else 0
        last = (done.stderr.splitlines() or ["no message"])[-1]
        return Tally(door, case - options.first, 0, {f"ended with {done.returncode}: {last}": case})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _once(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "seeds").mkdir()
        (Path(folder) / "files").mkdir()
        door = DOORS[options.door](Path(folder) / "seeds")
        door(Random(f"{options.door}/{options.seed}/{options.only}"), Path(folder) / "files")()
    print("read")
    return 0


def main() -> int:
    """Runs all doors or the one asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--door", choices=tuple(DOORS), help="only this one")
    parser.add_argument("--cases", type=int, default=2000, help="of each door (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="of each door at the most")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other cases (default: 0)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: 0)")
    parser.add_argument("--only", type=int, metavar="N", help="case N again, with its traceback")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return _child(options)
    if options.only is not None:
        return _once(options)
    tallies = []
    for door in [options.door] if options.door else DOORS:
        began = time.monotonic()
        tally = _in_a_process(door, options)
        tallies.append(tally)
        took = time.monotonic() - began
        print(
            f"{door}: {tally.cases} files in {took:.0f} s, {tally.accepted} read, "
            f"{tally.cases - tally.accepted} refused, {len(tally.faults)} kinds of fault",
            flush=True,
        )
        for fault, number in tally.faults.items():
            print(f"  {fault}; again: --door {door} --seed {options.seed} --only {number}", flush=True)
    faults = sum(len(tally.faults) for tally in tallies)
    print(json.dumps({"cases": sum(tally.cases for tally in tallies), "faults": faults}))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
