"""Compiles a rank's training step with MindSpore's Ascend partitioner in a child process on CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from pangu_alpha.config.schema import to_mapping
from pangu_alpha.files.writing import write_text
from pangu_alpha.proof.dry_run.cann import dry_run_environment
from pangu_alpha.proof.dry_run.job import JOB, REPORT, DryRunError, Job, RankReport, read_report
from pangu_alpha.proof.dry_run.stub_calls import refuse_unknown

_CHILD = "pangu_alpha.proof.dry_run.child"


def compile_rank(job: Job, rank: int, folder: Path, timeout: float = 1800.0) -> RankReport:
    """Compiles one rank in a child process.

    Args:
        rank: One of the plan's ranks.
        folder: Folder that gets rank_NNNNN/ with graph.mindir, report.json and log.txt.
        timeout: Seconds after which the child is ended.

    Raises:
        DryRunError: If MindSpore refused the plan, or the child died or took too long.
        ValueError: If dry runs cannot work on this machine; see proof.dry_run.cann.
    """
    target = folder / f"rank_{rank:05d}"
    target.mkdir(parents=True, exist_ok=True)
    write_text(target / JOB, json.dumps(to_mapping(job)))
    (target / REPORT).unlink(missing_ok=True)
    environment = dry_run_environment(rank, job.plan.devices)
    command = [sys.executable, "-m", _CHILD, str(target), str(rank)]
    with (target / "log.txt").open("w") as log:
        try:
            child = subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise DryRunError(f"rank {rank}: not compiled within {timeout:.0f} s") from error
    if child.returncode or not (target / REPORT).exists():
        raise DryRunError(f"rank {rank}: {_reason(target / 'log.txt', child.returncode)}")
    report = read_report(target)
    try:
        refuse_unknown(report.stub_calls)
    except ValueError as error:
        raise DryRunError(f"rank {rank}: {error}") from error
    return report


def _reason(log: Path, code: int) -> str:
    """The lines of a child's log that explain why it ended."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if "Error" in line and "[CRITICAL]" not in line]
    said = " | ".join(lines[starts[-1] :][:4]) if starts else " | ".join(lines[-3:])
    return f"the compilation ended with code {code}: {said} (all of it: {log})"
