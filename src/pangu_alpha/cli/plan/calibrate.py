"""plan.py calibrate: fits a cluster's constants to the user's own logged steps."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pangu_alpha.cli.options import path_text, user_path
from pangu_alpha.cli.plan.text import table
from pangu_alpha.files.writing import json_text, write_text
from pangu_alpha.files.yaml_text import yaml_text
from pangu_alpha.planner.calibration import calibrate
from pangu_alpha.planner.calibration.measured_runs import Run, as_rows, read_run
from pangu_alpha.planner.calibration.published import Row
from pangu_alpha.planner.cost.hardware import BOUNDS, Cluster, Constants, Level, load_cluster, load_stack

_DIGITS = 4  # significant digits of a constant in the output
_UNEXPLAINED = 4.0  # ratio; fitted constants come within some percent of a run on the stated devices
_LEAVE_OUT = 3  # smallest number of runs for which each is also predicted from the others


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add = parser.add_argument
    add("--from", dest="metrics", action="append", required=True, type=user_path, metavar="JSONL", help="a "
        "run's metrics.jsonl; once for each run")  # fmt: skip
    add("--config", action="append", type=user_path, metavar="YAML", help="the runs' configs, in the same "
        "order (default: config.yaml beside each)")  # fmt: skip
    add(
        "--cluster",
        required=True,
        type=path_text,
        metavar="NAME|YAML",
        help="where they ran, such as 910b-64",
    )
    add(
        "--stack",
        default="pangu-alpha",
        help="the training software that they ran with (default: %(default)s)",
    )
    add("--output", type=user_path, metavar="YAML", help="file for the cluster with its new constants")
    add("--json", action="store_true", help="print JSON instead of tables")


def run(options: argparse.Namespace) -> int:
    """Fits the constants, shows the model's errors before and after, and writes the cluster.

    Raises:
        OSError: A log cannot be read.
        ValueError: A log, a config or the cluster is invalid, or they do not fit together.
    """
    configs = [None] * len(options.metrics) if options.config is None else options.config
    if len(configs) != len(options.metrics):
        raise ValueError(f"--config: {len(configs)} for {len(options.metrics)} --from; give one for each")
    cluster = load_cluster(options.cluster)
    runs = [read_run(metrics, config) for metrics, config in zip(options.metrics, configs, strict=True)]
    rows = as_rows(runs, cluster, load_stack(options.stack))
    findings = _fit(rows, cluster.device.constants)
    _refuse_unexplained(runs, findings, cluster)
    print(json_text(_as_json(runs, findings), 2) if options.json else _as_text(runs, findings))
    if options.output:
        write_text(options.output, _cluster_yaml(cluster, findings, len(runs)))
        if not options.json:
            print(f"wrote {options.output}")
    return 0


@dataclasses.dataclass(frozen=True)
class _Findings:
    """Constants before and after, the names of those that were fitted, and each run's relative errors."""

    start: Constants
    fitted: Constants
    names: tuple[str, ...]
    before: list[float]
    after: list[float]
    left_out: list[float]


def _fit(rows: Sequence[Row], start: Constants) -> _Findings:
    names = calibrate.told(rows, start)
    found = calibrate.refit(rows, start)
    fitted = Constants(**{k: float(f"{v:.{_DIGITS}g}") for k, v in dataclasses.asdict(found).items()})
    alone = calibrate.left_out(rows, start) if len(rows) >= _LEAVE_OUT else []
    return _Findings(
        start=start,
        fitted=fitted,
        names=names,
        before=_off(rows, [calibrate.predict(row, start) for row in rows]),
        after=_off(rows, [calibrate.predict(row, fitted) for row in rows]),
        left_out=_off(rows, alone) if alone else [],
    )


def _refuse_unexplained(runs: Sequence[Run], found: _Findings, cluster: Cluster) -> None:
    """Refuses a run that is much slower than any allowed constants predict: it was not on these devices."""
    for item, error in zip(runs, found.after, strict=True):
        if (1 + error) * _UNEXPLAINED < 1:
            raise ValueError(
                f"{item.name}: a step took {item.seconds:.4g} s, and no constants within bounds make it "
                f"slower than {item.seconds * (1 + error):.4g} s on {cluster.name}; was the run on "
                f"{cluster.device.name}? Describe another machine, a CPU included, in a YAML: device (peak, "
                "memory, usable, bandwidth), levels, count"
            )


def _off(rows: Sequence[Row], seconds: Sequence[float]) -> list[float]:
    return [predicted / row.seconds - 1 for row, predicted in zip(rows, seconds, strict=True)]


def _mean(errors: Sequence[float]) -> float | None:
    return statistics.fmean(map(abs, errors)) if errors else None


def _percent(error: float | None) -> str:
    return "" if error is None else f"{100 * error:+.1f}"


def _as_text(runs: Sequence[Run], found: _Findings) -> str:
    header = ["run", "dp x tp x pp", "steps", "dropped", "spread %", "ms", "before %", "after %"]
    alone: Sequence[float | None] = found.left_out or [None] * len(runs)
    lines = [
        [item.name, f"{item.job.dp} x {item.job.tp} x {item.job.pp}", item.steps, item.dropped,
         f"{100 * item.spread:.1f}", f"{1000 * item.seconds:.1f}", *map(_percent, errors)]
        for item, *errors in zip(runs, found.before, found.after, alone, strict=True)
    ]  # fmt: skip
    averages = map(_mean, (found.before, found.after, found.left_out))
    means = ["" if mean is None else f"{100 * mean:.1f}" for mean in averages]
    lines.append(["mean of absolute errors", "", "", "", "", "", *means])
    text = [table([*header, "left out %"], lines, range(2, 9)), ""]
    for name in found.names:
        value = getattr(found.fitted, name)
        stuck = " (at its bound: check the device's figures)" if value in BOUNDS[name] else ""
        text.append(f"{name}: {getattr(found.start, name):.4g} -> {value:.4g}{stuck}")
    kept = [name for name in calibrate.FITTED if name not in found.names]
    text.append(f"kept, because these runs do not determine them: {', '.join(kept) or 'none'}")
    if not found.left_out:
        text.append(f"after: in-sample; give {_LEAVE_OUT} runs or more to see each predicted from the others")
    else:
        text.append("left out: each run by constants fitted to the others")
    return "\n".join(text)


def _as_json(runs: Sequence[Run], found: _Findings) -> dict[str, Any]:
    lines = [
        {"run": item.name, "steps": item.steps, "dropped": item.dropped, "spread": item.spread,
         "seconds": item.seconds, "before": before, "after": after}
        for item, before, after in zip(runs, found.before, found.after, strict=True)
    ]  # fmt: skip
    for line, error in zip(lines, found.left_out, strict=False):
        line["left_out"] = error
    return {
        "runs": lines,
        "mean": {key: _mean(getattr(found, key)) for key in ("before", "after", "left_out")},
        "fitted": list(found.names),
        "constants": dataclasses.asdict(found.fitted),
    }


def _cluster_yaml(cluster: Cluster, found: _Findings, runs: int) -> str:
    """The cluster as YAML that load_cluster can read, with the source of each number."""
    device = cluster.device
    source = device.sources.get("constants", "defaults")
    names = ", ".join(found.names) or "nothing"
    what = f"fitted to {runs} run{'s' if runs > 1 else ''}: {names}; the rest: {device.name} ({source})"
    values = {
        name: _sourced(getattr(device, name), device.sources, name)
        for name in ("peak", "memory", "usable", "bandwidth")
    }
    if device.family:
        values["family"] = _sourced(device.family, device.sources, "family")
    values["constants"] = {"value": dataclasses.asdict(found.fitted), "source": what}
    levels = {level.name: _level(level) for level in cluster.levels}
    return yaml_text({"device": values, "levels": levels, "count": cluster.count})


def _level(level: Level) -> dict[str, Any]:
    return {name: _sourced(getattr(level, name), level.sources, name) for name in level.sources}


def _sourced(value: Any, sources: Mapping[str, str], name: str) -> Any:
    source = sources.get(name, "none given")
    return value if source == "none given" else {"value": value, "source": source}


if __name__ == "__main__":
    from pangu_alpha.cli import no_program

    no_program("pangu_alpha.cli.plan calibrate")
