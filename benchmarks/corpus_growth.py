"""How the cost of each stage of a corpus grows with its input, and what it would be for 80 TB.

Corpora of --megabytes are made of paragraphs drawn at random, so that duplicates do not grow with them, and
built with one worker. Seconds of a stage are fitted by a + b x, of an exchange by a + b x log2 x, with x in
MB, by least squares of the relative errors. The table then goes far beyond what was measured: it is an
extrapolation, of one machine, with one worker, local files, and texts instead of web pages. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
from corpus_speed import EXCHANGES, bytes_of, config_of, run_stages, texts, write_inputs

TERABYTES = 80  # that the paper began with
NODES, CORES = 8, 352  # of its platform, if "2 CPUs (24 cores)" counts both
BAND_ROW = 16  # bytes of a row of the exchange of bands


def terms(stage: str, megabytes: np.ndarray) -> np.ndarray:
    """What a stage's seconds are fitted by, float64 [sizes, 2]."""
    grows = megabytes * np.log2(megabytes) if stage in EXCHANGES else megabytes
    return np.column_stack([np.ones_like(megabytes), grows])


def fitted(stage: str, megabytes: Sequence[float], seconds: Sequence[float]) -> tuple[np.ndarray, float]:
    """The factors a and b, neither negative, and the largest relative error of what was measured."""
    sizes, measured = np.array(megabytes, float), np.array(seconds, float)
    # dividing by the seconds makes the errors relative: the largest corpus must not decide alone
    factors = nonnegative(terms(stage, sizes) / measured[:, None])
    error = np.abs(terms(stage, sizes) @ factors / measured - 1).max()
    return factors, float(error)


def nonnegative(rows: np.ndarray) -> np.ndarray:
    """Least squares of rows @ factors = 1 with factors that are not negative."""
    from scipy.optimize import nnls

    return nnls(rows, np.ones(len(rows)))[0]


def measure(megabytes: float) -> tuple[float, int, dict[str, float]]:
    """Builds a corpus of about this size; returns its MB, documents, and the seconds of each stage."""
    mean = bytes_of(texts(300)) / 300
    count = max(int(megabytes * 1e6 / mean), 10)
    folder = Path(tempfile.mkdtemp())
    try:
        total = write_inputs(folder / "in", count, max(int(megabytes // 10), 1))
        return total / 1e6, count, run_stages(config_of(folder / "in", folder / "out"), 1)
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, nargs="+", default=[10, 100, 1000])
    options = parser.parse_args()
    if len(options.megabytes) < 2:
        parser.error("--megabytes: give at least two sizes, for a line needs two points")
    found = machine.this_machine(1)
    runs = []
    for size in options.megabytes:
        runs.append(measure(size))
        rate = runs[-1][0] / sum(runs[-1][2].values())
        print(f"{runs[-1][0]:.1f} MB, {runs[-1][1]:,} documents: {rate:.2f} MB/s a core", flush=True)
    print(json.dumps({**table(runs), **found}))


def table(runs: Sequence[tuple[float, int, dict[str, float]]]) -> dict[str, Any]:
    """Prints the seconds of each stage, their fit and its continuation; returns fields of the JSON line."""
    sizes, goal = [size for size, _, _ in runs], TERABYTES * 1e6
    print(f"{'stage':14}{''.join(f'{size:>10.0f} MB' for size in sizes)}   error  {TERABYTES} TB, core-hours")
    hours, low, high = 0.0, 0.0, 0.0
    for stage in runs[0][2]:
        seconds = [max(each[stage], 1e-3) for _, _, each in runs]
        factors, error = fitted(stage, sizes, seconds)
        here = float((terms(stage, np.array([goal])) @ factors)[0]) / 3600
        hours, low, high = hours + here, low + here * (1 - min(error, 1)), high + here * (1 + error)
        print(f"{stage:14}{''.join(f'{each:>11.2f} s' for each in seconds)}  {error:6.1%}  {here:,.0f}")
    documents = runs[-1][1] / runs[-1][0] * goal
    shuffled = documents * 20 * BAND_ROW / 1e12
    wall = hours / CORES
    print(
        f"EXTRAPOLATION to {TERABYTES} TB: {hours:,.0f} core-hours (band of the fits' errors: {low:,.0f} to "
        f"{high:,.0f}), {wall:,.1f} hours or {wall * NODES:,.0f} node-hours of {NODES} nodes with {CORES} "
        f"cores like this one; the exchange of bands moves {shuffled:.2f} TB before compression"
    )
    return {
        "megabytes": [round(size, 1) for size in sizes],
        "seconds": {stage: [round(each[stage], 3) for _, _, each in runs] for stage in runs[0][2]},
        "extrapolated_core_hours": round(hours),
        "band": [round(low), round(high)],
        "node_hours": round(wall * NODES),
        "shuffle_tb": round(shuffled, 2),
    }


if __name__ == "__main__":
    main()
