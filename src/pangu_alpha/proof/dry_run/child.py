"""The child process of a dry run: compiles a job as one rank while it simulates Ascend.

python -m pangu_alpha.proof.dry_run.child FOLDER RANK
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from pangu_alpha.config.schema import build
from pangu_alpha.files.writing import write_text
from pangu_alpha.proof.dry_run.job import GRAPH, JOB, REPORT, Job, Slice
from pangu_alpha.proof.dry_run.stub_calls import counted


def main(arguments: list[str]) -> None:
    """The child: compiles the job in a folder as one rank."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rank", type=int)
    options = parser.parse_args(arguments)
    job = build(Job, json.loads((options.folder / JOB).read_text("utf-8")))
    if job.patch:
        module, _, function = job.patch.partition(":")
        getattr(import_module(module), function)()
    _compile(job, options.rank, options.folder)


def _compile(job: Job, rank: int, folder: Path) -> None:
    # Imported only now, because the job's patch would have no effect on modules that are loaded already.
    from mindspore.communication import init

    from pangu_alpha.parallel.context import simulate_ascend
    from pangu_alpha.proof.dry_run.engine import JobEngine
    from pangu_alpha.proof.graph import private

    simulate_ascend()
    private.allow_missing_hccl()
    init()
    engine = JobEngine(job, rank)
    seconds = _seconds(engine.compile)
    initialize_seconds = _seconds(engine.initialize) if job.initialize else None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = engine.graph
    (folder / GRAPH).write_bytes(private.graph_of(step))
    report = {
        "rank": rank,
        "seconds": seconds,
        "initialize_seconds": initialize_seconds,
        "peak_mb": peak // 1024,
        "layouts": {name: asdict(_slice(row)) for name, row in step.parameter_layout_dict.items()},
        "strategies": private.strategies_of(step),
        "stub_calls": counted(),
    }
    write_text(folder / REPORT, json.dumps(report))


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _slice(row: Any) -> Slice:
    device_matrix, tensor_map, slice_shape, _, _, group, shape = row[:7]
    return Slice(tuple(device_matrix), tuple(tensor_map), tuple(shape), tuple(slice_shape), group)


if __name__ == "__main__":
    main(sys.argv[1:])
