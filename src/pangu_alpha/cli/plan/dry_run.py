"""plan.py dry-run: compiles ranks of a plan, and shows what they hold and send."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from pangu_alpha.cli.plan.jobs import job_of, write_report
from pangu_alpha.cli.plan.memory import memory_text
from pangu_alpha.cli.plan.operators import block_text
from pangu_alpha.cli.plan.text import (
    dropout_text,
    rank_text,
    size,
    stages_text,
    traffic_text,
)
from pangu_alpha.cluster.tables.rank_table import read as read_rank_table
from pangu_alpha.config.families import FAMILIES, JIT_LEVEL, compute_type, has_flash_attention
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import to_mapping
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.planner.operators.verify import verify_job
from pangu_alpha.proof.checks.dropout import shared
from pangu_alpha.proof.checks.stages import Together, together
from pangu_alpha.proof.dry_run.compile import compile_rank
from pangu_alpha.proof.dry_run.draw import draw_traffic
from pangu_alpha.proof.dry_run.job import Job
from pangu_alpha.proof.dry_run.links import Cluster
from pangu_alpha.proof.dry_run.report import RankSummary, summarise

_COMPILERS = 2  # child processes at a time; each uses a core, and gigabytes for a large model


def run_dry_run(options: argparse.Namespace, folder: Path) -> int:
    job = job_of(options)
    mesh, cluster = Mesh.of(job.plan), _cluster(options, job.plan)
    ranks = list(options.ranks or [options.rank])
    if options.all_stages:
        ranks = [mesh.rank(stage=stage) for stage in range(mesh.pp)]
    for rank in ranks:
        mesh.coordinates(rank)  # raises for a rank outside the grid
    summaries = compile_ranks(job, ranks, cluster, folder, options.timeout)
    masks = shared({each.rank: each.dropout for each in summaries}, job.plan)
    found = {
        "job": to_mapping(job),
        "ranks": [each.to_json() for each in summaries],
        "dropout": masks,
    }
    block = []
    if job.plan.table is not None:
        block = verify_job(job, folder / "block", options.timeout)
        found["block"] = [{**line._asdict(), "equal": line.equal} for line in block]
    all_ranks = None
    if options.all_stages:
        all_ranks = together({each.rank: each.order for each in summaries}, mesh)
        found["together"] = {"meet": all_ranks.meet, **asdict(all_ranks)}
    write_report(options, folder, found)
    if options.picture is not None:
        draw_traffic(summaries, options.picture)
    if not options.json:
        print(f"{options.model}, {job.plan.devices} devices: dp {mesh.dp}, tp {mesh.tp}, pp {mesh.pp}")
        print(_chip_text(job))
        print(_dry_run_text(job, summaries, all_ranks, masks))
        if block:
            print(f"\n{block_text(block)}")
    good = all(each.agrees for each in summaries) and not masks and all(line.equal for line in block)
    return int(not good or bool(all_ranks and not all_ranks.meet))


def _dry_run_text(
    job: Job, summaries: Sequence[RankSummary], all_ranks: Together | None, masks: Sequence[str]
) -> str:
    """What is shown of the compiled ranks: everything about a single one, or a row for each of several."""
    if len(summaries) == 1 and not all_ranks:
        return f"{rank_text(summaries[0])}\n\n{memory_text(summaries, job)}"
    if all_ranks:
        text = f"{stages_with_traffic(summaries, job)}\n{all_ranks.text()}"
    else:
        text = stages_text(summaries, Mesh.of(job.plan), job.plan.stage_layers(job.model.num_layers))
    return f"{text}\n\n{dropout_text(summaries, masks)}" if job.model.dropout else text


def _chip_text(job: Job) -> str:
    """What depends on the chip: attention, how overflow is noticed, how MindSpore compiles."""
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


def compile_ranks(
    job: Job, ranks: Sequence[int], cluster: Cluster, folder: Path, timeout: float
) -> list[RankSummary]:
    """Compiles ranks, `_COMPILERS` at a time."""

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
            pool.shutdown(cancel_futures=True)  # one refusal is enough
            raise
    return [each.result() for each in waiting]


def stages_with_traffic(summaries: Sequence[RankSummary], job: Job) -> str:
    """Shows a row for each stage, and the traffic of the first, a middle, the last, and a wrong one."""
    layers = job.plan.stage_layers(job.model.num_layers)
    wrong = [each for each in summaries if not each.agrees][:1]
    typical = (summaries[0], summaries[len(summaries) // 2], summaries[-1])
    shown = {each.stage: each for each in sorted((*typical, *wrong), key=lambda each: each.stage)}
    parts = [stages_text(summaries, Mesh.of(job.plan), layers)]
    parts += [f"Traffic of a step, stage {stage}\n{traffic_text(each)}" for stage, each in shown.items()]
    parts.append(memory_text(list(shown.values()), job))
    total = sum(sum(each.wire().values()) for each in summaries) * job.plan.dp * job.plan.tp
    return "\n\n".join([*parts, f"all devices send {size(total)} in a step"])


if __name__ == "__main__":
    from pangu_alpha.cli import no_program

    no_program("pangu_alpha.cli.plan dry-run")
