"""Command line of plan.py: search for parallel plans; dry runs, replays and comparisons of them on a CPU."""

from __future__ import annotations

import argparse
import json
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

from pangu_alpha.cli import calibrate
from pangu_alpha.cli import search as search_command
from pangu_alpha.cli.plan_text import rank_text, size, stages_text, traffic_text, ways_text
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.optim import OptimConfig
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import ConfigError, build, parse_overrides, read_yaml, to_mapping
from pangu_alpha.config.zoo import MODEL_NAMES, load_network
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.rank_table import read as read_rank_table
from pangu_alpha.planner import verify as compiled
from pangu_alpha.planner.draw_operators import draw_operators
from pangu_alpha.planner.patterns import operators_text
from pangu_alpha.planner.search import Candidate
from pangu_alpha.planner.strategies import best_block
from pangu_alpha.proof.draw import draw_traffic
from pangu_alpha.proof.dry_run import Job, compile_rank
from pangu_alpha.proof.links import Cluster
from pangu_alpha.proof.replay import ReplayReport, Setting, replay
from pangu_alpha.proof.replay_continued import replay_change
from pangu_alpha.proof.report import RankSummary, summarise
from pangu_alpha.proof.search import SEARCHES, TABLE, job_for, try_way
from pangu_alpha.proof.suite import Change, continued, quick, suite
from pangu_alpha.proof.suite import job as small_job

_COMPILERS = 2  # children at once: each takes a core, and gigabytes for a large model

_SHOWN = (2, 4, 8)  # devices that a picture of a block's ways shows

_EXAMPLES = """\
examples:
  plan.py search --model 13b --cluster 910a-1024 --global-batch 1024 --out planned
  plan.py search --model 200b --cluster table.json --levels 910a --global-batch 512 --out planned --verify
  plan.py operators --model 13b --devices 8 --batch-size 4
  plan.py calibrate --from run/metrics.jsonl --cluster 910b-64 --output my_cluster.yaml
  plan.py dry-run --model 2_6b --devices 512 --dp 64 --tp 8 --optimizer-parallel level1
  plan.py dry-run --model 200b --devices 2048 --dp 16 --tp 8 --pp 16 --micro-batches 32 \\
      --optimizer-parallel level1 --recompute full --servers-per-rack 16 --all-stages --out report
  plan.py replay --model tiny --dp 2 --tp 2 --pp 2 --micro-batches 4
  plan.py replay --suite quick
  plan.py replay --suite continued
  plan.py strategies --model 2_6b --devices 8 --tp 8 --batch-size 8 --layers 4

exit code: 0 good; 1 there is no plan, a replay failed, or a dry run found what formulas or the sharding table
do not say; 2 wrong options, or a plan that MindSpore refuses
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="plan.py",
        description="What a parallel plan does, shown on a CPU machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _search_parsers(commands)
    one = commands.add_parser("dry-run", help="compile ranks of a plan: what they hold and send")
    _model_options(one)
    _plan_options(one)
    which = one.add_mutually_exclusive_group()
    which.add_argument("--rank", type=int, default=0, help="rank to compile (default: 0)")
    which.add_argument("--all-stages", action="store_true", help="the first rank of every stage")
    one.add_argument("--rank-table", metavar="FILE", help="where ranks stand (default: servers of 8 devices "
        "in the order of the ranks)")  # fmt: skip
    one.add_argument("--servers-per-rack", type=int, metavar="N", help="(default: one rack holds all)")
    one.add_argument("--picture", metavar="PNG", help="draws what each stage sends")
    _output_options(one)
    one = commands.add_parser("replay", help="run a plan's graphs on CPU and compare with one device")
    one.add_argument(
        "--suite",
        nargs="?",
        const="quick",
        choices=("quick", "full", "continued"),
        help="the shipped plans instead of one; continued: changes of the plan in the midst of training",
    )
    one.add_argument("--steps", type=int, default=3, help="optimizer steps, of continued ones under each "
        "plan (default: 3)")  # fmt: skip
    one.add_argument("--model", metavar="NAME|YAML", help="its shape, in float32 without dropout (default: a "
        "network of hidden size 32)")  # fmt: skip
    one.add_argument("--layers", type=int, help="layers (default: the model's, or 2)")
    one.add_argument("model_fields", nargs="*", metavar="field=value", help="of the network, such as "
        "vocab_size=63 norm_order=query_then_norm")  # fmt: skip
    _plan_options(one)
    _output_options(one)
    one = commands.add_parser("strategies", help="the sharding table beside MindSpore's own searches")
    _model_options(one)
    _plan_options(one)
    _output_options(one)
    return parser


def _search_parsers(commands: argparse._SubParsersAction) -> None:
    """The commands that compute and compile nothing."""
    one = commands.add_parser("search", help="the fastest plans for a model on a cluster")
    _network_options(one)
    search_command.add_options(one)
    one.add_argument("--timeout", type=float, default=1800.0, metavar="S", help="seconds a compilation of "
        "--verify may take (default: 1800)")  # fmt: skip
    _output_options(one)
    one = commands.add_parser("operators", help="the best way to split each operator of a block")
    _network_options(one)
    one.add_argument("--devices", type=int, required=True, metavar="N", help="that share the block")
    one.add_argument("--batch-size", type=int, default=1, metavar="B", help="sequences of a micro-batch on "
        "all of them (default: 1)")  # fmt: skip
    one.add_argument("--micro-batches", type=int, default=1, metavar="M", help="of a step (default: 1)")
    one.add_argument("--limit", type=float, metavar="BYTES", help="of the block's matrices and their moments "
        "on a device")  # fmt: skip
    one.add_argument("--verify", action="store_true", help="compiles the found way and compares call by call")
    one.add_argument("--picture", metavar="PNG", help="draws bytes by tokens for 2, 4, 8 devices")
    one.add_argument(
        "--timeout", type=float, default=1800.0, metavar="S", help="seconds a compilation may take"
    )
    one = commands.add_parser("calibrate", help="a cluster's constants from your own logged steps")
    calibrate.add_options(one)


def _network_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="NAME|YAML", help=f"{', '.join(MODEL_NAMES)}, or a YAML with a "
        "section model")  # fmt: skip
    add("--layers", type=int, metavar="L", help="this many layers instead of the model's")


def _model_options(parser: argparse.ArgumentParser) -> None:
    _network_options(parser)
    add = parser.add_argument
    add("--batch-size", type=int, metavar="B", help="rows of a micro-batch on each data-parallel rank "
        "(default: run.batch_size of --plan, or 1)")  # fmt: skip
    add("--timeout", type=float, default=1800.0, metavar="S", help="seconds a compilation may take "
        "(default: 1800)")  # fmt: skip


def _plan_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("plan").add_argument
    add("--plan", metavar="YAML", help="the fields of a plan; options change single ones")
    add("--devices", type=int, metavar="N", help="must be dp * tp * pp")
    for name, text in (("dp", "data"), ("tp", "tensor"), ("pp", "pipeline")):
        add(f"--{name}", type=int, help=f"degree of {text} parallelism (default: 1)")
    add("--micro-batches", type=int, metavar="M", help="micro-batches of a step (default: 1)")
    add("--schedule", help="order of a pipeline's micro-batches: 1f1b, gpipe")
    add("--layers-per-stage", type=_integers, metavar="N,N,...", help="(default: as even as they go)")
    add("--optimizer-parallel", metavar="LEVEL", help="none, level1, level2, level3")
    add("--optimizer-threshold", type=int, metavar="KB", help="smallest parameter that is cut (default: 64)")
    add("--recompute", metavar="MODE", help="none, selective, full; or one word for each layer, with commas")
    add("--sequence-parallel", action="store_true", default=None, help="norms and residuals cut over tp by "
        "rows")  # fmt: skip
    add("--no-vocab-parallel", dest="vocab_parallel", action="store_false", default=None, help="table, "
        "logits and loss whole on every rank of tp")  # fmt: skip
    add("--gradient-fusion", type=int, metavar="MB", help="buckets of gradients (default: 0, none)")


def _output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="keeps graphs, logs and report.json there")
    parser.add_argument("--json", action="store_true", help="prints report.json instead of tables")


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs plan.py; raises ValueError for what the user can mend."""
    options = _parser().parse_args(arguments)
    if options.command == "calibrate":
        return calibrate.run(options)
    command = {
        "search": _search,
        "operators": _operators,
        "dry-run": _dry_run,
        "replay": _replay,
        "strategies": _strategies,
    }[options.command]
    out = getattr(options, "out", None)
    temporary = nullcontext(out) if out else tempfile.TemporaryDirectory(prefix="plan_")
    with temporary as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        return command(options, Path(folder))


def plan_of(options: argparse.Namespace) -> ParallelPlan:
    """The plan of the options.

    Raises:
        ConfigError: It breaks a rule, or its devices are not those asked for.
    """
    values = read_yaml(options.plan) if options.plan else {}
    values = values.get("parallel", values)
    for field in fields(ParallelPlan):
        given = getattr(options, field.name, None)
        if given is not None:
            values[field.name] = given
    if isinstance(values.get("recompute"), str) and "," in values["recompute"]:
        values["recompute"] = tuple(values["recompute"].split(","))
    plan = build(ParallelPlan, values)
    if options.devices is not None and options.devices != plan.devices:
        raise ConfigError([_devices_problem(options.devices, plan)])
    return plan


def _devices_problem(devices: int, plan: ParallelPlan) -> str:
    said = f"devices: {devices}, but dp {plan.dp} * tp {plan.tp} * pp {plan.pp} = {plan.devices}"
    other, rest = divmod(devices, plan.tp * plan.pp)
    if other and not rest:
        return f"{said}; dp {other} would fit"
    return f"{said}; tp * pp = {plan.tp * plan.pp} does not divide {devices}, so no dp fits"


def job_of(options: argparse.Namespace) -> Job:
    """What is compiled."""
    model, optim = _network(options)
    return Job(model, plan_of(options), optim, _batch_size(options))


def _batch_size(options: argparse.Namespace) -> int:
    """Rows of a micro-batch: as given, or as the YAML of the plan says, or 1."""
    if options.batch_size is not None or not options.plan:
        return 1 if options.batch_size is None else options.batch_size
    return (read_yaml(options.plan).get("run") or {}).get("batch_size", 1)


def _network(options: argparse.Namespace) -> tuple[ModelConfig, OptimConfig]:
    network = load_network(options.model)
    model = replace(network.model, num_layers=options.layers) if options.layers else network.model
    return model, network.optim


def _search(options: argparse.Namespace, folder: Path) -> int:
    if (options.pictures or options.verify) and not options.out:
        raise ValueError("search: --pictures and --verify leave files; name their folder with --out DIR")
    model, optim = _network(options)

    def verify(best: Candidate, folder: Path) -> bool:
        """Whether every stage of a plan compiles to what the formulas and the sharding table say."""
        job = Job(model, best.plan, optim, best.job.micro_batch)
        mesh = Mesh.of(job.plan)
        ranks = [mesh.rank(stage=stage) for stage in range(mesh.pp)]
        cluster = Cluster.in_order(job.plan.devices)
        summaries = _compile(job, ranks, cluster, folder / "dry_run", options.timeout)
        good = all(each.agrees for each in summaries)
        said = f"\n{_stages(summaries, job)}\n\nverified: {'yes' if good else 'NO'}"
        print(said, file=sys.stderr if options.json else sys.stdout)
        return good

    return search_command.run(options, model, folder, verify)


def _operators(options: argparse.Namespace, folder: Path) -> int:
    model, _ = _network(options)
    asked = (model, options.devices, options.batch_size, options.micro_batches, options.limit)
    print(operators_text(*asked))
    if options.picture:
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
    ranks = [mesh.rank(stage=stage) for stage in range(mesh.pp)] if options.all_stages else [options.rank]
    mesh.coordinates(ranks[0])  # refuses a rank outside the grid
    summaries = _compile(job, ranks, cluster, folder, options.timeout)
    _report(options, folder, {"job": to_mapping(job), "ranks": [each.to_json() for each in summaries]})
    if options.picture:
        draw_traffic(summaries, options.picture)
    if not options.json:
        print(f"{options.model}, {job.plan.devices} devices: dp {mesh.dp}, tp {mesh.tp}, pp {mesh.pp}")
        print(_stages(summaries, job) if options.all_stages else rank_text(summaries[0]))
    return int(not all(each.agrees for each in summaries))


def _cluster(options: argparse.Namespace, plan: ParallelPlan) -> Cluster:
    if not options.rank_table:
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
    """A row for each stage; the traffic of the first, one between, and the last."""
    layers = job.plan.stage_layers(job.model.num_layers)
    shown = {each.stage: each for each in (summaries[0], summaries[len(summaries) // 2], summaries[-1])}
    parts = [stages_text(summaries, Mesh.of(job.plan), layers)]
    parts += [f"Traffic of a step, stage {stage}\n{traffic_text(each)}" for stage, each in shown.items()]
    total = sum(sum(each.wire().values()) for each in summaries) * job.plan.dp * job.plan.tp
    return "\n\n".join([*parts, f"all devices send {size(total)} in a step"])


def _replay(options: argparse.Namespace, folder: Path) -> int:
    reports: list[ReplayReport] = []
    for report in _replays(options, folder):
        reports.append(report)
        if not options.json:
            print(report.table(), flush=True)
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
    shape = _float32_shape(options.model) if options.model else {"num_layers": 2}
    layers = shape.pop("num_layers")
    return {", ".join(differing): small_job(plan, options.layers or layers, **shape | known)}


def _float32_shape(name: str) -> dict[str, Any]:
    """Fields of a model as CPU can replay it."""
    return to_mapping(load_network(name).model) | {"dropout": 0.0, "compute_dtype": "float32"}


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
    text = json.dumps(values, indent=1)
    if options.out:
        (folder / "report.json").write_text(text + "\n", "utf-8")
    if options.json:
        print(text)


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
