"""The commands that launch a plan on a cluster by a rank table, to be run as they stand."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.planner.cost.hardware import Cluster, device_names
from pangu_alpha.planner.cost.job import Job
from pangu_alpha.planner.search.placing import chip_of, in_rank_order, placement_of, rack_servers
from pangu_alpha.planner.search.search import Candidate


def placement_text(job: Job, cluster: Cluster) -> str:
    """Where a job's axes run, in words."""
    try:
        return f"placement {placement_of(job, cluster)}"
    except ValueError:  # sizes that do not nest
        return f"axes from neighbouring devices outwards: {', '.join(job.order)}"


def placement_words(job: Job, cluster: Cluster) -> list[str]:
    """Options of `rank_table.py permute` that place a job as it wants; none in MindSpore's own order."""
    if in_rank_order(job):
        return []
    try:
        placement = placement_of(job, cluster)
    except ValueError:  # sizes that do not nest
        return ["--order", ",".join(job.order)]
    return ["--servers-per-rack", str(rack_servers(cluster, job.devices)), "--placement", str(placement)]


def commands(best: Candidate, cluster: Cluster, folder: Path, has_table: bool) -> list[str]:
    """What to run, in turn, from the folder of the checkout: a heading, then a line for each command.

    Args:
        best: The plan.
        cluster: Where.
        folder: Holds the rank table, or gets it.
        has_table: The rank table is already there.

    Returns:
        The lines; none for devices that have no rank tables.
    """
    chip, job = chip_of(cluster), best.job
    if chip is None and cluster.device.name in device_names():
        return []
    table, rules = folder / "rank_table.json", ["--chip", chip] if chip else []
    grid = [word for axis in ("dp", "tp", "pp") for word in (f"--{axis}", str(getattr(job, axis)))]
    lines = [] if has_table else _making(job, cluster, folder, grid)
    lines.append(_python("check", table, *rules, *grid))
    words = ["--config", "run.yaml", "--start", "rank-table", "--rank-table", table, *rules, "--dry"]
    lines.append(_shell("bash", "run_scripts/run_distribute_train.sh", *words, *_settings(best)))
    hosts = "" if has_table else f", {_hosts(chip)} your servers rack by rack"
    heading = f"To launch it (run.yaml is your run without a section parallel{hosts}; without --dry it runs):"
    return [heading, *(f"  {line}" for line in lines)]


def _making(job: Job, cluster: Cluster, folder: Path, grid: list[str]) -> list[str]:
    """The commands that build the rank table and give the ranks out."""
    table, chip, words = folder / "rank_table.json", chip_of(cluster), placement_words(job, cluster)
    rules = ["--chip", chip] if chip else []
    built = folder / "servers.json" if words else table
    version = ["--version", "1.2"] if chip == "910C" else []
    lines = [_python("build", "--hosts", _hosts(chip), *rules, *version, "--output", built)]
    if words:
        lines.append(_python("permute", built, *rules, *grid, *words, "--output", table))
    return lines


def _hosts(chip: str | None) -> str:
    return "hosts.yaml" if chip == "910C" else "hosts.txt"  # super pods need YAML


def _settings(best: Candidate) -> list[str]:
    """Words of train.py for all in which a plan differs from one device."""
    plan, usual = to_mapping(best.plan), to_mapping(ParallelPlan())
    words = [f"parallel.{name}={_value(value)}" for name, value in plan.items() if value != usual[name]]
    return [*words, f"run.batch_size={best.job.micro_batch}"]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{','.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def _python(*words: object) -> str:
    return _shell("python", "src/rank_table.py", *words)


def _shell(*words: object) -> str:
    return shlex.join(map(str, words))
