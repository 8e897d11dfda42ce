"""Reads the speed of the user's own training runs from metrics.jsonl and the config.yaml next to it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.run import TrainConfig, load_train_config
from pangu_alpha.config.schema import ConfigError
from pangu_alpha.files.reading import ReadError, parse_json, read_bytes
from pangu_alpha.files.shown import quoted, shown
from pangu_alpha.planner.calibration.published import Row
from pangu_alpha.planner.cost.hardware import Cluster, Stack, device_names
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.cost.shapes import Shape
from pangu_alpha.planner.cost.software import software_of

_FIRST = 2  # first steps that do not count, because they compile and fill caches
_LEAST = 3  # least number of steps for a median
_FAR = 5.0  # a step is an outlier if it is more standard deviations away from the median
_NORMAL = 1.4826  # a normal distribution's standard deviation, in median absolute deviations
_CONFIG = "config.yaml"


@dataclass(frozen=True)
class Run:
    """The speed of a run, from its log.

    Args:
        name: Path of its metrics.jsonl.
        job: What a step computes.
        device: Device type in the run's config: "auto", "CPU" or "Ascend".
        seconds: Seconds of a step: the median of the steps that count.
        steps: Number of steps that count.
        dropped: Number of steps that do not count: the first ones and outliers.
        spread: Half the distance between the quartiles, as a share of the median.
    """

    name: str
    model: ModelConfig
    job: Job
    device: str
    seconds: float
    steps: int
    dropped: int
    spread: float


def read_run(metrics: Path, config: Path | None = None) -> Run:
    """Reads a run's log.

    Args:
        metrics: Path of its metrics.jsonl.
        config: Path of its config.yaml; by default the one next to the log.

    Raises:
        OSError: If the log cannot be read.
        ValueError: If there is no log or config, a line is not JSON, there are too few steps, or the config
            has another batch size than the log.
    """
    if not metrics.is_file():
        raise ValueError(f"{metrics}: no such file; give the metrics.jsonl of a run's output folder")
    settings = _config(config or metrics.parent / _CONFIG)
    rates = _rates(metrics, settings.samples_per_step)
    seconds = settings.samples_per_step * settings.model.seq_length / np.asarray(rates)
    kept = _typical(seconds[_FIRST:])
    if len(kept) < _LEAST:
        raise ValueError(
            f"{metrics}: {len(rates)} steps with tokens_per_s, {len(kept)} after the first {_FIRST}, "
            f"which compile; train at least {_FIRST + _LEAST} steps"
        )
    low, middle, high = np.quantile(kept, (0.25, 0.5, 0.75))
    return Run(
        name=str(metrics),
        model=settings.model,
        job=Job.of(Shape.of(settings.model), settings.parallel, settings.samples_per_step),
        device=settings.run.device,
        seconds=float(middle),
        steps=len(kept),
        dropped=len(rates) - len(kept),
        spread=float((high - low) / 2 / middle),
    )


def as_rows(runs: Sequence[Run], cluster: Cluster, stack: Stack) -> list[Row]:
    """Converts runs to measurements on a cluster.

    Raises:
        ValueError: If a run used more devices than the cluster has, or ran on a CPU and the cluster's devices
            are those of a shipped type.
    """
    rows = []
    for run in runs:
        if run.job.devices > cluster.count:
            raise ValueError(
                f"{run.name}: ran on {run.job.devices} devices, cluster {cluster.name} has {cluster.count}"
            )
        if run.device == "CPU" and cluster.device.name in device_names():
            raise ValueError(
                f"{run.name}: run.device is CPU, cluster {cluster.name} is of {cluster.device.name}; "
                "describe the machine in a YAML: device (peak, memory, usable, bandwidth), levels, count"
            )
        group = (dataclasses.astuple(run.job.shape), run.job.batch, run.job.devices)
        own = software_of(stack, run.model, cluster.device.family)
        rows.append(Row(run.name, "runs", group, "A", run.job, cluster, own, 1, run.seconds))
    return rows


def _config(path: Path) -> TrainConfig:
    if not path.is_file():
        raise ValueError(f"{path}: no config of the run; name it with --config")
    try:
        return load_train_config(str(path))
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error


def _rates(path: Path, samples: int) -> list[float]:
    """Tokens per second of every logged step, including steps that were repeated after a kill."""
    rates, before = [], None
    for number, entry in _entries(path):
        rate = entry.get("tokens_per_s")
        if rate is None:
            continue  # the entry of a validation
        if not isinstance(rate, int | float) or not 0 < rate < math.inf:
            found = f"tokens_per_s is {quoted(rate)}, expected a positive number"
            raise ValueError(f"{path}: line {number}: {found}")
        read = (entry["step"], entry["samples"]) if {"step", "samples"} <= set(entry) else None
        if read and before and read[0] == before[0] + 1 and read[1] - before[1] != samples:
            raise ValueError(
                f"{path}: line {number}: a step read {read[1] - before[1]} samples, the config says "
                f"{samples}; give the config of this run"
            )
        rates.append(float(rate))
        before = read
    return rates


def _entries(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Line numbers and entries; leaves out a last line that is incomplete because the run was killed."""
    lines, entries = read_bytes(path).rstrip(b"\n").split(b"\n"), []
    for number, line in enumerate(lines, start=1):
        where = f"{shown(path)}: line {number}"
        try:  # logs of former versions contain NaN
            entry = parse_json(line, "it", numbers_only=False) if line.strip() else {}
        except ReadError as error:
            if number == len(lines):
                break
            raise ValueError(f"{where} is not JSON ({error})") from error
        if not isinstance(entry, dict):
            raise ValueError(f"{where} is {type(entry).__name__}, expected an object")
        for name in ("step", "samples"):
            if not isinstance(entry.get(name, 0), int):
                raise ValueError(f"{where}: {name} is {quoted(entry[name])}, expected a whole number")
        entries.append((number, entry))
    return entries


def _typical(seconds: np.ndarray) -> np.ndarray:
    """Steps near the median: at most _FAR standard deviations or 1 % away, whichever is larger."""
    if not len(seconds):
        return seconds
    middle = np.median(seconds)
    scale = max(_NORMAL * float(np.median(np.abs(seconds - middle))), 0.01 * float(middle) / _FAR)
    return seconds[np.abs(seconds - middle) <= _FAR * scale]
