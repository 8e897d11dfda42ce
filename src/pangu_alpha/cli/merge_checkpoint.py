"""Command line of merge_checkpoint.py: makes our checkpoint of any other, whole or cut for another plan."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from pathlib import Path

from pangu_alpha.checkpoint.moving.copying import Limits
from pangu_alpha.checkpoint.moving.reshard import reshard
from pangu_alpha.checkpoint.open import open_source
from pangu_alpha.checkpoint.summary import size_text, stored_bytes
from pangu_alpha.checkpoint.tensors import Source
from pangu_alpha.checkpoint.vocabulary import find_vocabulary
from pangu_alpha.cli.options import (
    add_plan_options,
    add_source_options,
    byte_size,
    given_fields,
    plan_fields,
    positive,
    source_options,
    user_path,
)
from pangu_alpha.cli.parser import Parser
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.config.schema import build
from pangu_alpha.files.shown import shown

_PLAN = (
    "dp",
    "tp",
    "pp",
    "micro_batches",
    "layers_per_stage",
    "optimizer_parallel",
    "optimizer_threshold",
    "vocab_parallel",
    "table",
)  # the fields that decide which part of a tensor a rank holds
_EXAMPLES = """\
examples:
  merge_checkpoint.py output/checkpoints/step_00001000 merged           one file for all that reads ours
  merge_checkpoint.py output resharded --plan new.yaml                  the newest, cut for another plan
  merge_checkpoint.py output resharded --dp 4 --tp 2 --pp 4 --optimizer-parallel level1
  merge_checkpoint.py /node0/output /node1/output merged                parts on the disks of the nodes
  merge_checkpoint.py PanguAlpha_13B released_13b --tp 8                the released slices, for 8 devices

A command that was killed goes on where it was when it is run again. exit code: 0 done; 2 refused
"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="merge_checkpoint.py",
        description="Merges a checkpoint of any form, or cuts it for another parallel plan. Needs no device.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", nargs="+", type=user_path, metavar="SRC", help="a checkpoint, a run's output folder (its "
        "newest is taken), or the folders of all nodes")  # fmt: skip
    add("target", type=user_path, metavar="DST", help="the folder to make")
    add("--weights-only", action="store_true", help="leave the state of the optimizer out")
    add("--budget", type=byte_size, default=Limits().budget, metavar="SIZE", help="memory of the whole "
        "process (default: 2GB)")  # fmt: skip
    add("--threads", "--workers", dest="workers", type=positive, default=Limits().workers, metavar="N",
        help="threads that read and write (default: %(default)s)")  # fmt: skip
    add("--quiet", action="store_true", help="show no progress")
    add(
        "--full", action="store_true", help="make the checkpoint of one process, without a plan (the default)"
    )
    add_plan_options(parser, "plan of the new checkpoint", *_PLAN)
    add_source_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs merge_checkpoint.py; raises ValueError for what the user can fix."""
    options = _parser().parse_args(arguments)
    plan = plan_of(options)
    began = time.perf_counter()
    source = open_source(options.source, source_options(options))
    print(shown(_found(source)), flush=True)
    limits = Limits(options.budget, options.workers, not options.quiet)
    reshard(source, options.target, plan, options.weights_only, limits)
    print(shown(_made(options.target, plan, time.perf_counter() - began)))
    print(shown(f"  {find_vocabulary(source).said}"))
    return 0


def plan_of(options: argparse.Namespace) -> ParallelPlan | None:
    """Returns the plan that the options ask for; None is one process.

    Raises:
        ValueError: The plan breaks a rule, or --full is given with a plan.
    """
    values = plan_fields(options.plan) | given_fields(options, ParallelPlan)
    if options.full and values:
        raise ValueError("--full: makes a checkpoint of no plan; leave it out, or the options of a plan")
    if not values:
        return None
    return build(ParallelPlan, {"micro_batches": values.get("pp", 1), **values})


def _found(source: Source) -> str:
    size = sum(stored_bytes(stored) for group in source.tensors.values() for stored in group.values())
    manifest, stems = source.manifest, " and ".join(source.tensors)
    said = f"{source.path}: {source.form}; {stems}, {size_text(size)}; step {manifest.step}"
    return "\n".join([f"{said}, {manifest.samples} samples", *(f"  note: {note}" for note in source.notes)])


def _made(path: Path, plan: ParallelPlan | None, seconds: float) -> str:
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    form = "one process" if plan is None else f"dp {plan.dp}, tp {plan.tp}, pp {plan.pp}"
    return (
        f"{path}: written for {form}; {size_text(size)} in {seconds:.1f} s, "
        f"{size / seconds / 1e9:.2f} GB/s{_memory()}"
    )


def _memory() -> str:
    """Peak memory of this process if Linux shows it; getrusage would include the process that started it."""
    status = Path("/proc/self/status")
    peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text("ascii")) if status.is_file() else None
    return f"; peak memory {int(peak[1]) * 1024 / 1e6:.0f} MB" if peak else ""


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
