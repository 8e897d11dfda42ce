"""plan.py search: finds the best plans for a model, a cluster and a batch, and writes them for training."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pangu_alpha.cli.options import path_text, positive, positive_number
from pangu_alpha.cli.plan.text import table
from pangu_alpha.cluster.drawing import draw as draw_grid
from pangu_alpha.cluster.tables.rank_table import RankTable
from pangu_alpha.cluster.tables.rank_table import read as read_rank_table
from pangu_alpha.cluster.tables.rank_table import write as write_rank_table
from pangu_alpha.config.model import ModelConfig
from pangu_alpha.config.parallel import ParallelPlan, plan_section
from pangu_alpha.config.schema import build, parse_overrides, read_yaml, to_mapping
from pangu_alpha.files.writing import json_text, write_text
from pangu_alpha.files.yaml_text import yaml_text
from pangu_alpha.parallel.mesh import RANK_ORDER, Mesh
from pangu_alpha.planner.cost.cost import CostModel
from pangu_alpha.planner.cost.hardware import Cluster, load_cluster, load_stack
from pangu_alpha.planner.cost.memory import memory, state_bytes
from pangu_alpha.planner.search import draw, explain, launching, placing
from pangu_alpha.planner.search.closest_questions import nearest, problem, shortage
from pangu_alpha.planner.search.search import FREE, Answer, Candidate, Grid, Question, judge, search

_ALL = 1 << 30  # more than the number of grids
_GIB = 1 << 30


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options, except those of the model and the output."""
    add = parser.add_argument
    add("--cluster", required=True, type=path_text, metavar="NAME|YAML|TABLE", help="FAMILY-COUNT such as "
        "910a-2048, a YAML with device, levels, count or with such families (FILE:FAMILY), or a rank table "
        "(.json, with --levels)")  # fmt: skip
    add(
        "--levels",
        type=path_text,
        metavar="FAMILY|YAML",
        help="device and links of the cluster of a rank table",
    )
    add(
        "--global-batch",
        type=positive,
        required=True,
        metavar="N",
        help="sequences that an optimizer step reads on all devices together",
    )
    add(
        "--stack",
        default="pangu-alpha",
        help="the training software, whose habits the costs follow (default: %(default)s)",
    )
    add("--top", type=positive, default=5, metavar="K", help="number of grids to show (default: 5)")
    add(
        "--fix",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help=f"decisions that are not searched: {', '.join(FREE)}",
    )
    add(
        "--memory",
        type=positive_number,
        metavar="GiB",
        help="memory of a device that may be used (default: all)",
    )
    add(
        "--compare",
        type=path_text,
        metavar="YAML",
        help="a plan of your own: show its rank, and why it loses",
    )
    add("--front", action="store_true", help="also show the fastest plans for less memory")
    add("--pictures", action="store_true", help="draw timeline, parts, front and grid into --output")
    add("--verify", action="store_true", help="dry-run every stage of the best plan")


def run(
    options: argparse.Namespace,
    model: ModelConfig,
    folder: Path,
    verify: Callable[[Candidate, Path, str], bool],
) -> int:
    """Searches and explains, and writes plan.yaml and the other files asked for.

    Args:
        options: Options of the command.
        folder: Folder for files.
        verify: Dry-runs every stage of a plan for a family of chips; returns False if a stage differs from
            the formulas.

    Returns:
        Exit code: 0, or 1 if there is no plan or verification found a difference.
    """
    given = _given(options)
    question = _question(options, model, _cluster(options, given))
    mine = _own_plan(options.compare, question) if options.compare else None
    answer = None if problem(question) else _search(question, options)
    if answer is None or not answer.best:
        print(_impossible(question), file=sys.stderr)
        return 1
    best = answer.best[0]
    report: dict[str, Any] = {"answer": _as_json(answer)}
    sections = [_heading(answer), _ranking(answer), _losers(answer), _changes(answer), _memory(answer)]
    if mine is not None:
        sections.append(_compared(answer, mine, options.compare))
    front = explain.front(question) if options.front or options.pictures else ()
    if front:
        sections.append(_front(front))
        report["front"] = [_candidate_json(each) for each in front]
    if options.out:
        sections.append(_write(answer, folder, given))
    if options.pictures:
        _draw(answer, front, folder, given)
    _report(options, folder, report, sections)
    return int(options.verify and not verify(best, folder, question.cluster.device.family))


def _given(options: argparse.Namespace) -> RankTable | None:
    """Reads the rank table if --cluster is one, and checks it by the rules of the chip in --levels."""
    if not options.cluster.endswith(".json"):
        return None
    chip = placing.chip_of(load_cluster(options.levels, 1)) if options.levels else None
    return read_rank_table(options.cluster, chip=chip)


def _cluster(options: argparse.Namespace, given: RankTable | None) -> Cluster:
    if given is None:
        return load_cluster(options.cluster)
    if not options.levels:
        raise ValueError(
            f"--cluster: {options.cluster} is a rank table, which does not say what devices and links there "
            "are; add --levels with a family such as 910a, or a YAML"
        )
    return placing.cluster_of(given, options.levels)


def _question(options: argparse.Namespace, model: ModelConfig, cluster: Cluster) -> Question:
    fixed = parse_overrides(options.fix)
    if isinstance(fixed.get("order"), str):
        fixed["order"] = tuple(fixed["order"].split(","))
    capacity = None if options.memory is None else round(options.memory * _GIB)
    stack = load_stack(options.stack)
    return Question(model, cluster, stack, options.global_batch, fixed, capacity)


def _search(question: Question, options: argparse.Namespace) -> Answer:
    def bar(grids: Iterable[Grid]) -> Iterable[Grid]:
        return tqdm(grids, desc="grids", leave=False, disable=not sys.stderr.isatty())

    return search(question, options.top, progress=bar)


def _impossible(question: Question) -> str:
    """Explains why there is no plan, and shows the nearest questions that have one."""
    said = problem(question)
    if said is None and not question.fixed:
        said = shortage(question)
    lines = [f"error: no plan: {said or 'none fits with what is fixed'}", "nearest possible:"]
    began = time.perf_counter()
    ways = nearest(question)
    for each in ways:
        lines.append(f"  {each.change}: {_words(each.best)}, {each.best.seconds:.3g} s a step")
    if not ways:
        lines.append(
            f"  none was found in {time.perf_counter() - began:.0f} s; the model needs other devices"
        )
    return "\n".join(lines)


def _words(each: Candidate) -> str:
    job = each.job
    return f"dp {job.dp}, tp {job.tp}, pp {job.pp}, {job.micro_batches} micro-batches of {job.micro_batch}"


def _heading(answer: Answer) -> str:
    question, best = answer.question, answer.best[0]
    tokens = question.batch * question.model.seq_length / best.seconds
    gap = best.seconds / answer.least - 1
    proven = "no plan is faster in the model" if gap < 1e-3 else f"no plan is more than {gap:.1%} faster"
    return (
        f"{question.cluster.name}: {question.cluster.count} x {question.cluster.device.name}, batch "
        f"{question.batch}\nbest: {best.seconds:.4g} s a step, {tokens:,.0f} tokens/s; {proven} "
        f"({answer.searched} of {answer.grids} grids searched, {answer.seconds:.1f} s)"
    )


def _ranking(answer: Answer) -> str:
    model = CostModel(answer.question.cluster, answer.question.software)
    best = answer.best[0]
    rows = []
    for number, each in enumerate(answer.best, 1):
        why = "" if each is best else explain.reason(best, each, model)
        rows.append((number, *_row(each, answer.question), f"{each.seconds:.4g}", f"{_gib(each)}", why))
    header = ("", *_COLUMNS, "s/step", "GiB", "what it loses by")
    return table(header, rows, right=(0, 1, 2, 3, 4, 5, 11, 12))


_COLUMNS = (
    "dp", "tp", "pp", "micro", "rows", "optimizer", "seq", "order", "layers", "recompute"
)  # fmt: skip


def _row(each: Candidate, question: Question) -> tuple[Any, ...]:
    job, plan = each.job, each.plan
    order = ",".join(axis for axis in job.order if getattr(job, axis) > 1)
    layers = ",".join(map(str, plan.layers_per_stage)) or "even"
    words = plan.recompute
    if not isinstance(words, str):
        words = f"{sum(word != 'none' for word in words)} of {len(words)}"
    return (
        job.dp, job.tp, job.pp, job.micro_batches, job.micro_batch, plan.optimizer_parallel,
        "yes" if plan.sequence_parallel else "no", order or "-", layers, words,
    )  # fmt: skip


def _gib(each: Candidate) -> str:
    return f"{each.memory / _GIB:.1f}"


def _losers(answer: Answer) -> str:
    found = explain.too_large(answer.question, answer)
    if not found:
        return "No plan would be faster with more memory."
    rows = [(*_row(each, answer.question), f"{each.seconds:.4g}", _gib(each)) for each in found]
    limit = answer.question.limit / _GIB
    text = table((*_COLUMNS, "s/step", "GiB"), rows, right=(0, 1, 2, 3, 4, 10, 11))
    return f"Faster, but beyond the {limit:.0f} GiB of a device\n{text}"


def _changes(answer: Answer) -> str:
    best, limit = answer.best[0], answer.question.limit
    rows = [
        (
            each.what,
            f"{each.seconds:.4g}",
            f"{each.seconds / best.seconds - 1:+.2%}",
            f"{each.memory / _GIB:.1f}" + (" (does not fit)" if each.memory > limit else ""),
        )
        for each in explain.changes(best, answer.question)
    ]
    return "The best plan with one decision changed\n" + table(
        ("change", "s/step", "", "GiB"), rows, right=(1, 2)
    )


def _memory(answer: Answer) -> str:
    """Shows a device's memory by part, for the first, a middle and the last stage."""
    question, best = answer.question, answer.best[0]
    stages = memory(best.job, question.cluster.device, question.software)
    rows = []
    for number in sorted({0, len(stages) // 2, len(stages) - 1}):
        parts = [f"{size / _GIB:.2f}" for size in vars(stages[number]).values()]
        exact = state_bytes(question.model, best.plan, number)
        rows.append((number, *parts, f"{stages[number].total / _GIB:.2f}", *(f"{size:,}" for size in exact)))
    header = ("stage", *vars(stages[0]), "GiB in all", "weights exactly", "moments exactly")
    return "Memory of a device, GiB\n" + table(header, rows, right=range(len(header)))


def _own_plan(path: str, question: Question) -> ParallelPlan:
    """Reads the plan of --compare; it must have the cluster's number of devices to be ranked."""
    values = read_yaml(path)
    plan = build(ParallelPlan, plan_section(values), "parallel")
    if plan.devices != question.cluster.count:
        raise ValueError(
            f"--compare: {path}: dp {plan.dp} * tp {plan.tp} * pp {plan.pp} = {plan.devices} device"
            f"{'s' * (plan.devices > 1)}, the cluster has {question.cluster.count}"
        )
    return plan


def _compared(answer: Answer, plan: ParallelPlan, path: str) -> str:
    question, best = answer.question, answer.best[0]
    model = CostModel(question.cluster, question.software)
    lines = []
    # Orders that differ only in axes of one device are the same.
    orders: dict[tuple[str, ...], tuple[str, ...]] = {}
    known: tuple[tuple[str, ...], ...] = (RANK_ORDER, ("tp", "pp", "dp"))
    for order in known:
        orders.setdefault(tuple(axis for axis in order if getattr(plan, axis) > 1), order)
    for order in orders.values():
        mine = judge(question, plan, order)
        better = search(question, _ALL, within=mine.seconds).best
        own = next((each for each in better if each.grid == mine.grid), None)
        rank = sum(each.seconds < mine.seconds and each.grid != mine.grid for each in better) + 1
        fits = "fits" if mine.memory <= question.limit else "does NOT fit"
        lines.append(
            f"{path}, order {','.join(order)}: {mine.seconds:.4g} s a step "
            f"({mine.seconds / best.seconds - 1:+.1%}), {_gib(mine)} GiB ({fits}); place {rank} of "
            f"{answer.grids} grids; loses by {explain.reason(best, mine, model)}"
        )
        if own is not None and own.seconds < mine.seconds * 0.999:
            lost = explain.reason(own, mine, model)
            lines.append(f"  the same grid at its best takes {own.seconds:.4g} s; yours loses by {lost}")
    return "\n".join(lines)


def _front(front: tuple[Candidate, ...]) -> str:
    rows = [(_gib(each), f"{each.seconds:.4g}", _words(each), each.plan.optimizer_parallel) for each in front]
    return "Fastest plans by memory\n" + table(("GiB", "s/step", "grid", "optimizer"), rows, right=(0, 1))


def _write(answer: Answer, folder: Path, given: RankTable | None) -> str:
    """Writes plan.yaml and the rank table that places it; returns text with the next commands."""
    best, cluster = answer.best[0], answer.question.cluster
    job = best.job
    changed = {
        name: value
        for name, value in to_mapping(best.plan).items()
        if value != to_mapping(ParallelPlan())[name]
    }
    document = {"parallel": changed, "run": {"batch_size": job.micro_batch}}
    where = launching.placement_text(job, cluster)
    text = f"# {best.seconds:.4g} s a step, {_gib(best)} GiB a device by the planner; {where}\n"
    write_text(folder / "plan.yaml", text + yaml_text(document))
    lines = [f"wrote {folder / 'plan.yaml'}"]
    if given is not None:
        table = folder / "rank_table.json"
        write_rank_table(placing.placed(given, job), table, placing.chip_of(cluster))
        lines.append(f"wrote {table}: ranks where the plan wants them")
    return "\n".join([*lines, *launching.commands(best, cluster, folder, given is not None)])


def _draw(answer: Answer, front: tuple[Candidate, ...], folder: Path, given: RankTable | None) -> None:
    """Draws the schedule, the parts of the step, memory against time, and the grid on its servers."""
    question, best = answer.question, answer.best[0]
    draw.draw_timeline(best, question, folder / "timeline.png")
    draw.draw_breakdown(answer.best, question, folder / "parts.png")
    if front:
        draw.draw_front(front, question, folder / "front.png")
    job, cluster = best.job, question.cluster
    table = placing.placed(placing.table_of(cluster, job.devices) if given is None else given, job)
    mesh = Mesh(dp=job.dp, tp=job.tp, pp=job.pp)
    draw_grid(table, mesh, folder / "grid.png", placing.rack_servers(cluster, job.devices))


def _report(options: argparse.Namespace, folder: Path, values: dict[str, Any], sections: list[str]) -> None:
    text = json_text(values)
    if options.out:
        write_text(folder / "report.json", text + "\n")
    print(text if options.json else "\n\n".join(sections))


def _as_json(answer: Answer) -> dict[str, Any]:
    kept = {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
    question = kept.pop("question")
    kept["best"] = [_candidate_json(each) for each in answer.best]
    return {"cluster": question.cluster.name, "batch": question.batch} | kept


def _candidate_json(each: Candidate) -> dict[str, Any]:
    return {
        "plan": to_mapping(each.plan),
        "micro_batch": each.job.micro_batch,
        "order": list(each.job.order),
        "seconds": each.seconds,
        "memory": each.memory,
    }


if __name__ == "__main__":
    from pangu_alpha.cli import no_program

    no_program("pangu_alpha.cli.plan search")
