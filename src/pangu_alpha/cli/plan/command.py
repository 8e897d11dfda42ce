"""Command line of plan.py: searches for parallel plans, and dry-runs, replays and compares them on a CPU."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pangu_alpha.cli.plan import calibrate, train_replay
from pangu_alpha.cli.plan import operators as operators_command
from pangu_alpha.cli.plan import search as search_command
from pangu_alpha.cli.plan.dry_run import compile_ranks, run_dry_run, stages_with_traffic
from pangu_alpha.cli.plan.jobs import chip_of, job_of, network_of, plan_of, write_report
from pangu_alpha.cli.plan.options import plan_parser
from pangu_alpha.cli.plan.replay import run_replays
from pangu_alpha.cli.plan.text import (
    ways_text,
)
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.planner.search.search import Candidate
from pangu_alpha.proof.checks.stages import together
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.dry_run.links import Cluster
from pangu_alpha.proof.dry_run.strategy_searches import SEARCHES, TABLE, job_for, try_way


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs plan.py; raises ValueError for what the user can fix."""
    options = plan_parser().parse_args(arguments)
    if options.command == "calibrate":
        return calibrate.run(options)
    command = {
        "search": _search,
        "operators": _operators,
        "dry-run": run_dry_run,
        "replay": run_replays,
        "train-replay": _train_replay,
        "strategies": _strategies,
    }[options.command]
    out = getattr(options, "out", None)
    temporary = nullcontext(out) if out else tempfile.TemporaryDirectory(prefix="plan_")
    with temporary as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        return command(options, Path(folder))


def _search(options: argparse.Namespace, folder: Path) -> int:
    if (options.pictures or options.verify) and not options.out:
        raise ValueError("search: --pictures and --verify leave files; name their folder with --output DIR")
    model, optim = network_of(options)

    def verify(best: Candidate, folder: Path, family: str) -> bool:
        """Whether every stage compiles as formulas and sharding table predict, and all ranks' calls match."""
        chip: dict[str, Any] = {"chip": family} if family else {}
        job = Job(model, best.plan, optim, best.job.micro_batch, **chip)
        mesh = Mesh.of(job.plan)
        ranks = [mesh.rank(stage=stage) for stage in range(mesh.pp)]
        cluster = Cluster.in_order(job.plan.devices)
        summaries = compile_ranks(job, ranks, cluster, folder / "dry_run", options.timeout)
        all_ranks = together({each.rank: each.order for each in summaries}, mesh)
        good = all_ranks.meet and all(each.agrees for each in summaries)
        said = f"\n{stages_with_traffic(summaries, job)}\n{all_ranks.text()}"
        said += f"\n\nverified: {'yes' if good else 'NO'}"
        print(said, file=sys.stderr if options.json else sys.stdout)
        return good

    return search_command.run(options, model, folder, verify)


def _operators(options: argparse.Namespace, folder: Path) -> int:
    model, _ = network_of(options)
    return operators_command.run(options, model, folder)


def _train_replay(options: argparse.Namespace, folder: Path) -> int:
    return train_replay.run(options, plan_of(options), chip_of(options), folder)


def _strategies(options: argparse.Namespace, folder: Path) -> int:
    job = job_of(options)
    jobs = {way: job_for(way, job) for way in (TABLE, *SEARCHES)}
    ways = [try_way(way, each, folder, options.timeout) for way, each in tqdm(jobs.items(), desc="compiled")]
    write_report(options, folder, {"job": to_mapping(job), "ways": [asdict(way) for way in ways]})
    if not options.json:
        print(_strategies_heading(job))
        print(ways_text(ways))
    return 0


def _strategies_heading(job: Job) -> str:
    plan = job.plan
    return (
        f"{job.model.num_layers} layers, {plan.devices} devices, {job.batch_size * plan.dp} rows; table: "
        f"dp {plan.dp}, tp {plan.tp}; the searches read rows on all devices"
    )


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
