"""Command line of check-cluster: runs the checks on this node, compares reports, or writes one anew."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from glob import glob
from importlib.util import find_spec
from pathlib import Path

import pangu_alpha
from pangu_alpha.cli.check_cluster.options import parse
from pangu_alpha.cli.check_cluster.orders import Follower, Leader, Order
from pangu_alpha.cli.check_cluster.running import GRACE, Machines, Runner, run_processes
from pangu_alpha.cli.launch.attempts import (
    NPU,
    check_devices,
    environment_of,
    require_startable,
    this_node,
)
from pangu_alpha.cluster.process_identity import source_digest
from pangu_alpha.cluster.tables.rank_table import read
from pangu_alpha.cluster_check.check import Check
from pangu_alpha.cluster_check.records import read_result, results_of
from pangu_alpha.cluster_check.reporting.compare import changed_for_worse, compared, read_report
from pangu_alpha.cluster_check.reporting.report import write_report
from pangu_alpha.cluster_check.setup import Setup
from pangu_alpha.cluster_check.table import CHECKS, named
from pangu_alpha.files.lock import hold_folder
from pangu_alpha.files.shown import shown
from pangu_alpha.launcher.commands import Job, Node, Start, plain_nodes, table_nodes
from pangu_alpha.planner.cost.hardware import load_cluster
from pangu_alpha.processes.belonging import MARK, Launcher
from pangu_alpha.processes.signals import Signals

_RANK = Path(__file__).with_name("rank.py")  # not imported: it runs as a program of its own
_MOST_CPU_RANKS = 8  # unless more are asked for
_MOST_RANKS = 1 << 16
_FAMILY_OF_CHIP = {"910A": "910a", "910B": "910b", "910B-Box16": "910b", "910C": "910c"}  # clusters.yaml
_ENDED = ("failed", "died", "late")


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Returns:
        Exit code: 0, 1 if a check did not pass or, of `compare`, passes no longer, or 128 + a signal's
        number.

    Raises:
        ValueError: Options are wrong, devices are missing, or a folder holds other results.
    """
    options = parse(arguments)
    if options.command == "compare":
        return _compare(options)
    if options.command == "report":
        (folder,) = options.folders
        write_report(folder, options.anonymous)
        print(f"{shown(folder / 'report.md')}: written")
        return 0
    return _run(options)


def _compare(options: argparse.Namespace) -> int:
    one, other = map(read_report, options.folders)
    lines = list(compared(one, other, options.share))
    print(*lines or ["no difference"], sep="\n")
    return 1 if changed_for_worse(one, other) else 0


def _run(options: argparse.Namespace) -> int:
    checks = CHECKS if options.only is None else named(options.only)
    device = _device(options)
    job = _job(options, device)
    if options.dry:
        print(*_table(checks, device, job.size), sep="\n")
        return 0
    here = this_node(job, options)
    if device == "Ascend":
        check_devices(here)
    out = Path(os.path.realpath(options.out))
    require_startable(job, str(out))
    setup = _setup(options, device, job.nodes)
    out.mkdir(parents=True, exist_ok=True)
    machines = Machines(job, here, setup, out, os.cpu_count() or 1)
    with Signals() as signals:
        if here.place:
            _follow(machines, options.cluster_timeout, signals)
            return 128 + (signals.again or signals.number) if signals.number else 0
        with hold_folder(out, "checking a cluster"):
            return _lead(machines, checks, options, signals)


def _device(options: argparse.Namespace) -> str:
    if options.device != "auto":
        return options.device
    return "Ascend" if glob(f"{NPU}[0-9]*") else "CPU"


def _job(options: argparse.Namespace, device: str) -> Job:
    """The start of all ranks; its program is that of one rank, without its words."""
    if device == "CPU" and options.rank_table is not None:
        raise ValueError(
            "--device CPU: MindSpore 2.9 joins ranks on CPU by msrun only; leave out --rank-table"
        )
    if find_spec("mindspore") is None:
        raise ValueError(f"{sys.executable}: MindSpore is not installed for this interpreter")
    if options.rank_table is not None:
        nodes = table_nodes(read(options.rank_table, chip=options.chip))
        if options.nnodes not in (None, len(nodes)):
            raise ValueError(f"--nnodes: {options.nnodes} asked for, the rank table has {len(nodes)} servers")
    else:
        nproc = options.nproc or _ranks_here(device)
        if (options.nnodes or 1) * nproc > _MOST_RANKS:
            raise ValueError(f"--nnodes, --nproc: {options.nnodes or 1} nodes of {nproc} ranks are too many")
        nodes = plain_nodes(options.nnodes or 1, nproc)
    total = sum(len(node.workers) for node in nodes)
    start: Start = options.start if total > 1 else "alone"
    environment = {**environment_of(options), MARK: Launcher.this(int(GRACE)).mark}
    table = options.rank_table and os.path.abspath(options.rank_table)
    return Job((str(_RANK),), nodes, start, environment, rank_table=table,
               master=(options.master_addr or "127.0.0.1", options.master_port),
               cluster_timeout=options.cluster_timeout, bind_cores=options.bind_cores)  # fmt: skip


def _ranks_here(device: str) -> int:
    if device == "Ascend":
        return max(len(glob(f"{NPU}[0-9]*")), 1)
    return min(os.cpu_count() or 1, _MOST_CPU_RANKS)


def _setup(options: argparse.Namespace, device: str, nodes: Sequence[Node]) -> Setup:
    oracle = Path(pangu_alpha.__file__).parents[2] / "tests" / "fixtures"
    cluster = options.cluster or _FAMILY_OF_CHIP.get(options.chip or "", "")
    if cluster:
        load_cluster(cluster, sum(len(node.workers) for node in nodes))  # refuses what is no family
    return Setup(
        device=device,
        nodes=tuple(node.ranks for node in nodes),
        devices=tuple(tuple(each for _, each in node.workers) for node in nodes),
        rank_table=os.path.abspath(options.rank_table) if options.rank_table else "",
        cluster=cluster,
        servers_per_rack=options.servers_per_rack or 0,
        oracle=str(oracle) if (oracle / "oracle_tiny.npz").is_file() else "",
        released=os.path.realpath(options.released) if options.released else "",
        text=os.path.realpath(options.text) if options.text else "",
        source=source_digest(),
    )


def _follow(machines: Machines, timeout: float, signals: Signals) -> None:
    """Runs this node's processes of what node 0 orders, until it orders no more."""
    follower = Follower(machines.out, machines.here.place)
    silence = longest_silence(CHECKS, machines.setup.device)
    by_name = {(check.name, each.name): (check, each) for check in CHECKS for each in check.measurements}

    def next_order() -> Order | None:
        return follower.next(timeout + silence, lambda: signals.number != 0)

    while (order := next_order()) is not None:
        check, measurement = by_name[order.check, order.measurement]
        print(f"{check.name}: {measurement.name}", flush=True)
        failure = run_processes(machines, order, measurement, check.limit(machines.setup.device), signals)
        if failure is not None:
            print(f"{check.name}: {failure}", file=sys.stderr, flush=True)


def longest_silence(checks: Sequence[Check], device: str) -> float:
    """Longest time that the first node may measure alone, so that the others get no order. Unit: seconds."""
    longest = silence = 0.0
    for check in checks:
        for each in check.measurements:
            silence = silence + check.limit(device) if each.ranks == "one" else 0.0
            longest = max(longest, silence)
    return longest + max(check.limit(device) for check in checks)


def _lead(machines: Machines, checks: Sequence[Check], options: argparse.Namespace, signals: Signals) -> int:
    """Runs the checks that have not passed yet, writes the report after each, and gives the exit code."""
    out = machines.out
    machines.setup.save(out)
    leader = Leader(out, len(machines.job.nodes), machines.job.master[1])
    leader.gather(options.cluster_timeout, lambda: signals.number != 0)

    def report(line: str) -> None:
        print(line, flush=True)
        write_report(out, options.anonymous)

    try:
        Runner(machines, leader, signals, report).run(
            [each for each in checks if not _passed(out, each, report)]
        )
    finally:
        leader.end()
    write_report(out, options.anonymous)
    print(f"{shown(out / 'report.md')}: the report", flush=True)
    if signals.number:
        return 128 + (signals.again or signals.number)
    results = results_of(out, tuple(checks))
    return 1 if any(each.verdict in _ENDED for each in results.values()) else 0


def _passed(out: Path, check: Check, report: Callable[[str], None]) -> bool:
    result = read_result(out, check.name)
    passed = result is not None and result.verdict == "passed"
    if passed:
        report(f"{check.name}: passed before")
    return passed


def _table(checks: Sequence[Check], device: str, ranks: int) -> Iterator[str]:
    """Yields a line for each check: its name, its usual seconds, its ranks, and what it shows."""
    for check in checks:
        seconds = check.seconds[device] * len(check.measured(ranks, device))
        joined = "all ranks" if any(each.ranks != "one" for each in check.measurements) else "one rank"
        yield f"{check.name:12} {seconds:5} s  {joined:9}  {check.shows}"


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
