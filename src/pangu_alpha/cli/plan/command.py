"""Command line of plan.py: search for parallel plans; dry runs, replays and comparisons of them on a CPU."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pangu_alpha.cli.plan import calibrate, train_replay
from pangu_alpha.cli.plan import search as search_command
from pangu_alpha.cli.plan.memory import memory_text
from pangu_alpha.cli.plan.options import plan_parser
from pangu_alpha.cli.plan.text import (
    dropout_text,
    rank_text,
    size,
    stages_text,
    suite_text,
    traffic_text,
    ways_text,
)
from pangu_alpha.cluster.tables.rank_table import read as read_rank_table
from pangu_alpha.config.families import FAMILIES, JIT_LEVEL, compute_type, has_flash_attention
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.plan_file import plan_section
from pangu_alpha.config.schema import ConfigError, build, parse_overrides, read_yaml, to_mapping
from pangu_alpha.config.zoo import load_network
from pangu_alpha.files.shown import quoted
from pangu_alpha.files.writing import json_text, write_text
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.planner.operators import verify as compiled
from pangu_alpha.planner.operators.draw import draw_operators
from pangu_alpha.planner.operators.patterns import operators_text
from pangu_alpha.planner.operators.strategies import best_block
from pangu_alpha.planner.search.search import Candidate
from pangu_alpha.proof.checks.dropout import shared
from pangu_alpha.proof.checks.stages import Together, together
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.draw import draw_traffic
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.dry_run.links import Cluster
from pangu_alpha.proof.dry_run.report import RankSummary, summarise
from pangu_alpha.proof.dry_run.strategy_searches import SEARCHES, TABLE, job_for, try_way
from pangu_alpha.proof.replay.continued import replay_change
from pangu_alpha.proof.replay.replay import ReplayReport, Setting, replay
from pangu_alpha.proof.replay.suite import Change, continued, quick, suite
from pangu_alpha.proof.replay.suite import job as small_job

_COMPILERS = 2  # children at once: each takes a core, and gigabytes for a large model
_SHOWN = (2, 4, 8)  # devices that a picture of a block's ways shows


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs plan.py; raises ValueError for what the user can mend."""
    options = plan_parser().parse_args(arguments)
    if options.command == "calibrate":
        return calibrate.run(options)
    command = {
        "search": _search,
        "operators": _operators,
        "dry-run": _dry_run,
        "replay": _replay,
        "train-replay": _train_replay,
        "strategies": _strategies,
    }[options.command]
    out = getattr(options, "out", None)
    temporary = nullcontext(out) if out else tempfile.TemporaryDirectory(prefix="plan_")
    with temporary as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        return command(options, Path(folder))


def plan_of(options: argparse.Namespace) -> ParallelPlan:
    """The plan of the options; says of a pipeline without micro-batches how many it takes.

    Raises:
        ConfigError: It breaks a rule, or its devices are not those asked for.
    """
    values = _plan_values(options)
    for field in fields(ParallelPlan):
        given = getattr(options, field.name, None)
        if given is not None:
            values[field.name] = given
    stages = values.get("pp", 1)
    if type(stages) is int and stages > 1 and values.get("micro_batches") is None:
        values["micro_batches"] = stages
        said = f"--micro-batches {stages}: none given, so the least that fills {stages} stages"
        print(said, file=sys.stderr if options.json else sys.stdout)
    if isinstance(values.get("recompute"), str) and "," in values["recompute"]:
        values["recompute"] = tuple(values["recompute"].split(","))
    plan = build(ParallelPlan, values)
    if options.devices is not None and options.devices != plan.devices:
        raise ConfigError([_devices_problem(options.devices, plan)])
    return plan


def _plan_values(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of the plan in the YAML of --plan."""
    values = plan_section(read_yaml(options.plan), options.plan) if options.plan is not None else {}
    if not isinstance(values, dict):
        raise ValueError(f"--plan: {options.plan}: parallel must be a mapping of fields, such as dp: 8")
    return values


def _devices_problem(devices: int, plan: ParallelPlan) -> str:
    said = f"devices: {devices}, but dp {plan.dp} * tp {plan.tp} * pp {plan.pp} = {plan.devices}"
    other, rest = divmod(devices, plan.tp * plan.pp)
    if other and not rest:
        return f"{said}; dp {other} would fit"
    return f"{said}; tp * pp = {plan.tp * plan.pp} does not divide {devices}, so no dp fits"


def job_of(options: argparse.Namespace) -> Job:
    """What is compiled."""
    model, optim = _network(options)
    return Job(
        model,
        plan_of(options),
        optim,
        _batch_size(options),
        chip=_chip(options),
        initialize=getattr(options, "initialize", False),
        attention_dropout=_attention_dropout(options),
    )


def _attention_dropout(options: argparse.Namespace) -> str:
    """Who draws the masks of attention weights: as given, or as the YAML of the plan says."""
    given = getattr(options, "attention_dropout", None)
    return given or _run_of_plan(options).get("attention_dropout", Job.attention_dropout)


def _chip(options: argparse.Namespace) -> str:
    """The family of chips: as given, or as the YAML of the plan says, or an A2."""
    chip = getattr(options, "chip", None) or _run_of_plan(options).get("chip", "auto")
    return Job.chip if chip == "auto" else chip


def _run_of_plan(options: argparse.Namespace) -> dict[str, Any]:
    """The section run of the YAML of --plan."""
    run = read_yaml(options.plan).get("run") if options.plan is not None else None
    return run if isinstance(run, dict) else {}


def _batch_size(options: argparse.Namespace) -> int:
    """Rows of a micro-batch: as given, or as the YAML of the plan says, or 1."""
    if options.batch_size is not None:
        return options.batch_size
    size = _run_of_plan(options).get("batch_size", 1)
    if type(size) is not int or size < 1:
        raise ValueError(
            f"--plan: {options.plan}: run.batch_size is {quoted(size)}; give a whole number above 0"
        )
    return size


def _network(options: argparse.Namespace) -> tuple[ModelConfig, OptimConfig]:
    network = load_network(options.model)
    if options.layers is None:
        return network.model, network.optim
    return replace(network.model, num_layers=options.layers), network.optim


def _search(options: argparse.Namespace, folder: Path) -> int:
    if (options.pictures or options.verify) and not options.out:
        raise ValueError("search: --pictures and --verify leave files; name their folder with --out DIR")
    model, optim = _network(options)

    def verify(best: Candidate, folder: Path, family: str) -> bool:
        """Whether every stage compiles to what formulas and sharding table say, and all ranks meet."""
        chip = {"chip": family} if family else {}
        job = Job(model, best.plan, optim, best.job.micro_batch, **chip)
        mesh = Mesh.of(job.plan)
        ranks = [mesh.rank(stage=stage) for stage in range(mesh.pp)]
        cluster = Cluster.in_order(job.plan.devices)
        summaries = _compile(job, ranks, cluster, folder / "dry_run", options.timeout)
        all_ranks = together({each.rank: each.order for each in summaries}, mesh)
        good = all_ranks.meet and all(each.agrees for each in summaries)
        said = f"\n{_stages(summaries, job)}\n{all_ranks.text()}\n\nverified: {'yes' if good else 'NO'}"
        print(said, file=sys.stderr if options.json else sys.stdout)
        return good

    return search_command.run(options, model, folder, verify)


def _operators(options: argparse.Namespace, folder: Path) -> int:
    model, _ = _network(options)
    asked = (model, options.devices, options.batch_size, options.micro_batches, options.limit)
    print(operators_text(*asked))
    if options.picture is not None:
        draw_operators(model, _SHOWN, options.picture)
    if not options.verify:
        return 0
    lines = compiled.verify(model, best_block(*asked), folder, options.timeout)
    print(
        f"\nCollectives of a block, as modelled and as MindSpore compiles them\n{compiled.lines_text(lines)}"
    )
    return int(not all(line.equal for line in lines))


def _dry_run(options: argparse.Namespace, folder: Path) -> int:
    job = job_of(options)
    mesh, cluster = Mesh.of(job.plan), _cluster(options, job.plan)
    ranks = list(options.ranks or [options.rank])
    if options.all_stages:
        ranks = [mesh.rank(stage=stage) for stage in range(mesh.pp)]
    for rank in ranks:
        mesh.coordinates(rank)  # refuses a rank outside the grid
    summaries = _compile(job, ranks, cluster, folder, options.timeout)
    masks = shared({each.rank: each.dropout for each in summaries}, job.plan)
    found = {
        "job": to_mapping(job),
        "ranks": [each.to_json() for each in summaries],
        "dropout": masks,
    }
    all_ranks = None
    if options.all_stages:
        all_ranks = together({each.rank: each.order for each in summaries}, mesh)
        found["together"] = {"meet": all_ranks.meet, **asdict(all_ranks)}
    _report(options, folder, found)
    if options.picture is not None:
        draw_traffic(summaries, options.picture)
    if not options.json:
        print(f"{options.model}, {job.plan.devices} devices: dp {mesh.dp}, tp {mesh.tp}, pp {mesh.pp}")
        print(_chip_text(job))
        print(_dry_run_text(job, summaries, all_ranks, masks))
    good = all(each.agrees for each in summaries) and not masks
    return int(not good or bool(all_ranks and not all_ranks.meet))


def _dry_run_text(
    job: Job, summaries: Sequence[RankSummary], all_ranks: Together | None, masks: Sequence[str]
) -> str:
    """What is shown of the compiled ranks: all of one, or a row for each of several."""
    if len(summaries) == 1 and not all_ranks:
        return f"{rank_text(summaries[0])}\n\n{memory_text(summaries, job)}"
    if all_ranks:
        text = f"{_stages(summaries, job)}\n{all_ranks.text()}"
    else:
        text = stages_text(summaries, Mesh.of(job.plan), job.plan.stage_layers(job.model.num_layers))
    return f"{text}\n\n{dropout_text(summaries, masks)}" if job.model.dropout else text


def _chip_text(job: Job) -> str:
    """What the chip decides: attention, how overflow is noticed, how MindSpore compiles."""
    family = FAMILIES[job.chip]
    attention = "with" if has_flash_attention(job.model, job.chip) else "without"
    told = "the chip's float status" if family.saturates else "inf and NaN"
    return (
        f"{job.chip} ({family.products}; --chip): {attention} flash attention, overflow by {told}, "
        f"{compute_type(job.model, job.chip)}, jit level {JIT_LEVEL}"
    )


def _cluster(options: argparse.Namespace, plan: ParallelPlan) -> Cluster:
    if options.rank_table is None:
        return Cluster.in_order(plan.devices, options.servers_per_rack)
    return Cluster.of(read_rank_table(options.rank_table, Mesh.of(plan)), options.servers_per_rack)


def _compile(
    job: Job, ranks: Sequence[int], cluster: Cluster, folder: Path, timeout: float
) -> list[RankSummary]:
    """Compiles ranks, a few at once."""

    def one(rank: int) -> RankSummary:
        began = time.perf_counter()
        found = compile_rank(job, rank, folder, timeout)
        return summarise(job, found, cluster, time.perf_counter() - began)

    with (
        ThreadPoolExecutor(_COMPILERS) as pool,
        tqdm(total=len(ranks), desc="compiled", disable=len(ranks) == 1) as bar,
    ):
        waiting = [pool.submit(one, rank) for rank in ranks]
        try:
            for each in waiting:
                each.result()
                bar.update()
        except ValueError:
            pool.shutdown(cancel_futures=True)  # the first refusal is enough
            raise
    return [each.result() for each in waiting]


def _stages(summaries: Sequence[RankSummary], job: Job) -> str:
    """A row for each stage; the traffic of the first, one between, the last, and the first that is wrong."""
    layers = job.plan.stage_layers(job.model.num_layers)
    wrong = [each for each in summaries if not each.agrees][:1]
    typical = (summaries[0], summaries[len(summaries) // 2], summaries[-1])
    shown = {each.stage: each for each in sorted((*typical, *wrong), key=lambda each: each.stage)}
    parts = [stages_text(summaries, Mesh.of(job.plan), layers)]
    parts += [f"Traffic of a step, stage {stage}\n{traffic_text(each)}" for stage, each in shown.items()]
    parts.append(memory_text(list(shown.values()), job))
    total = sum(sum(each.wire().values()) for each in summaries) * job.plan.dp * job.plan.tp
    return "\n\n".join([*parts, f"all devices send {size(total)} in a step"])


def _replay(options: argparse.Namespace, folder: Path) -> int:
    reports: list[ReplayReport] = []
    for report in _replays(options, folder):
        reports.append(report)
        if not options.json:
            print(report.table(), flush=True)
    if options.suite and not options.json:
        print(suite_text(reports))
    _report(options, folder, {"replays": [report.to_json() for report in reports]})
    return int(not all(report.passed for report in reports))


def _replays(options: argparse.Namespace, folder: Path) -> Iterator[ReplayReport]:
    for name, work in _replayed(options).items():
        target = folder / name.replace(" ", "_").replace(",", "")
        if isinstance(work, Change):
            yield from replay_change(name, work, target, options.steps)
        else:
            yield replay(name, work, target, Setting(options.steps))


def _replayed(options: argparse.Namespace) -> dict[str, Job] | dict[str, Change]:
    plan = plan_of(options)
    if options.suite:
        if plan != ParallelPlan():
            raise ValueError("replay: --suite has plans of its own; leave out the options of a plan")
        return {"quick": quick, "full": suite, "continued": continued}[options.suite]()
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
    unknown = set(known) - {field.name for field in fields(ModelConfig)}
    if unknown:
        raise ConfigError([f"{name}: not a field of a model" for name in sorted(unknown)])
    if options.dropout is not None:
        if "dropout" in known:
            raise ValueError("replay: --dropout and dropout= both give the rate; leave one out")
        known = {**known, "dropout": options.dropout}
    shape = {"num_layers": 2} if options.model is None else _float32_shape(options.model)
    layers = shape.pop("num_layers")
    layers = layers if options.layers is None else options.layers
    job = replace(small_job(plan, layers, **shape | known), chip=_chip(options))
    return {", ".join(differing): job}


def _float32_shape(name: str) -> dict[str, Any]:
    """Fields of a model as CPU can replay it."""
    return to_mapping(load_network(name).model) | {"dropout": 0.0, "compute_dtype": "float32"}


def _train_replay(options: argparse.Namespace, folder: Path) -> int:
    return train_replay.run(options, plan_of(options), _chip(options), folder)


def _strategies(options: argparse.Namespace, folder: Path) -> int:
    job = job_of(options)
    jobs = {way: job_for(way, job) for way in (TABLE, *SEARCHES)}
    ways = [try_way(way, each, folder, options.timeout) for way, each in tqdm(jobs.items(), desc="compiled")]
    _report(options, folder, {"job": to_mapping(job), "ways": [asdict(way) for way in ways]})
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


def _report(options: argparse.Namespace, folder: Path, values: dict[str, Any]) -> None:
    text = json_text(values)
    if options.out:
        write_text(folder / "report.json", text + "\n")
    if options.json:
        print(text)


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
