"""Writes the shell commands that launch a plan on a cluster with a rank table, ready to be run."""

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
    """Describes in words where a job's axes run."""
    try:
        return f"placement {placement_of(job, cluster)}"
    except ValueError:  # sizes do not nest, so only the order describes the placement
        return f"axes from neighbouring devices outwards: {', '.join(job.order)}"


def placement_words(job: Job, cluster: Cluster) -> list[str]:
    """Options of `rank_table.py permute` for a job's `order`; none if MindSpore's order is the same."""
    if in_rank_order(job):
        return []
    try:
        placement = placement_of(job, cluster)
    except ValueError:  # sizes do not nest
        return ["--order", ",".join(job.order)]
    return ["--servers-per-rack", str(rack_servers(cluster, job.devices)), "--placement", str(placement)]


def commands(best: Candidate, cluster: Cluster, folder: Path, has_table: bool) -> list[str]:
    """The commands to run one after another from the checkout's folder.

    Args:
        folder: Folder that holds the rank table, or that will.
        has_table: Whether the rank table exists already.

    Returns:
        A heading and one line for each command; empty for devices that have no rank tables.
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
    """The commands that build the rank table and assign the ranks."""
    table, chip, words = folder / "rank_table.json", chip_of(cluster), placement_words(job, cluster)
    rules = ["--chip", chip] if chip else []
    built = folder / "servers.json" if words else table
    version = ["--version", "1.2"] if chip == "910C" else []
    lines = [_python("build", "--hosts", _hosts(chip), *rules, *version, "--output", built)]
    if words:
        lines.append(_python("permute", built, *rules, *grid, *words, "--output", table))
    return lines


def _hosts(chip: str | None) -> str:
    return "hosts.yaml" if chip == "910C" else "hosts.txt"  # only YAML can describe super-pods


def _settings(best: Candidate) -> list[str]:
    """Arguments of train.py for everything in which the plan differs from the default plan."""
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
