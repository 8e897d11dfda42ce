"""Steps of several plans, timed, and what the planner predicts for them before and after calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pangu_alpha.cluster_check.calibration import CLUSTERS
from pangu_alpha.cluster_check.judge.plans import LEAST
from pangu_alpha.cluster_check.measure.timed_run import cases, run_case
from pangu_alpha.cluster_check.place import Place
from pangu_alpha.cluster_check.records import missing_ranks
from pangu_alpha.planner.calibration.calibrate import left_out, predict, refit, told
from pangu_alpha.planner.calibration.measured_runs import as_rows, read_run
from pangu_alpha.planner.calibration.published import Row
from pangu_alpha.planner.cost.hardware import load_cluster, load_stack

PREDICTED = "predicted"  # the measurement that predicts; the others are named by `measurement_of`


def measurement_of(number: int) -> str:
    """Name of the measurement that runs a case."""
    return f"plan_{number + 1}"


def measure(place: Place) -> dict[str, Any]:
    """Runs a case of `timed_run.cases`, or predicts the steps of those that have been run."""
    if place.measurement == PREDICTED:
        return _predictions(place)
    number = int(place.measurement.rpartition("_")[2]) - 1
    known = cases(place.setup.device, place.setup.size)
    if number >= len(known):
        return {"case": None}
    run_case(known[number], place)
    return {"case": known[number].name}


def _predictions(place: Place) -> dict[str, Any]:
    """The measured seconds of a step by case, and what is predicted with each set of numbers."""
    setup = place.setup
    path = place.out / CLUSTERS
    if not path.is_file():
        raise ValueError(f"planner: has not written {CLUSTERS} yet, and its numbers are needed here")
    known, runs = [], []
    for number, case in enumerate(cases(setup.device, setup.size)):
        folder = place.folder.parent / measurement_of(number)
        if not missing_ranks(folder, (0,)):  # a run that died is a finding of its own
            known.append(case)
            runs.append(read_run(folder / "run" / "metrics.jsonl"))
    if not runs:
        raise ValueError("no plan has been measured; the reasons stand above")
    stack = load_stack("pangu-alpha")
    rows = as_rows(runs, load_cluster(str(path)), stack)
    start = rows[0].cluster.device.constants
    found, fitted = {"parts": _predicted(rows)}, []
    if setup.cluster:
        shipped = load_cluster(setup.cluster, setup.size)
        found["shipped"] = _predicted([dataclasses.replace(row, cluster=shipped) for row in rows])
    if len(rows) >= LEAST:
        found["left out"] = left_out(rows, start)
        found["steps"] = [predict(row, refit(rows, start)) for row in rows]
        fitted = list(told(rows, start))
    return {
        "cases": [case.name for case in known],
        "measured": [run.seconds for run in runs],
        "spread": [run.spread for run in runs],
        "predicted": found,
        "fitted": fitted,
    }


def _predicted(rows: Sequence[Row]) -> list[float]:
    return [predict(row) for row in rows]
