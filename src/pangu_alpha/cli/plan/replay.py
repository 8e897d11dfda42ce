"""plan.py replay: runs the graphs of plans on CPU, and compares them with one device."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pangu_alpha.cli.plan.jobs import chip_of, plan_of, write_report
from pangu_alpha.cli.plan.text import (
    suite_text,
)
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import ConfigError, nearest, parse_overrides, to_mapping
from pangu_alpha.config.zoo import load_network
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.replay.continued import replay_change
from pangu_alpha.proof.replay.replay import ReplayReport, Setting, replay
from pangu_alpha.proof.replay.suite import Change, continued, quick, suite
from pangu_alpha.proof.replay.suite import job as small_job


def run_replays(options: argparse.Namespace, folder: Path) -> int:
    reports: list[ReplayReport] = []
    for report in _replays(options, folder):
        reports.append(report)
        if not options.json:
            print(report.table(), flush=True)
    if options.suite and not options.json:
        print(suite_text(reports))
    write_report(options, folder, {"replays": [report.to_json() for report in reports]})
    return int(not all(report.passed for report in reports))


def _replays(options: argparse.Namespace, folder: Path) -> Iterator[ReplayReport]:
    all_work = replayed(options)
    for number, (name, work) in enumerate(all_work.items(), 1):
        if not sys.stderr.isatty():  # a terminal shows a progress bar instead
            print(f"{number} of {len(all_work)}: {name}: compiled, then run", file=sys.stderr, flush=True)
        target = folder / name.replace(" ", "_").replace(",", "")
        if isinstance(work, Change):
            yield from replay_change(name, work, target, options.steps)
        else:
            yield replay(name, work, target, Setting(options.steps))


def replayed(options: argparse.Namespace) -> Mapping[str, Job | Change]:
    plan = plan_of(options)
    if options.suite:
        if plan != ParallelPlan():
            raise ValueError("replay: --suite has plans of its own; leave out the options of a plan")
        if ignored := _of_one_replay(options):
            raise ValueError(f"replay: --suite has networks of its own; leave out {', '.join(ignored)}")
        suites: dict[str, Callable[[], Any]] = {"quick": quick, "full": suite, "continued": continued}
        return suites[options.suite]()
    if plan.devices == 1:
        raise ValueError(
            "replay: a plan of one device is what others are compared with; give --dp, --tp, --pp"
        )
    defaults = ParallelPlan()
    differing = [
        f"{field.name} {getattr(plan, field.name)}"
        for field in fields(ParallelPlan)
        if getattr(plan, field.name) != getattr(defaults, field.name)
    ]
    known = parse_overrides(options.model_fields)
    names = [field.name for field in fields(ModelConfig)]
    if unknown := set(known) - {*names}:
        raise ConfigError(
            [f"{name}: not a field of a model; {nearest(name, names)}" for name in sorted(unknown)]
        )
    if options.dropout is not None:
        if "dropout" in known:
            raise ValueError("replay: --dropout and dropout= both give the rate; leave one out")
        known = {**known, "dropout": options.dropout}
    shape = {"num_layers": 2} if options.model is None else _float32_shape(options.model)
    layers = shape.pop("num_layers")
    layers = layers if options.num_layers is None else options.num_layers
    job = replace(small_job(plan, layers, **shape | known), chip=chip_of(options))
    return {", ".join(differing): job}


def _of_one_replay(options: argparse.Namespace) -> list[str]:
    """Options and words on the command line that say what one plan is replayed with."""
    names = ("model", "num_layers", "dropout", "chip")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None]
    return [*given, *options.model_fields]


def _float32_shape(name: str) -> dict[str, Any]:
    """Fields of a model in a form that can be replayed on CPU."""
    return to_mapping(load_network(name).model) | {"dropout": 0.0, "compute_dtype": "float32"}


if __name__ == "__main__":
    from pangu_alpha.cli import no_program

    no_program("pangu_alpha.cli.plan replay")
